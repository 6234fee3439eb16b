"""Shapes written in annotations are checked while tests run, and only then."""

from __future__ import annotations

import subprocess
import sys

import jaxtyping
import pytest
import torch

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


def test_outside_the_suite_nothing_is_checked() -> None:
    result = subprocess.run(
        [sys.executable, "-c", WRONG], capture_output=True, text=True, check=True, timeout=SECONDS
    )
    assert result.stdout.startswith("torch.")
