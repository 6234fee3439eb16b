"""The order of samples, mixtures of sources, and reading ahead."""

from __future__ import annotations

import threading
from collections import Counter
from contextlib import closing
from dataclasses import replace
from itertools import islice
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from wamkit_client.types import BadInput

from tests.train.tiny import TinyClips, TinyEncoder, TinyPolicy, fresh
from wamkit.data.clips import ClipSample
from wamkit.data.loader import batches
from wamkit.data.order import Order, Share
from wamkit.data.samples import Encoded, Fresh, Mixture, read_all
from wamkit.tree import Tree

sizes = st.integers(1, 40)
ROBOTS = TinyPolicy().embodiment


def stream(order: Order, places: int) -> list[int]:
    return [order.at(place) for place in range(places)]


@given(samples=sizes, seed=st.integers(0, 9), epochs=st.integers(1, 3))
def test_every_epoch_has_every_sample_once(samples: int, seed: int, epochs: int) -> None:
    found = stream(Order((samples,), (1.0,), seed), epochs * samples)
    for epoch in range(epochs):
        assert sorted(found[epoch * samples : (epoch + 1) * samples]) == list(range(samples))


def test_the_order_of_one_source_is_a_permutation_per_epoch_by_seed_and_epoch() -> None:
    """As runs of earlier versions had it: they resume."""
    expected = [int(i) for epoch in range(3) for i in np.random.default_rng([5, epoch]).permutation(17)]
    assert stream(Order((17,), (1.0,), 5), 51) == expected


@given(
    sizes=st.lists(st.integers(1, 30), min_size=2, max_size=4),
    weights=st.lists(st.floats(0.1, 5), min_size=4, max_size=4),
    seed=st.integers(0, 5),
)
def test_a_mixture_has_its_shares_and_reads_every_source_evenly(
    sizes: list[int], weights: list[float], seed: int
) -> None:
    total = sum(sizes)
    order = Order(tuple(sizes), tuple(weights[: len(sizes)]), seed)
    found = stream(order, 6 * total)
    ends = np.cumsum(sizes)
    shares = np.multiply(sizes, order.weights)
    for block in range(6):
        sources = Counter(
            int(np.searchsorted(ends, i, side="right")) for i in found[block * total : (block + 1) * total]
        )
        for source in range(len(sizes)):
            assert abs(sources[source] - total * shares[source] / shares.sum()) < 1 + 1e-9
    counts = Counter(found)
    for source, (end, size) in enumerate(zip(ends, sizes, strict=True)):
        seen = [counts[i] for i in range(end - size, end)]
        assert max(seen) - min(seen) <= 2, (source, seen)


@given(samples=sizes, share=st.integers(1, 8), step=st.integers(0, 20), world=st.integers(1, 4))
def test_ranks_share_the_batch_of_one_process(samples: int, share: int, step: int, world: int) -> None:
    def ids(rank: int, world: int) -> tuple[str, ...]:
        size = share * max(world, 1)
        with closing(
            batches(fresh(samples), ROBOTS, size, 3, step, prefetch=0, share=Share(rank, world))
        ) as stream:
            return next(stream).ids

    order = Order((samples,), (1.0,), 3)
    whole = [
        TinyClips(samples).sample(order.at(step * share * world + row)).id for row in range(share * world)
    ]
    assert [name for rank in range(world) for name in ids(rank, world)] == whole


def test_epochs_and_seeds_differ() -> None:
    order = Order((50,), (1.0,), 0)
    first, second = stream(order, 50), stream(order, 100)[50:]
    assert first != second
    assert first != stream(replace(order, seed=1), 50)
    assert first == stream(order, 50)


def test_batches_start_anywhere() -> None:
    with closing(batches(fresh(23), ROBOTS, 4, seed=1)) as stream:
        whole = list(islice(stream, 9))
    with closing(batches(fresh(23), ROBOTS, 4, seed=1, start_step=5)) as stream:
        rest = list(islice(stream, 4))
    assert [batch.ids for batch in rest] == [batch.ids for batch in whole[5:]]
    assert torch.equal(rest[0].actions, whole[5].actions)


class Noise(TinyEncoder):
    """Adds noise to the images of a sample."""

    augments = True

    @staticmethod
    def prepare(views: Tree, generator: torch.Generator) -> Tree:
        return {
            name: (view.float() + torch.randn(view.shape, generator=generator)).round().clamp(0, 255)
            for name, view in views.items()
        }


def test_workers_give_the_batches_of_one_process() -> None:
    """Augmentation included, which differs between the epochs of a sample."""
    samples = Fresh(TinyClips(6), Noise())
    before = torch.get_rng_state()
    found = []
    for workers in (0, 2):
        with closing(batches(samples, ROBOTS, 3, seed=1, workers=workers)) as stream:
            found.append(list(islice(stream, 4)))
    for one, two in zip(*found, strict=True):
        assert one.ids == two.ids
        assert torch.equal(one.inputs["present"], two.inputs["present"])
    epochs: dict[str, list[torch.Tensor]] = {}
    for batch in found[0]:
        for name, present in zip(batch.ids, batch.inputs["present"], strict=True):
            epochs.setdefault(name, []).append(present)
    assert all(len(seen) == 2 and not torch.equal(*seen) for seen in epochs.values())
    assert torch.equal(torch.get_rng_state(), before)


class Broken(TinyClips):
    def sample(self, i: int) -> ClipSample:
        if i == 5:
            raise BadInput("episode 0, frame 5 does not decode")
        return super().sample(i)


@pytest.mark.parametrize("workers", [0, 1])
def test_an_error_is_raised_where_its_batch_is_due(workers: int) -> None:
    order = Order((10,), (1.0,), 0)
    due = stream(order, 10).index(5) // 2
    with closing(
        batches(Fresh(Broken(10), TinyEncoder()), ROBOTS, 2, seed=0, prefetch=4, workers=workers)
    ) as found:
        assert len(list(islice(found, due))) == due
        with pytest.raises(BadInput, match=r"^episode 0, frame 5 does not decode$"):
            next(found)


class Counted:
    """Samples that count the batches that are made of them."""

    def __init__(self) -> None:
        self.reads, self.samples = 0, fresh(10)
        self.order, self.reader = self.samples.order, self.samples.reader

    def __len__(self) -> int:
        return len(self.samples)

    def finish(self, read: Any) -> Encoded:
        self.reads += 1
        return self.samples.finish(read)


def test_reading_ahead_is_bounded_and_closing_ends_the_thread() -> None:
    samples = Counted()
    before = threading.active_count()
    with closing(batches(samples, ROBOTS, 2, seed=0, prefetch=3)) as found:
        next(found)
        assert threading.active_count() == before + 1
    assert threading.active_count() == before
    assert 1 <= samples.reads <= 4


class Narrow(TinyClips):
    """Another robot: larger images, one action dimension, five actions at another rate, two numbers of proprio."""

    def sample(self, i: int) -> ClipSample:
        sample = super().sample(i)
        views = {name: view.repeat(1, 1, 2, 2, 1) for name, view in sample.clip.views.items()}
        clip = replace(sample.clip, views=views, proprio=sample.clip.proprio[:, :2], embodiments=("hand",))
        return replace(
            sample,
            clip=clip,
            actions=sample.actions[:, :5, :1],
            action_is_pad=sample.action_is_pad[:, :5],
            valid=sample.valid[:, :5],
            hz=5.0,
            id=f"narrow/{sample.id}",
        )


class Resizing(TinyEncoder):
    """Brings larger images to the size of the others."""

    @staticmethod
    def prepare(views: Tree, generator: torch.Generator) -> Tree:
        return {name: view[:, :, ::2, ::2] for name, view in views.items()}


def test_a_mixture_fills_up_to_the_widest_robot() -> None:
    wide, narrow = fresh(30), Fresh(Narrow(10), Resizing())
    mixture = Mixture((wide, narrow), (1.0, 2.0), horizon=8, action_dim=2, proprio_dim=4)
    assert len(mixture) == 40
    found = read_all(mixture, [31, 2, 30, 0])
    alone, other = read_all(narrow, [1, 0]), read_all(wide, [2, 0])
    assert found.ids == (alone.ids[0], other.ids[0], alone.ids[1], other.ids[1])
    assert found.embodiments == ("hand", *other.embodiments[:1], "hand", *other.embodiments[1:])
    assert found.hz.tolist() == [5.0, 10.0, 5.0, 10.0]
    assert torch.equal(found.actions[[0, 2], :5, :1], alone.actions) and torch.equal(
        found.actions[[1, 3]], other.actions
    )
    assert torch.equal(found.valid[[0, 2], :5, :1], alone.valid) and torch.equal(
        found.valid[[1, 3]], other.valid
    )
    assert not found.valid[[0, 2], 5:].any() and not found.valid[[0, 2], :, 1:].any()
    assert torch.equal(found.inputs["proprio"][[0, 2], :2], alone.inputs["proprio"])
    assert torch.equal(found.inputs["present"][[1, 3]], other.inputs["present"])
    with closing(batches(mixture, ROBOTS, 4, seed=0, workers=1)) as stream:
        assert next(stream).actions.shape == (4, 8, 2)
