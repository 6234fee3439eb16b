"""The warning of overfitting, on rows as runs leave them."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from wamkit.train.overfitting import Overfitting, news, overfitting
from wamkit.train.rows import Row

FALLING = [1.0, 0.8, 0.6, 0.5, 0.45, 0.4, 0.36, 0.33]


def training(losses: Sequence[float] = FALLING, every: int = 10) -> list[Row]:
    """Ten rows between two measurements, of the same loss."""
    return [
        {"step": 100 * place + every * (row + 1), "loss": loss}
        for place, loss in enumerate(losses)
        for row in range(100 // every)
    ]


def held_out(values: Sequence[float], measure: str = "action_error") -> list[Row]:
    return [{"step": 100 * (place + 1), "loss": 1.0} | {measure: value} for place, value in enumerate(values)]


def test_an_error_that_rises_while_the_training_loss_falls_is_told_with_numbers() -> None:
    found = overfitting(held_out([0.4, 0.2, 0.22, 0.23, 0.25]), training())
    assert found == Overfitting("action_error", 200, 0.2, 500, 0.25, 0.8, 0.45)
    text = str(found)
    assert "action error was 0.2000 at step 200 and is 0.2500 at step 500" in text
    assert "training loss fell from 0.8000 to 0.4500" in text and "--train.steps 200" in text


@pytest.mark.parametrize(
    ("values", "losses"),
    [
        ([], FALLING),
        ([0.2, 0.3, 0.4], FALLING),  # too few to tell
        ([0.5, 0.4, 0.3, 0.25, 0.2], FALLING),  # it learns
        ([0.4, 0.2, 0.208, 0.205, 0.209], FALLING),  # within the margin
        ([0.4, 0.2, 0.25, 0.205, 0.25], FALLING),  # not lasting
        ([0.4, 0.2, 0.22, 0.23, 0.25], [0.5] * 8),  # nothing is learnt
        ([0.4, 0.2, 0.22, 0.23, 0.25], [0.5, 0.5, 0.6, 0.7, 0.8]),  # it diverges, which is something else
    ],
)
def test_nothing_is_told_of_a_run_that_does_not(values: list[float], losses: list[float]) -> None:
    assert overfitting(held_out(values), training(losses)) is None
    assert news(held_out(values), training(losses)) == ""


def test_it_is_told_once() -> None:
    values = [0.4, 0.2, 0.22, 0.23, 0.25, 0.26, 0.19, 0.3, 0.3, 0.3]
    told = [bool(news(held_out(values[:count]), training([*FALLING, 0.3, 0.2]))) for count in range(11)]
    assert told == [False] * 5 + [True] + [False] * 5


def test_a_model_that_does_not_act_is_judged_by_its_loss() -> None:
    found = overfitting(held_out([0.4, 0.2, 0.22, 0.23, 0.25], "loss"), training())
    assert found is not None and found.measure == "loss" and "the loss was 0.2000 at step 200" in str(found)


def test_rows_of_training_may_be_rarer_than_measurements() -> None:
    rare = [{"step": 200.0, "loss": 0.8}, {"step": 400.0, "loss": 0.5}]
    found = overfitting(held_out([0.4, 0.2, 0.22, 0.23, 0.25]), rare)
    assert found is not None and (found.loss_then, found.loss_now) == (0.8, 0.5)
    assert overfitting(held_out([0.4, 0.2, 0.22, 0.23, 0.25]), []) is None
