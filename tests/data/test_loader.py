"""The order of samples, and reading ahead."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from contextlib import closing
from itertools import islice

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from tests.train.tiny import CPU, TinyClips, TinyPolicy
from wamkit.data.loader import Fresh, batches, order
from wamkit.types import Batch

sizes = st.integers(1, 40)


@given(samples=sizes, batch_size=sizes, seed=st.integers(0, 9), epochs=st.integers(1, 3))
def test_every_epoch_has_every_sample_once(samples: int, batch_size: int, seed: int, epochs: int) -> None:
    steps = -(-samples * epochs // batch_size)
    stream = [index for step in range(steps) for index in order(samples, batch_size, seed, step)]
    for epoch in range(epochs):
        assert sorted(stream[epoch * samples : (epoch + 1) * samples]) == list(range(samples))


@given(samples=sizes, batch_size=st.integers(1, 8), step=st.integers(0, 20), world=st.integers(1, 4))
def test_ranks_share_the_batch_of_one_process(samples: int, batch_size: int, step: int, world: int) -> None:
    parts = [order(samples, batch_size, 3, step, rank=rank, world=world) for rank in range(world)]
    dealt = [index for round_ in zip(*parts, strict=True) for index in round_]
    assert dealt == order(samples, batch_size * world, 3, step)


def test_epochs_and_seeds_differ() -> None:
    first, second = order(50, 50, 0, 0), order(50, 50, 0, 1)
    assert first != second
    assert first != order(50, 50, 1, 0)
    assert first == order(50, 50, 0, 0)


def test_batches_start_anywhere_and_do_not_depend_on_the_policy() -> None:
    clips = TinyClips(23)
    with closing(batches(Fresh(clips, TinyPolicy(0), CPU), 4, seed=1)) as stream:
        whole = list(islice(stream, 9))
    with closing(batches(Fresh(clips, TinyPolicy(1), CPU), 4, seed=1, start_step=5)) as stream:
        rest = list(islice(stream, 4))
    assert [batch.ids for batch in rest] == [batch.ids for batch in whole[5:]]
    assert torch.equal(rest[0].actions, whole[5].actions)
    assert whole[0].ids == tuple(clips.sample(index).id for index in order(23, 4, 1, 0))


class Watched:
    """A source that counts and, at one batch, fails."""

    def __init__(self, bad: int) -> None:
        self.bad, self.reads, self.source = bad, 0, Fresh(TinyClips(10), TinyPolicy(), CPU)

    def __len__(self) -> int:
        return len(self.source)

    def batch(self, indices: Sequence[int]) -> Batch:
        self.reads += 1
        if self.reads == self.bad:
            raise ValueError("episode 7, frame 3 does not decode")
        return self.source.batch(indices)


def test_an_error_is_raised_where_its_batch_is_due() -> None:
    with closing(batches(Watched(bad=3), 2, seed=0, prefetch=4)) as stream:
        assert len(list(islice(stream, 2))) == 2
        with pytest.raises(ValueError, match="episode 7"):
            next(stream)


def test_reading_ahead_is_bounded_and_closing_ends_the_thread() -> None:
    source = Watched(bad=0)
    before = threading.active_count()
    with closing(batches(source, 2, seed=0, prefetch=3)) as stream:
        next(stream)
        assert threading.active_count() == before + 1
    assert threading.active_count() == before
    assert 1 <= source.reads <= 4
