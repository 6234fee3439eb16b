"""Images as the vision tower of Qwen3-VL takes them: the exact numbers of its processor, computed where images are.

Nothing is resized: a view has its size when it comes here (LaWAM spec 2.1).
"""

from __future__ import annotations

from jaxtyping import Float, UInt8
from torch import Tensor
from wamkit_client.types import BadInput

FRAMES = 2
"""Frames per patch; an image is repeated."""


def patches(images: UInt8[Tensor, "n H W 3"], patch: int, merge: int) -> Float[Tensor, "n s p"]:
    """Squares of patch x patch pixels, colours in [-1, 1], each flattened as (colour, frame, row, column).

    Their order is that of `in_cells`.
    """
    pixels = (images.float() / 255 - 0.5) / 0.5
    grid = pixels.unflatten(2, (-1, patch)).unflatten(1, (-1, patch)).permute(1, 3, 0, 5, 2, 4)
    ordered = in_cells(grid, merge).transpose(0, 1)  # n s colour row column
    return ordered[:, :, :, None].expand(-1, -1, -1, FRAMES, -1, -1).flatten(2)


def bytes_in_cells(images: UInt8[Tensor, "n H W 3"], patch: int, merge: int) -> UInt8[Tensor, "n s p"]:
    """The same squares as they are, of one frame, each flattened as (row, column, colour)."""
    cells = images.unflatten(2, (-1, merge, patch)).unflatten(1, (-1, merge, patch))  # n h a y w b x colour
    return cells.permute(0, 1, 4, 2, 5, 3, 6, 7).flatten(5).flatten(1, 4)


def on_bytes(
    weight: Float[Tensor, "d 3 h w"], mean: Tensor | float = 0.5, std: Tensor | float = 0.5
) -> tuple[Float[Tensor, "p d"], Float[Tensor, " d"]]:
    """What `bytes_in_cells` are multiplied with, and what is added, for `weight` on colours (p / 255 - mean) / std.

    mean, std: of each colour; by default colours are in [-1, 1]. In float64.
    """
    weight = weight.double() / std
    return (weight / 255).permute(2, 3, 1, 0).flatten(0, 2), -(weight * mean).sum(dim=(1, 2, 3))


def in_cells(grid: Tensor, merge: int) -> Tensor:
    """Patches [h w ...] in the tower's order [h*w ...]: cells of merge x merge row by row, and so within each."""
    cells = grid.unflatten(1, (-1, merge)).unflatten(0, (-1, merge))
    return cells.transpose(1, 2).flatten(0, 3)


def grid(height: int, width: int, side: int, what: str) -> tuple[int, int]:
    """Rows and columns of squares of `side` pixels. BadInput where they do not cover a view; what: `side` in words."""
    if height % side or width % side:
        raise BadInput(
            f"data.view_height, data.view_width: expected multiples of {what}, {side}, got {height} and {width}"
        )
    return height // side, width // side
