"""Fused operations compute what the parts of a block compute, and are one operation where the device is not a CPU."""

from __future__ import annotations

import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from tests.nn.fused_inputs import WIDTHS, runs
from wamkit.bench.counting import Operations
from wamkit.nn import fused_ops
from wamkit.nn.rope import rotate

CPU, OPERATIONS = torch.device("cpu"), ("add_norm", "place_heads", "normalize", "linear_gelu", "unit_silu")


def plain_add_norm_(x: Tensor, y: Tensor, gate: Tensor, scale: Tensor, shift: Tensor, eps: float) -> Tensor:
    x.copy_(x + gate * y)
    return F.layer_norm(x, x.shape[-1:], eps=eps) * scale + shift


def plain_normalize_(x: Tensor, floor: Tensor) -> None:
    """The norm of wan/block.py: floor is sqrt(width eps)."""
    width = x.shape[-1]
    x.copy_(F.rms_norm(x, (width,), eps=float(floor) ** 2 / width) / width**0.5)


def plain_place_heads_(out: Tensor, qkv: Tensor, norm: Tensor, floor: Tensor, rotary: Tensor) -> None:
    n, e = out.shape[-2:]
    q, k, v = qkv.unflatten(-1, (3, -1)).unbind(2)
    plain_normalize_(q, floor)
    plain_normalize_(k, floor)
    q, k = (
        rotate((x * w).unflatten(-1, (n, e)).transpose(1, 2), torch.view_as_real(rotary[:, 0, 0]))
        for x, w in ((q, norm[0]), (k, norm[1]))
    )
    out.copy_(torch.stack([q.transpose(1, 2), k.transpose(1, 2), v.unflatten(-1, (n, e))], dim=1))


PLAIN = SimpleNamespace(
    add_norm_=plain_add_norm_,
    normalize_=plain_normalize_,
    place_heads_=plain_place_heads_,
    unit_silu=lambda x, scale: F.silu(F.normalize(x, dim=-1) * scale),
    linear_gelu=lambda x, weight, bias: F.gelu(x @ weight.T + bias, approximate="tanh"),
)


@pytest.mark.parametrize("name", OPERATIONS)
@pytest.mark.parametrize(("heads", "head"), WIDTHS)
@pytest.mark.parametrize("ops", [fused_ops, torch.ops.wamkit], ids=["called", "registered"])
def test_they_are_the_parts_of_a_block(name: str, heads: int, head: int, ops: object) -> None:
    run = runs(heads, head, torch.float32, CPU)[name]
    for mine, plain in zip(run(ops), run(PLAIN), strict=True):
        assert (mine - plain).abs().max() <= 1e-5 * plain.abs().max()


@pytest.mark.parametrize("name", OPERATIONS)
def test_each_is_one_operation(name: str) -> None:
    run = runs(2, 20, torch.bfloat16, torch.device("meta"))[name]
    with torch.inference_mode(), Operations() as counted:
        run(fused_ops)
    made = {"clone.default", "zeros.default", "zero_.default", "new_zeros.default"}
    assert sum(count for each, count in counted.counts.items() if each not in made) == 1


KERNELS = """
import torch
from tests.nn.fused_inputs import WIDTHS, runs
from wamkit.nn import fused_kernels, fused_ops
for dtype, tolerance in ((torch.float32, 1e-6), (torch.bfloat16, 3 * 2**-8)):  # three roundings
    for heads, head in WIDTHS:
        for name, run in runs(heads, head, dtype, torch.device("cpu")).items():
            if name != "linear_gelu":  # a library's, and another function on the processor
                for mine, composed in zip(run(fused_kernels), run(fused_ops), strict=True):
                    worst = (mine - composed).abs().max() / composed.abs().max()
                    assert worst <= tolerance, (name, dtype, heads, head, worst)
"""


@pytest.mark.skipif(find_spec("triton") is None, reason="needs triton")
def test_the_cuda_kernels_compute_the_same() -> None:
    """In Triton's interpreter, which needs no device."""
    root = Path(__file__).parents[2]
    environment = os.environ | {"TRITON_INTERPRET": "1"}
    subprocess.run([sys.executable, "-c", KERNELS], cwd=root, env=environment, check=True)
