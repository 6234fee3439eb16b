"""Rotary positions. Channel pairs (2j, 2j+1) of a head are complex numbers turned by position * 10000^(-2j/dim)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor


def axis_dims(head_dim: int) -> tuple[int, int, int]:
    """Channels of a head given to (frame, row, column): 44/42/42 for 128 (Wan)."""
    third = head_dim // 3
    if third % 2:
        raise ValueError(f"head_dim // 3 must be even for 3-D rotary positions, got head_dim {head_dim}")
    return head_dim - 2 * third, third, third


def angles(positions: Sequence[int], dim: int) -> Float[Tensor, "positions {dim}//2"]:
    """Rotation angle of each position and channel pair of one axis, float64."""
    frequency = 10000.0 ** (-torch.arange(0, dim, 2, dtype=torch.float64) / dim)
    return torch.outer(torch.tensor(positions, dtype=torch.float64), frequency)


def grid_table(
    frames: Sequence[int], rows: int, columns: int, head_dim: int, device: torch.device
) -> Float[Tensor, "s {head_dim}//2 2"]:
    """(cos, sin) for tokens of a grid in (frame, row, column) order; float32 on `device`.

    frames: the position in time of each frame; several frames may share one.
    """
    positions = (frames, range(rows), range(columns))
    axes = [angles(axis, dim) for axis, dim in zip(positions, axis_dims(head_dim), strict=True)]
    shape = (len(frames), rows, columns, -1)
    table = torch.cat(
        [
            axes[0][:, None, None].expand(shape),
            axes[1][None, :, None].expand(shape),
            axes[2][None, None, :].expand(shape),
        ],
        dim=-1,
    ).flatten(0, 2)
    return _cos_sin(table, device)


def line_table(steps: int, head_dim: int, device: torch.device) -> Float[Tensor, "{steps} {head_dim}//2 2"]:
    """(cos, sin) for a sequence of `steps` tokens: one axis over all channels."""
    return _cos_sin(angles(range(steps), head_dim), device)


def _cos_sin(table: Float[Tensor, "s half"], device: torch.device) -> Float[Tensor, "s half 2"]:
    return torch.stack([table.cos(), table.sin()], dim=-1).float().to(device)


def rotate(x: Float[Tensor, "b n s e"], table: Float[Tensor, "s e//2 2"]) -> Float[Tensor, "b n s e"]:
    """Turn every channel pair by its token's angle; computed in float32, returned in x's dtype."""
    cos, sin = table.unbind(-1)
    real, imaginary = x.float().unflatten(-1, (-1, 2)).unbind(-1)  # b n s e/2
    turned = torch.stack([real * cos - imaginary * sin, real * sin + imaginary * cos], dim=-1)
    return turned.flatten(-2).to(x.dtype)
