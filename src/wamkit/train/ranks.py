"""The processes that train one policy together: what each reads of a batch, and what they tell each other.

A process that trains alone is one rank of one (ALONE) and tells nobody. Small things go over the CPU, so that no device
is waited for. It knows neither policies nor who started the processes.
"""

from __future__ import annotations

import hashlib
import json
import socket
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, TypeVar

import torch
from torch import Tensor
from wamkit_client.types import BadInput

from wamkit.data.order import WHOLE_BATCH, Share

T = TypeVar("T")
LOOK_EVERY = 0.05
AT_MOST = 4
"""Differences between two ranks that a message names."""


class Agreed(BadInput):
    """An error that every rank raises alike, of which the first one tells the user."""


class Ranks:
    """One process alone, and what every rank of several has. share: of every batch. of_machine: ranks of a machine."""

    share: Share = WHOLE_BATCH
    of_machine: int = 1

    @property
    def writes(self) -> bool:
        """Whether it writes files and is heard; one of all does."""
        return self.share.rank == 0

    def mean(self, values: Tensor) -> Tensor:
        """Over all ranks."""
        return values

    def sum(self, values: Tensor) -> Tensor:
        """Over all ranks."""
        return values

    def gathered(self, own: T) -> list[T]:
        """What every rank has, in their order."""
        return [own]

    def stops(self, asked: bool) -> bool:
        """Whether all stop after this step. asked: whether this one was asked to; the others know a step later."""
        return asked

    def expect_all(self, done: str, seconds: float) -> None:
        """Wait until every rank has come here. Agreed naming those that have not `done` this in time."""

    def expect_alike(self, facts: Callable[[], Mapping[str, str]]) -> None:
        """Agreed naming what differs from the first rank's facts: name -> value."""

    @contextmanager
    def together(self) -> Iterator[None]:
        """Work of all ranks, none of which goes on before all are done: what one refuses, all do."""
        yield


class Together(Ranks):
    """One of several, in torch's default process group, whose CPU tensors go over gloo. store: of all."""

    def __init__(self, store: Any, of_machine: int) -> None:
        self._store, self.of_machine = store, of_machine
        from torch import distributed  # as heavy as it is, where it is used

        self._distributed = distributed
        self.share = Share(distributed.get_rank(), distributed.get_world_size())
        self._asked: tuple[Tensor, Any] | None = None

    def mean(self, values: Tensor) -> Tensor:
        """See Ranks."""
        return self.sum(values) / self.share.count

    def sum(self, values: Tensor) -> Tensor:
        """See Ranks."""
        total = values.clone()
        self._distributed.all_reduce(total)
        return total

    def gathered(self, own: T) -> list[T]:
        """See Ranks."""
        found: list[Any] = [None] * self.share.count
        self._distributed.all_gather_object(found, own)
        return found

    def stops(self, asked: bool) -> bool:
        """See Ranks. What was asked after the step before is known by now, so that nobody waits for it."""
        before, self._asked = self._asked, self._ask(asked)
        if before is None:
            return False
        flag, work = before
        work.wait()
        return bool(flag)

    def _ask(self, asked: bool) -> tuple[Tensor, Any]:
        flag = torch.tensor(int(asked))
        work = self._distributed.all_reduce(flag, self._distributed.ReduceOp.MAX, async_op=True)
        return flag, work

    def expect_all(self, done: str, seconds: float) -> None:
        """See Ranks."""
        names = [f"{done} {rank}" for rank in range(self.share.count)]
        self._store.set(names[self.share.rank], "")
        deadline = time.monotonic() + seconds
        while not self._store.check(names):
            if time.monotonic() > deadline:
                late = [str(rank) for rank, name in enumerate(names) if not self._store.check([name])]
                raise Agreed(f"rank {', '.join(late)} of {len(names)} has not {done} (within {seconds:g} s)")
            time.sleep(LOOK_EVERY)

    def expect_alike(self, facts: Callable[[], Mapping[str, str]]) -> None:
        """See Ranks."""
        own = (socket.gethostname(), dict(facts()))
        digest = hashlib.sha256(json.dumps(own[1], sort_keys=True).encode()).hexdigest()
        if len(set(self.gathered(digest))) > 1:
            raise Agreed(difference(self.gathered(own)))

    @contextmanager
    def together(self) -> Iterator[None]:
        """See Ranks."""
        refused = ""
        try:
            yield
        except BadInput as error:
            refused = str(error)
        if told := joined(self.gathered((socket.gethostname(), refused))):
            raise Agreed(told)


ALONE = Ranks()


@contextmanager
def group(store: Any, rank: int, count: int, backend: str, of_machine: int) -> Iterator[Together]:
    """One of `count` processes that find each other by a store of torch.distributed. backend: "gloo", or with a GPU
    "cpu:gloo,cuda:nccl"."""
    from torch import distributed

    distributed.init_process_group(backend, store=store, rank=rank, world_size=count)
    try:
        yield Together(store, of_machine)
    finally:
        distributed.destroy_process_group()


def joined(refusals: Sequence[tuple[str, str]]) -> str:
    """What ranks refused, each error once. refusals: host and error, "" for none, of every rank."""
    by_error: dict[str, list[str]] = {}
    for rank, (host, error) in enumerate(refusals):
        if error:
            by_error.setdefault(error, []).append(f"rank {rank} ({host})")
    if [len(refusals)] == [len(who) for who in by_error.values()]:
        return next(iter(by_error))
    return "; ".join(f"{', '.join(who)} of {len(refusals)}: {error}" for error, who in by_error.items())


def difference(everyone: Sequence[tuple[str, Mapping[str, str]]]) -> str:
    """What the first rank that differs from rank 0 has otherwise. everyone: host and facts, name -> value."""
    (first, expected), *_ = everyone
    unlike = next(rank for rank, (_, found) in enumerate(everyone) if found != expected)
    host, found = everyone[unlike]
    names = [name for name in {**expected, **found} if expected.get(name) != found.get(name)]
    told = "; ".join(
        f"{name}: {found.get(name, 'none')} instead of {expected.get(name, 'none')}"
        for name in names[:AT_MOST]
    )
    more = f" and {len(names) - AT_MOST} more" if len(names) > AT_MOST else ""
    return (
        f"rank {unlike} ({host}) is not like rank 0 ({first}): {told}{more}; start all ranks with the same command, "
        "installation and files"
    )


def expect_divisible(ranks: Ranks, batch_size: int, accumulation: int) -> None:
    """BadInput where the parts of a batch cannot be shared equally."""
    count, part = ranks.share.count, batch_size // accumulation
    if count > part:
        of_parts = f" in {accumulation} parts of {part}" if accumulation > 1 else ""
        raise BadInput(
            f"train.batch_size: {batch_size} samples{of_parts} for {count} ranks; every rank needs one of each part: "
            "give a larger batch, fewer parts (train.accumulation) or fewer ranks"
        )
    if part % count:
        whole = count * accumulation
        near = [size for size in (batch_size // whole * whole, (batch_size // whole + 1) * whole) if size]
        raise BadInput(
            f"train.batch_size: {batch_size} samples in {accumulation} part(s) cannot be shared equally by {count} "
            f"ranks; give {' or '.join(map(str, near))}, or another number of ranks"
        )
