"""Batches of step n, n + 1, ..., read ahead by a thread, and by worker processes where they are asked for.

Does not know whether samples come from a latent cache or are encoded now: both are `Samples`.
"""

from __future__ import annotations

import signal
from collections import deque
from collections.abc import Callable, Generator, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset
from wamkit_client.types import BadInput

from wamkit.data.order import Order, augmentation_seed
from wamkit.data.samples import Reader, Samples
from wamkit.types import Batch


@dataclass(frozen=True)
class _Places(Dataset[Any]):
    """The stream as a map-style dataset: place -> what the reader makes of the sample there."""

    order: Order
    reader: Reader

    def __getitem__(self, place: int) -> Any:
        try:
            return self.reader(self.order.at(place), augmentation_seed(self.order.seed, place))
        except BadInput as error:
            return error  # torch would wrap an exception of a worker in its own traceback


@dataclass(frozen=True)
class _Steps:
    """The places of every step from `start` on, without end. rows: of the global batch, those wanted here."""

    start: int
    batch_size: int
    rows: range

    def __iter__(self) -> Iterator[list[int]]:
        step = self.start
        while True:
            yield [step * self.batch_size + row for row in self.rows]
            step += 1


def _ignore_interrupts(worker: int) -> None:
    """Ctrl-C goes to the process that trains, which ends its workers."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def batches(
    samples: Samples,
    embodiment: Callable[[Sequence[str]], Tensor],
    batch_size: int,
    seed: int,
    start_step: int = 0,
    *,
    device: torch.device = torch.device("cpu"),  # noqa: B008 - immutable
    prefetch: int = 2,
    workers: int = 0,
    rank: int = 0,
    world: int = 1,
) -> Generator[Batch, None, None]:
    """The batches of steps `start_step`, `start_step + 1`, ... on `device`, without end.

    embodiment: the policy's numbers of robots. batch_size: of the global batch, of which rank r of `world` takes the
    r-th equal part. prefetch: batches that a thread reads ahead. workers: processes that read and prepare; 0: that
    thread does. An error while reading is raised where its batch is due. Close the iterator (`contextlib.closing`) to
    stop thread and workers.
    """
    share = batch_size // world
    loader = DataLoader(
        _Places(replace(samples.order, seed=seed), samples.reader),
        batch_sampler=_Steps(start_step, batch_size, range(rank * share, (rank + 1) * share)),
        num_workers=workers,
        collate_fn=list,
        worker_init_fn=_ignore_interrupts,
        multiprocessing_context="spawn" if workers else None,
        generator=torch.Generator(),  # torch would draw from the global one
    )
    steps = iter(loader)

    def read() -> Batch:
        found = next(steps)
        for sample in found:
            if isinstance(sample, BadInput):
                raise sample
        return samples.collate(found).batch(embodiment).to(device)

    thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="loader")
    ahead: deque[Future[Batch]] = deque()
    try:
        while True:
            while len(ahead) <= prefetch:
                ahead.append(thread.submit(read))
            yield ahead.popleft().result()
    finally:
        thread.shutdown(wait=True, cancel_futures=True)
