"""Whether a training step fits the memory of a device, and the fewest parts of a batch with which it does.

Counted as `stages/plan.py` counts. What else a process needs on a device (its context, workspaces of libraries, pieces
between allocations) is left room for, in OTHER.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from wamkit.config import Run
from wamkit.stages.plan import Memory, memory
from wamkit.types import Trainable

OTHER = 0.08
"""Share of a device's memory that is left for what is not counted."""
GROUP_LIMIT = Path("/sys/fs/cgroup/memory.max")


@dataclass(frozen=True)
class Place:
    """Where a run may be trained: its name in a sentence ("this GPU"), and its bytes of memory."""

    name: str
    size: int


@dataclass(frozen=True)
class Fit:
    """Whether a step fits. need: its memory. accumulation: the parts of a batch with which `reduced` is what it needs:
    the fewest that fit, or, where none do, all samples one by one; those of the run where it fits as it is."""

    place: Place
    need: Memory
    accumulation: int
    reduced: Memory
    fits: bool

    @property
    def reduced_fits(self) -> bool:
        """Whether more parts help."""
        return self.reduced.total <= room(self.place)

    def sentence(self) -> str:
        """The answer, with numbers, and what to do."""
        taken = f"{_gib(self.need.total)} of {_gib(self.place.size)} GiB"
        if self.fits:
            return f"yes, {taken}"
        parts, less = f"--train.accumulation {self.accumulation}", f"{_gib(self.reduced.total)} GiB"
        if self.reduced_fits:
            return f"no, {taken}; with {parts}: {less}"
        fixed = _gib(self.reduced.total - self.reduced.activations)
        return (
            f"no, {taken}; {less} even with {parts}, one sample at a time: {fixed} GiB are weights, gradients and "
            "optimizer, so train a smaller policy, or on a device of more memory"
        )


def this_place(device: torch.device) -> Place:
    """The device of this machine; of a CPU the memory that this process may use."""
    if device.type == "cuda":
        found = torch.cuda.get_device_properties(device)
        return Place(f"this GPU ({found.name})", found.total_memory)
    size = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    limit = GROUP_LIMIT.read_text().strip() if GROUP_LIMIT.is_file() else "max"
    return Place("this CPU", size if limit == "max" else min(size, int(limit)))


def room(place: Place) -> int:
    """Bytes that a training step may take there."""
    return int(place.size * (1 - OTHER))


def fit(run: Run, policy: Trainable, place: Place) -> Fit:
    """Whether a step of a run fits. policy: that of the run on the meta device (plan.meta_policy)."""
    need = memory(run, policy)
    if need.total <= room(place):
        return Fit(place, need, run.train.accumulation, need, True)
    fixed, size = need.total - need.activations, run.train.batch_size
    more = [n for n in range(run.train.accumulation + 1, size + 1) if size % n == 0]
    accumulation, reduced = run.train.accumulation, need
    for accumulation in more:
        # What is kept for backward grows with the samples of a part; only parts that can fit are counted.
        if (
            fixed + need.activations * run.train.accumulation // accumulation > room(place)
            and accumulation < size
        ):
            continue
        reduced = memory(replace(run, train=replace(run.train, accumulation=accumulation)), policy)
        if reduced.total <= room(place):
            break
    return Fit(place, need, accumulation, reduced, False)


def _gib(count: int) -> str:
    """ "232", "37", "2.4", "0.15": two or three digits."""
    giga = count / 2**30
    return f"{giga:.0f}" if giga >= 10 else f"{giga:.2g}"
