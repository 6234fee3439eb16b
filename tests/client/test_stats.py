"""Intervals and paired comparisons against scipy's and plain properties."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st
from wamkit_client.stats import paired, wilson
from wamkit_client.types import BadInput


@pytest.mark.parametrize(("successes", "trials"), [(9, 10), (20, 20), (0, 20), (54, 60), (1, 500)])
def test_wilson_agrees_with_scipy(successes: int, trials: int) -> None:
    from scipy.stats import binomtest  # a second, for which the other workers of the suite need not wait

    reference = binomtest(successes, trials).proportion_ci(method="wilson")
    assert wilson(successes, trials) == pytest.approx(tuple(reference), abs=1e-6)


@given(st.integers(0, 300), st.integers(0, 300))
def test_wilson_holds_the_rate_and_mirrors(successes: int, failures: int) -> None:
    trials = successes + failures
    low, high = wilson(successes, trials)
    assert 0 <= low < high <= 1
    if trials:
        assert low <= successes / trials <= high
        assert wilson(failures, trials) == pytest.approx((1 - high, 1 - low))


def test_impossible_counts_are_refused() -> None:
    with pytest.raises(BadInput, match="3 successes of 2 trials"):
        wilson(3, 2)


def test_paired_counts_and_exact_test() -> None:
    # 1 episode lost, 8 gained: exact McNemar p = 2 * (1 + 9) / 2**9
    first = {("task", seed): seed < 11 for seed in range(30)}
    second = {("task", seed): 0 < seed < 19 for seed in range(30)}
    result = paired(first, second)
    assert (result.trials, result.only_first, result.only_second) == (30, 1, 8)
    assert result.difference == pytest.approx(7 / 30)
    assert result.p_value == pytest.approx(2 * 10 / 512)
    from scipy.stats import binomtest

    assert result.p_value == pytest.approx(binomtest(1, 9).pvalue)
    loss, gain = 2 / 32, 9 / 32
    spread = 1.959964 * math.sqrt((gain + loss - (gain - loss) ** 2) / 32)
    assert result.interval == pytest.approx((gain - loss - spread, gain - loss + spread))


def test_paired_with_itself_says_nothing() -> None:
    same = {seed: seed % 2 == 0 for seed in range(10)}
    result = paired(same, same)
    assert result.difference == 0 and result.p_value == 1
    assert result.interval[0] < 0 < result.interval[1]


def test_paired_needs_the_same_episodes() -> None:
    with pytest.raises(BadInput, match="1 in common"):
        paired({1: True, 2: False}, {2: True, 3: True})
