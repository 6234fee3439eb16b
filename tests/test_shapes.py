"""Shapes written in annotations are checked while tests run, and only then."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator

import jaxtyping
import pytest
import torch
from jaxtyping import Float
from torch import Tensor

from tests import shapes
from tests.until import SECONDS
from wamkit.flow import interpolate
from wamkit.types import Batch

WRONG = """
import torch
from wamkit.flow import interpolate
print(interpolate(torch.zeros(2, 3), torch.zeros(2, 3), torch.zeros(1))[0].dtype)
"""


def test_a_function_refuses_arguments_of_different_batch_size() -> None:
    with pytest.raises(jaxtyping.TypeCheckError, match="interpolate"):
        interpolate(torch.zeros(2, 3), torch.zeros(2, 3), torch.zeros(1))


def test_a_dataclass_refuses_fields_that_do_not_fit_each_other() -> None:
    with pytest.raises(jaxtyping.TypeCheckError, match="Batch"):
        Batch(
            inputs={},
            actions=torch.zeros(2, 16, 4),
            valid=torch.ones(2, 15, 4, dtype=torch.bool),
            embodiment=torch.zeros(2, dtype=torch.int64),
            hz=torch.ones(2),
            ids=("0:0", "0:1"),
        )


checked = shapes.jaxtyped(typechecker=shapes.check)


@checked
def halved(values: Float[Tensor, " k"], by: float) -> Float[Tensor, " k"]:
    return values[::2] if by == 2 else values


@checked
def first(values: Float[Tensor, "n k"], count: int) -> Float[Tensor, "{count} k"]:
    return values[:count]


@checked
def rows(values: Float[Tensor, "n k"]) -> Iterator[Float[Tensor, " k"]]:
    yield from values


class Sized:
    @checked
    def joined(self, other: Sized, values: Float[Tensor, " k"]) -> tuple[Sized, Float[Tensor, " k"]]:
        return other, halved(torch.zeros(3), 1)


def test_a_result_has_the_sizes_that_its_arguments_had() -> None:
    assert halved(torch.zeros(4), 1).shape == (4,) and halved(torch.zeros(5), 3).shape == (5,)
    for _ in range(2):
        with pytest.raises(jaxtyping.TypeCheckError, match="halved"):
            halved(torch.zeros(4), 2)
    with pytest.raises(jaxtyping.TypeCheckError, match="halved"):
        halved(torch.zeros(4), "2")  # type: ignore[arg-type]


def test_sizes_may_be_computed_from_arguments() -> None:
    assert first(torch.zeros(3, 2), 2).shape == (2, 2)
    with pytest.raises(jaxtyping.TypeCheckError, match="first"):
        first(torch.zeros(3, 2), 4)


def test_letters_hold_for_one_call() -> None:
    sized = Sized()
    assert sized.joined(sized, torch.zeros(3))[0] is sized
    with pytest.raises(jaxtyping.TypeCheckError, match="joined"):
        sized.joined(sized, torch.zeros(2))
    with pytest.raises(jaxtyping.TypeCheckError, match="joined"):
        sized.joined("none", torch.zeros(3))  # type: ignore[arg-type]


def test_a_generator_is_checked_where_it_begins() -> None:
    assert len(list(rows(torch.zeros(3, 2)))) == 3
    with pytest.raises(jaxtyping.TypeCheckError, match="rows"):
        rows(torch.zeros(3))


def test_outside_the_suite_nothing_is_checked() -> None:
    result = subprocess.run(
        [sys.executable, "-c", WRONG], capture_output=True, text=True, check=True, timeout=SECONDS
    )
    assert result.stdout.startswith("torch.")
