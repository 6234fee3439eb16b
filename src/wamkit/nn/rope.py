"""Rotary positions. Channel pairs (2j, 2j+1) of a head are complex numbers, rotated by position * 10000^(-2j/dim)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor
from wamkit_client.types import BadInput

from wamkit.nn.tables import Tables

POSITIONS = 1024  # per axis, as in the released networks


def axis_dims(head_dim: int) -> tuple[int, int, int]:
    """Channels of a head given to (frame, row, column): 44/42/42 for 128 (Wan)."""
    third = head_dim // 3
    if third % 2:
        raise ValueError(f"head_dim // 3 must be even for 3-D rotary positions, got head_dim {head_dim}")
    return head_dim - 2 * third, third, third


def cos_sin(dim: int) -> Float[Tensor, "positions {dim}//2 2"]:
    """(cos, sin) of the angle of each position and channel pair of one axis; float32, evaluated in float64."""
    pair = torch.arange(0, dim, 2, dtype=torch.float64, device="cpu")
    position = torch.arange(POSITIONS, dtype=torch.float64, device="cpu")
    angle = torch.outer(position, 10000.0 ** (-pair / dim))
    return torch.stack([angle.cos(), angle.sin()], dim=-1).float()


class GridRotary(Tables):
    """Rotations of tokens on a (frame, row, column) grid: three axes, each with its share of a head's channels."""

    frame: Tensor
    row: Tensor
    column: Tensor

    def __init__(self, head_dim: int) -> None:
        frame, row, column = map(cos_sin, axis_dims(head_dim))
        super().__init__(frame=frame, row=row, column=column)

    def forward(self, frames: Sequence[range], rows: int, columns: int) -> Float[Tensor, "s half 2"]:
        """(cos, sin) of every token of the grid, frame by frame.

        frames: positions in time, run by run; several runs may share some.
        """
        _expect_positions(max(rows, columns, *(run.stop for run in frames)))
        frame = torch.cat([self.frame[run.start : run.stop] for run in frames])
        row, column = self.row[:rows], self.column[:columns]
        grid = (len(frame), rows, columns, -1, 2)
        axes = (frame[:, None, None], row[None, :, None], column[None, None])
        return torch.cat([axis.expand(grid) for axis in axes], dim=3).flatten(0, 2)


class LineRotary(Tables):
    """Rotations of a sequence: one axis over all channels of a head."""

    step: Tensor

    def __init__(self, head_dim: int) -> None:
        super().__init__(step=cos_sin(head_dim))

    def forward(self, steps: int) -> Float[Tensor, "{steps} half 2"]:
        """(cos, sin) of tokens 0..steps-1."""
        _expect_positions(steps)
        return self.step[:steps]


def _expect_positions(count: int) -> None:
    if count > POSITIONS:
        raise BadInput(f"{count} positions along one axis: rotary tables have {POSITIONS}; shorten the input")


def rotate(x: Float[Tensor, "b n s e"], table: Float[Tensor, "s e//2 2"]) -> Float[Tensor, "b n s e"]:
    """Rotate every channel pair by its token's angle; computed in float32, returned in x's dtype."""
    turned = _turned_pairs if torch.compiler.is_compiling() else _turned_numbers
    return turned(x.float().unflatten(-1, (-1, 2)), table).flatten(-2).to(x.dtype)


def _turned_numbers(pairs: Float[Tensor, "b n s half 2"], by: Float[Tensor, "s half 2"]) -> Tensor:
    """One operation on complex numbers."""
    return torch.view_as_real(torch.view_as_complex(pairs) * torch.view_as_complex(by))


def _turned_pairs(pairs: Float[Tensor, "b n s half 2"], by: Float[Tensor, "s half 2"]) -> Tensor:
    """The same sums of products in six operations, of which torch.compile makes one; it knows no complex numbers."""
    (real, imaginary), (cos, sin) = pairs.unbind(-1), by.unbind(-1)
    return torch.stack([real * cos - imaginary * sin, real * sin + imaginary * cos], dim=-1)
