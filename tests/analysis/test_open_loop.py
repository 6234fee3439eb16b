"""Open-loop errors against numbers worked out by hand."""

from __future__ import annotations

import numpy as np
import pytest

from wamkit.analysis.open_loop import (
    MEAN,
    PREDICTED,
    PREVIOUS,
    Chunk,
    correlation,
    open_loop,
    step_errors,
)


def chunk(recorded, predicted, before, pad=0) -> Chunk:
    """Of two dimensions; the last `pad` steps are padding."""
    recorded, predicted = (np.array(rows, np.float32) for rows in (recorded, predicted))
    is_pad = np.arange(len(recorded)) >= len(recorded) - pad
    return Chunk("0:1", "push", recorded, is_pad, predicted, np.array([before], np.float32))


CHUNKS = [
    chunk([[1, 0], [2, 0], [3, 0]], [[1, 1], [2, 1], [5, 1]], before=[1, 0]),
    chunk([[0, 4], [9, 9], [9, 9]], [[1, 4], [0, 0], [0, 0]], before=[2, 4], pad=2),
]
ZERO = np.zeros(2)


def same(actions: np.ndarray) -> np.ndarray:
    return actions


def test_errors_by_step_leave_padding_out():
    errors = step_errors(CHUNKS, ZERO, same)
    assert errors.counts.tolist() == [2, 1, 1]
    assert errors.errors[PREDICTED].tolist() == [[0.5, 0.5], [0, 1], [2, 1]]
    assert errors.errors[PREVIOUS].tolist() == [[1, 0], [1, 0], [2, 0]]
    assert errors.errors[MEAN].tolist() == [[0.5, 2], [2, 0], [3, 0]]


def test_means_count_every_action_once():
    errors = step_errors(CHUNKS, ZERO, same)
    assert errors.by_dimension(PREDICTED).tolist() == [3 / 4, 3 / 4]
    assert errors.by_dimension(PREVIOUS).tolist() == [5 / 4, 0]
    assert errors.by_step(PREDICTED).tolist() == [0.5, 0.5, 1.5]
    assert errors.total(PREDICTED) == 0.75
    assert errors.beaten().tolist() == [True, False]


def test_the_better_baseline_is_the_measure():
    against = step_errors(CHUNKS, ZERO, same).against_baselines()
    assert against[:, 0].tolist() == [1, 0, 1] and np.isnan(against[:, 1]).all()


def test_a_step_that_is_padding_everywhere_has_no_number():
    errors = step_errors(CHUNKS[1:], ZERO, same)
    assert np.isnan(errors.errors[PREDICTED][1:]).all() and np.isnan(errors.against_baselines()[1:]).all()
    assert errors.by_dimension(PREDICTED).tolist() == [1, 0]


def test_errors_are_of_what_the_unit_makes_of_actions():
    """Not scaled afterwards: the unit may clamp."""
    errors = step_errors(CHUNKS[:1], ZERO, lambda actions: np.clip(10 * actions, -20, 20))
    assert errors.errors[PREDICTED].tolist() == [[0, 10], [0, 10], [0, 10]]


def test_the_summary_of_an_inspection():
    found = open_loop(CHUNKS, np.array([2.0, 1.0]))
    assert (
        found.samples == 2
        and found.error.tolist() == [0.75, 0.75]
        and found.unit_error.tolist() == [1.5, 0.75]
    )
    assert found.constant_error[0] == 1.0 and found.correlation[0] == pytest.approx(
        np.corrcoef([1, 2, 3, 0], [1, 2, 5, 1])[0, 1]
    )
    nothing = open_loop([], np.ones(2))
    assert nothing.samples == 0 and np.isnan(nothing.error).all()


def test_correlation_is_not_defined_for_what_stands_still():
    one, two = np.array([1.0, 2.0, 3.0]), np.array([2.0, 4.0, 6.0])
    assert correlation(one, two) == pytest.approx(1) and correlation(one, -two) == pytest.approx(-1)
    for other in (np.ones(3), np.array([1.0, np.nan, 2.0])):
        assert np.isnan(correlation(one, other))
