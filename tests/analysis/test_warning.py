"""The threshold of a stated false-alarm rate, and how well scores tell episodes apart."""

from __future__ import annotations

import numpy as np
import pytest
from wamkit_client.types import BadInput

from wamkit.analysis.warning import auroc, auroc_interval, conformal_threshold, usual_errors


def test_the_threshold_is_a_conformal_quantile() -> None:
    scores = [float(number) for number in range(1, 20)]  # 19 of them
    assert conformal_threshold(scores, 0.05) == 19
    assert conformal_threshold(scores, 0.1) == 18
    assert conformal_threshold(scores[::-1], 0.5) == 10
    with pytest.raises(
        BadInput, match=r"a false-alarm rate of 0\.05 needs 19 episodes for the threshold, got 18"
    ):
        conformal_threshold(scores[:18], 0.05)


@pytest.mark.parametrize("rate", [0.05, 0.2])
def test_it_is_exceeded_as_often_as_stated(rate: float) -> None:
    rng = np.random.default_rng(0)
    draws = np.exp(rng.normal(size=(4000, 40)))
    alarms = [conformal_threshold(list(row[:-1]), rate) < row[-1] for row in draws]
    assert rate - 0.03 < np.mean(alarms) <= rate + 0.01


def test_usual_errors_have_a_floor() -> None:
    found = usual_errors([np.array([0.0, 1.0, 2.0]), np.array([0.0, 3.0, 6.0])])
    np.testing.assert_allclose(found, [0.2, 2.0, 4.0])


def test_auroc_by_hand() -> None:
    assert auroc([1, 2, 3], [4, 5]) == 1
    assert auroc([1, 2], [1, 2]) == 0.5
    assert auroc([1, 3], [2]) == 0.5
    assert auroc([2], [1, 3, 2]) == 0.5
    low, high = auroc_interval([1, 2, 3, 4, 5], [3, 4, 5, 6, 7])
    assert 0.4 < low < auroc([1, 2, 3, 4, 5], [3, 4, 5, 6, 7]) < high <= 1
    assert auroc_interval([1, 2], [3, 4]) == (1, 1)
