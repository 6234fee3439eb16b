"""The CUDA kernels of nn/fused_ops.py, in Triton: one program per token or for a few pixels, with all their channels in
registers, float32 inside.

Imported only where a tensor lies on a CUDA device. Rows of x and y lie one behind the other; heads of `out` may lie
anywhere, with channels side by side.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from wamkit.nn.fused_ops import SMALLEST_LENGTH


def add_norm_(x: Tensor, y: Tensor, gate: Tensor, scale: Tensor, shift: Tensor, eps: float) -> Tensor:
    """See nn/fused_ops.py."""
    normed, width = torch.empty_like(x), x.shape[-1]
    grid, block = (x.numel() // width,), triton.next_power_of_2(width)
    _add_norm[grid](x, y, gate, scale, shift, normed, width, eps, BLOCK=block, num_warps=_warps(block))
    return normed


def place_heads_(out: Tensor, qkv: Tensor, norm: Tensor, floor: Tensor, rotary: Tensor) -> None:
    """See nn/fused_ops.py."""
    b, _, s, n, e = out.shape
    turns = torch.view_as_real(rotary)[:, 0, 0]  # s e/2 2
    block = triton.next_power_of_2(n * e)
    strides = (*out.stride()[:4], turns.stride(0))
    _place_heads[(b * s, 3)](
        out, qkv, norm, floor, turns, s, *strides, WIDTH=n * e, HEAD=e, BLOCK=block, num_warps=_warps(block)
    )


def normalize_(x: Tensor, floor: Tensor) -> None:
    """See nn/fused_ops.py. Rows of x may have gaps between them, all of one size."""
    rows = x.view(-1, x.shape[-1])
    block = triton.next_power_of_2(rows.shape[1])
    _normalize[(rows.shape[0],)](
        rows, floor, rows.shape[1], rows.stride(0), BLOCK=block, num_warps=_warps(block)
    )


def linear_gelu(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """See nn/fused_ops.py. The library's product, which ends with the tanh form of GELU on CUDA (only there)."""
    rows = torch._addmm_activation(bias, x.flatten(0, -2), weight.t(), use_gelu=True)
    return rows.unflatten(0, x.shape[:-1])


def unit_silu(x: Tensor, scale: Tensor) -> Tensor:
    """See nn/fused_ops.py."""
    x = x.contiguous()
    out, width = torch.empty_like(x), x.shape[-1]
    count, block = x.numel() // width, triton.next_power_of_2(width)
    rows = max(1, 2048 // block)  # of a program: pixels are many and narrow
    _unit_silu[(triton.cdiv(count, rows),)](
        x, scale, out, count, SMALLEST_LENGTH**2, WIDTH=width, BLOCK=block, ROWS=rows, num_warps=4
    )
    return out


def _warps(block: int) -> int:
    return max(1, min(8, block // 256))


@triton.jit
def _add_norm(x, y, gate, scale, shift, normed, width, eps, BLOCK: tl.constexpr):  # type: ignore[no-untyped-def]
    channel = tl.arange(0, BLOCK)
    inside = channel < width
    at = tl.program_id(0).to(tl.int64) * width + channel
    new = tl.load(y + at, inside, 0.0).to(tl.float32)
    total = tl.load(x + at, inside, 0.0).to(tl.float32)
    total += tl.load(gate + channel, inside, 0.0).to(tl.float32) * new
    rounded = total.to(x.dtype.element_ty)
    tl.store(x + at, rounded, inside)
    total = rounded.to(tl.float32)  # what the next sum begins with
    centred = tl.where(inside, total - tl.sum(total, 0) / width, 0.0)
    unit = centred / tl.sqrt(tl.sum(centred * centred, 0) / width + eps)
    factor = tl.load(scale + channel, inside, 0.0).to(tl.float32)
    offset = tl.load(shift + channel, inside, 0.0).to(tl.float32)
    tl.store(normed + at, (unit * factor + offset).to(normed.dtype.element_ty), inside)


@triton.jit
def _place_heads(  # type: ignore[no-untyped-def]
    out,
    qkv,
    norm,
    floor,
    turns,
    tokens,
    sb,
    sj,
    ss,
    sn,
    st,
    WIDTH: tl.constexpr,
    HEAD: tl.constexpr,
    BLOCK: tl.constexpr,
):
    row, which = tl.program_id(0), tl.program_id(1)  # token of a sample; q, k or v
    sample, token = row // tokens, row % tokens
    channel = tl.arange(0, BLOCK)
    inside = channel < WIDTH
    other = channel ^ 1  # the other one of its pair
    source = qkv + (row.to(tl.int64) * 3 + which) * WIDTH
    mine = tl.load(source + channel, inside, 0.0).to(tl.float32)
    partner = tl.load(source + other, inside, 0.0).to(tl.float32)
    if which < 2:
        least = tl.load(floor).to(tl.float32)
        length = tl.sqrt(tl.sum(mine * mine, 0) + least * least)
        weight = norm + which * WIDTH
        mine = mine / length * tl.load(weight + channel, inside, 0.0).to(tl.float32)
        partner = partner / length * tl.load(weight + other, inside, 0.0).to(tl.float32)
        turn = turns + token * st + (channel % HEAD) // 2 * 2
        cos, sin = tl.load(turn, inside, 0.0), tl.load(turn + 1, inside, 0.0)
        mine = mine * cos + tl.where(channel % 2 == 0, -partner, partner) * sin
    target = out + sample.to(tl.int64) * sb + which * sj + token * ss
    target += channel // HEAD * sn + channel % HEAD
    tl.store(target, mine.to(out.dtype.element_ty), inside)


@triton.jit
def _normalize(x, floor, width, stride, BLOCK: tl.constexpr):  # type: ignore[no-untyped-def]
    channel = tl.arange(0, BLOCK)
    inside = channel < width
    at = x + tl.program_id(0).to(tl.int64) * stride + channel
    row = tl.load(at, inside, 0.0).to(tl.float32)
    least = tl.load(floor).to(tl.float32)
    length = tl.sqrt(tl.sum(row * row, 0) + least * least)
    tl.store(at, (row / length).to(x.dtype.element_ty), inside)


@triton.jit
def _unit_silu(  # type: ignore[no-untyped-def]
    x, scale, out, count, least, WIDTH: tl.constexpr, BLOCK: tl.constexpr, ROWS: tl.constexpr
):
    row = tl.program_id(0).to(tl.int64) * ROWS + tl.arange(0, ROWS)[:, None]
    channel = tl.arange(0, BLOCK)[None]
    inside = (row < count) & (channel < WIDTH)
    at = row * WIDTH + channel
    mine = tl.load(x + at, inside, 0.0).to(tl.float32)
    length = tl.sqrt(tl.maximum(tl.sum(mine * mine, 1), least))[:, None]
    mine = mine / length * tl.load(scale + channel, channel < WIDTH, 0.0).to(tl.float32)
    tl.store(out + at, (mine * tl.sigmoid(mine)).to(out.dtype.element_ty), inside)
