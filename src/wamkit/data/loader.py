"""Which samples make up step n, and reading them ahead.

The order is a pure function of (seed, step, rank, world): two runs with one seed see the same samples in the
same order whatever the policy, and a resumed run needs no state. Samples are one endless stream, epoch after
epoch, each a fresh permutation; a batch may straddle two epochs, nothing is dropped.
Does not know whether samples come from a latent cache or are encoded now: both are a `Source`.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Generator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, fields, replace
from functools import lru_cache
from typing import Protocol, runtime_checkable

import numpy as np
import torch

from wamkit.data.clips import ClipSample
from wamkit.types import Batch, Clip, Trainable


@runtime_checkable
class Source(Protocol):
    """Numbered samples that come as batches: a `Cache`, or `Fresh` clips."""

    def __len__(self) -> int:
        """How many samples."""

    def batch(self, indices: Sequence[int]) -> Batch:
        """These samples, in this order."""


@runtime_checkable
class Clips(Protocol):
    """What is asked of a dataset of clips (data/clips.py)."""

    def __len__(self) -> int:
        """How many samples."""

    def sample(self, index: int, /) -> ClipSample:
        """One sample."""


@dataclass(frozen=True)
class Fresh:
    """A source that encodes clips when asked, on `device`: the plain twin of the latent cache."""

    clips: Clips
    policy: Trainable
    device: torch.device

    def __len__(self) -> int:
        return len(self.clips)

    @torch.no_grad()
    def batch(self, indices: Sequence[int]) -> Batch:
        """The samples, encoded by the policy's frozen half; tensors are on the CPU."""
        samples = [self.clips.sample(index) for index in indices]
        clip = join_clips([sample.clip for sample in samples])
        views = {name: view.to(self.device) for name, view in clip.views.items()}
        inputs = self.policy.encode(replace(clip, views=views, proprio=clip.proprio.to(self.device)))
        return Batch(
            inputs=replace(
                inputs, **{field.name: getattr(inputs, field.name).cpu() for field in fields(inputs)}
            ),
            actions=torch.cat([sample.actions for sample in samples]),
            action_is_pad=torch.cat([sample.action_is_pad for sample in samples]),
            frame_is_pad=torch.cat([sample.frame_is_pad for sample in samples]),
            embodiments=clip.embodiments,
            ids=tuple(sample.id for sample in samples),
        )


def join_clips(clips: Sequence[Clip]) -> Clip:
    """Clips of equal shapes, one after the other along the batch dimension."""
    return Clip(
        views={name: torch.cat([clip.views[name] for clip in clips]) for name in clips[0].views},
        proprio=torch.cat([clip.proprio for clip in clips]),
        instructions=tuple(text for clip in clips for text in clip.instructions),
        embodiments=tuple(name for clip in clips for name in clip.embodiments),
    )


def order(samples: int, batch_size: int, seed: int, step: int, *, rank: int = 0, world: int = 1) -> list[int]:
    """The sample numbers of step `step` (from 0) on `rank` of `world` processes, `batch_size` on each.

    All ranks together take `world * batch_size` consecutive places of the stream, dealt round-robin.
    """
    first = step * batch_size * world + rank
    places = range(first, first + batch_size * world, world)
    return [int(_permutation(samples, seed, place // samples)[place % samples]) for place in places]


@lru_cache(maxsize=4)
def _permutation(samples: int, seed: int, epoch: int) -> np.ndarray:
    return np.random.default_rng([seed, epoch]).permutation(samples)


def batches(
    source: Source,
    batch_size: int,
    seed: int,
    start_step: int = 0,
    *,
    device: torch.device = torch.device("cpu"),  # noqa: B008 - immutable
    prefetch: int = 2,
    rank: int = 0,
    world: int = 1,
) -> Generator[Batch, None, None]:
    """The batches of steps `start_step`, `start_step + 1`, ... on `device`, without end.

    One thread reads `prefetch` batches ahead. An error while reading is raised where its batch is due.
    Close the iterator (`contextlib.closing`) to stop the thread.
    """

    def read(step: int) -> Batch:
        return source.batch(order(len(source), batch_size, seed, step, rank=rank, world=world)).to(device)

    reader = ThreadPoolExecutor(max_workers=1, thread_name_prefix="loader")
    ahead: deque[Future[Batch]] = deque()
    step = start_step
    try:
        while True:
            while len(ahead) <= prefetch:
                ahead.append(reader.submit(read, step))
                step += 1
            yield ahead.popleft().result()
    finally:
        reader.shutdown(wait=True, cancel_futures=True)
