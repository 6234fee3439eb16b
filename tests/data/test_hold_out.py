"""The share of the episodes that is held out: the released split, to the episode."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from wamkit_client.types import BadInput

from wamkit.data.hold_out import held_out_episodes, kept_episodes
from wamkit.recipes import recipe
from wamkit.recipes.robotwin import DATA


def test_nothing_is_held_out_unless_asked() -> None:
    spec = replace(DATA, held_out=0.0)
    assert kept_episodes(3, spec) == [0, 1, 2]


@pytest.mark.parametrize("count", [5, 200, 27_500])
def test_the_released_split(count: int) -> None:
    """The numbers 0..N-1 shuffled by numpy's default_rng(42), the first int(N * 0.99) kept in that order."""
    shuffled = np.arange(count)
    np.random.default_rng(42).shuffle(shuffled)
    kept = int(count * 0.99)
    assert kept_episodes(count, DATA) == shuffled[:kept].tolist() != sorted(shuffled[:kept])
    # the released reader of HDF5 recordings sorts what it kept
    assert kept_episodes(count, replace(DATA, whole_windows=True)) == sorted(shuffled[:kept])


@pytest.mark.parametrize("whole", [True, False])
def test_what_is_held_out_is_the_rest(whole: bool) -> None:
    for share, count in ((0.0, 4), (0.05, 2), (0.05, 19), (0.3, 10)):
        spec = replace(DATA, held_out=share, whole_windows=whole)
        out = held_out_episodes(count, spec)
        assert sorted(out + kept_episodes(count, spec)) == [*range(count)] and out == sorted(out)
        assert bool(out) == bool(share)


def test_published_runs_that_held_episodes_out() -> None:
    shares = {name: recipe(name).data.held_out for name in ("robotwin", "robotwin_fast_wam", "robotwin_ours")}
    assert shares == dict.fromkeys(shares, 0.01)
    assert recipe("real_robot").data.held_out == recipe("libero_10").data.held_out == 0


def test_refusals() -> None:
    with pytest.raises(BadInput, match=r"data.held_out: 0.01 of 1 episodes leaves none to train on"):
        kept_episodes(1, DATA)
    for wrong in (1.0, -0.1, float("nan")):
        with pytest.raises(BadInput, match=r"data.held_out: expected a number from 0 to below 1"):
            replace(DATA, held_out=wrong)
