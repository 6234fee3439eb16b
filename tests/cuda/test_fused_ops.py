"""The CUDA kernels of nn/fused_ops.py compute what is composed of torch's operations."""

from __future__ import annotations

import pytest
import torch

from tests.nn.fused_inputs import WIDTHS, runs
from tests.nn.test_fused_ops import OPERATIONS, PLAIN
from wamkit.nn import fused_ops


@pytest.mark.parametrize("name", OPERATIONS)
@pytest.mark.parametrize(("heads", "head"), WIDTHS)
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-5), (torch.bfloat16, 2e-2)])
def test_kernels_agree(
    cuda: torch.device, name: str, heads: int, head: int, dtype: torch.dtype, tolerance: float
) -> None:
    run = runs(heads, head, dtype, cuda)[name]
    exact = runs(heads, head, dtype, torch.device("cpu"))[name]
    for mine, plain in zip(run(fused_ops), exact(PLAIN), strict=True):
        assert (mine.cpu() - plain).abs().max() <= tolerance * plain.abs().max()
