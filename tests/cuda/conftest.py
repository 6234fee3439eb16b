"""Tests of what only a CUDA device can show. Without one they are skipped."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest
import torch

# Read by cuBLAS when it is first used; with it, `repeatable` gives the same bits on every run.
os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")


@pytest.fixture
def cuda() -> torch.device:
    """The device; float32 products are exact to float32, not rounded to TF32."""
    if not torch.cuda.is_available():
        pytest.skip("needs a CUDA device")
    torch.backends.cuda.matmul.allow_tf32 = False
    torch.backends.cudnn.allow_tf32 = False
    return torch.device("cuda")


@pytest.fixture
def repeatable() -> Iterator[None]:
    """Deterministic kernels."""
    torch.use_deterministic_algorithms(True)
    yield
    torch.use_deterministic_algorithms(False)
