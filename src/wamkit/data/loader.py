"""Batches of step n, n + 1, ..., read ahead by a thread, and by worker processes where they are asked for.

Does not know whether samples come from a latent cache or are encoded now: both are `Samples`.
"""

from __future__ import annotations

import signal
from collections import deque
from collections.abc import Callable, Generator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from itertools import count
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset
from wamkit_client.types import BadInput

from wamkit.data.order import WHOLE_BATCH, Order, Share, augmentation_seed
from wamkit.data.samples import Reader, Samples
from wamkit.data.shared import Table
from wamkit.tree import tree_leaves, tree_of
from wamkit.types import Batch


@dataclass(frozen=True)
class _Steps(Dataset[Any]):
    """The stream as a map-style dataset: step -> what the reader makes of its samples.

    rows: of the global batch of `batch_size`, those wanted here.
    """

    order: Order
    reader: Reader
    batch_size: int
    rows: tuple[int, ...]

    def __getitem__(self, step: int) -> Any:
        places = [step * self.batch_size + row for row in self.rows]
        seeds = [augmentation_seed(self.order.seed, place) for place in places]
        try:
            return self.reader([self.order.at(place) for place in places], seeds)
        except BadInput as error:
            return error  # torch would wrap an exception of a worker in its own traceback


def _as_read(batch: Any) -> Any:
    """In place of torch's collate function, which would convert what the reader returns."""
    return batch


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
    share: Share = WHOLE_BATCH,
    parts: int = 1,
) -> Generator[Batch, None, None]:
    """The batches of steps `start_step`, `start_step + 1`, ... on `device`, without end.

    embodiment: the policy's numbers of robots. batch_size: of the global batch, which goes through the policy in
    `parts` equal parts. share: what this process reads of it.
    prefetch: batches that a thread reads ahead. workers: processes that read and prepare; 0: that
    thread does. An error while reading is raised where its batch is due. Close the iterator (`contextlib.closing`) to
    stop thread and workers.
    """
    loader = DataLoader(
        _Steps(replace(samples.order, seed=seed), samples.reader, batch_size, share.rows(batch_size, parts)),
        batch_size=None,  # an item is a batch already
        sampler=count(start_step),
        num_workers=workers,
        collate_fn=_as_read,
        worker_init_fn=_ignore_interrupts,
        multiprocessing_context="forkserver" if workers else None,
        generator=torch.Generator(),  # torch would draw from the global one
    )
    steps, table = iter(loader), Table(device)

    def read() -> Batch:
        found = next(steps)
        if isinstance(found, BadInput):
            raise found
        encoded = samples.finish(found)
        batch = encoded.batch(embodiment).to(device)
        return replace(batch, inputs=tree_of(tree_leaves(batch.inputs) | table.stacked(encoded.shared)))

    thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="loader")
    ahead: deque[Future[Batch]] = deque()
    try:
        while True:
            while len(ahead) <= prefetch:
                ahead.append(thread.submit(read))
            yield ahead.popleft().result()
    finally:
        thread.shutdown(wait=True, cancel_futures=True)
