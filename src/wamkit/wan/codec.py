"""The weight-free video codec of the small presets: an orthonormal block transform in place of a video VAE.

Same interface and geometry as the Wan2.1 VAE: 8x in space, 4x in time, causal. Frame 0 is transformed alone; of
every later group of four frames, what changed since frame 0 (as decoded) is transformed together, as video codecs
do. Colours are rotated to one luma and two chroma axes, each 8x8 block (four frames deep for groups) goes through a
cosine transform, and the coefficients of a row of `KEPT` are kept and scaled. The kept basis is orthonormal, so
decoding with its transpose is the least-squares inverse. A still scene has future latents of zero.

    coarse  27 of 192 numbers for frame 0 (14 %), 27 of 768 for a group (3.5 %). A token (2x2 latent pixels, 108
            numbers) fits the width of the small transformer, which has to carry its noise through
    whole   all of frame 0 and 192 of a group (25 %): small things stay, such as the ball that says where to reach.
            For a transformer that predicts clean latents, which carries no noise

PSNR on Meta-World views (64x64, frames 0.1 s apart): see docs/numerics.md, measured by tests/wan/test_codec.py.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Literal

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from wamkit.nn.tables import Tables
from wamkit.wan.codec_constants import FUTURE_STD, PRESENT_MEAN, PRESENT_STD

BLOCK = 8
GROUP = 4


Coefficient = tuple[int, int, int, int]
"""time, colour axis, row, column; each a frequency but for the colour."""
Keeps = Literal["coarse", "whole"]


def _triangle(time: int, colour: int, order: int) -> list[Coefficient]:
    """Coefficients of one colour axis with row + column < order."""
    return [(time, colour, row, total - row) for total in range(order) for row in range(total + 1)]


PRESENT = [c for colour, order in ((0, 6), (1, 2), (2, 2)) for c in _triangle(0, colour, order)]
FUTURE = [
    c
    for time, orders in enumerate(((4, 2, 2), (2, 1, 1), (2, 1, 1), (1, 0, 0)))
    for colour, order in enumerate(orders)
    for c in _triangle(time, colour, order)
]


def _cosines(size: int) -> Float[Tensor, "size size"]:
    """Orthonormal DCT-II; row = frequency."""
    grid = torch.arange(size, dtype=torch.float64)
    rows = torch.cos(math.pi * grid[:, None] * (2 * grid[None] + 1) / (2 * size)) * math.sqrt(2 / size)
    rows[0] /= math.sqrt(2)
    return rows


def block_basis(coefficients: Sequence[Coefficient], frames: int) -> Float[Tensor, "c n"]:
    """Rows of the orthonormal transform for blocks flattened as (colour, frame, row, column), one per coefficient.

    Blocks are BLOCK x BLOCK pixels and `frames` deep.
    """
    s3, s2, s6 = math.sqrt(3), math.sqrt(2), math.sqrt(6)
    colours = torch.tensor(
        [[1 / s3, 1 / s3, 1 / s3], [1 / s2, 0, -1 / s2], [-1 / s6, 2 / s6, -1 / s6]], dtype=torch.float64
    )
    space, time = _cosines(BLOCK), _cosines(frames)
    rows = [
        torch.einsum("c,t,h,w->cthw", colours[colour], time[t], space[row], space[column]).flatten()
        for t, colour, row, column in coefficients
    ]
    return torch.stack(rows).float()


COLOUR_SPREAD = (1.0, 0.6, 0.35)
MEAN_SPREAD, SLOPE = 3.0, 1.1
"""Deviation of a coefficient of one frame: that of its colour axis, times that of a block's mean or SLOPE / frequency.

Natural images have such spectra; the numbers fit PRESENT_STD (wan/codec_constants.py).
"""
CHANGE_SPREAD = (1.4, 0.9, 0.56, 0.35)
"""Deviation of a group's coefficients as multiples of a frame's, by frequency in time; fits FUTURE_STD."""
LEAST_SPREAD = 0.5
"""Of a group's coefficients weaker ones are scaled as if they had this deviation: an error in what nobody sees is not
to count as much as one in what moves."""


def spread(colour: int, frequency: int) -> float:
    """See COLOUR_SPREAD. frequency: row + column."""
    return COLOUR_SPREAD[colour] * (SLOPE / frequency if frequency else MEAN_SPREAD)


def rank(coefficient: Coefficient) -> tuple[int, ...]:
    """Low frequencies first; those of chroma four later, since they are weak."""
    time, colour, row, column = coefficient
    return (row + column + 2 * time + 4 * (colour > 0), time, colour, row)


def lowest(count: int, frames: int) -> tuple[Coefficient, ...]:
    """So many of the coefficients of blocks `frames` deep, by rank."""
    every = product(range(frames), range(3), range(BLOCK), range(BLOCK))
    return tuple(sorted(every, key=rank)[:count])


@dataclass(frozen=True)
class Kept:
    """Coefficients of frame 0 and of a group, as many of one as of the other.

    present_mean, present_std, future_std: mean and deviation of each, what latents are scaled by.
    """

    present: Sequence[Coefficient]
    future: Sequence[Coefficient]
    present_mean: tuple[float, ...]
    present_std: tuple[float, ...]
    future_std: tuple[float, ...]


def _whole() -> Kept:
    present, future = lowest(3 * BLOCK**2, 1), lowest(3 * BLOCK**2, GROUP)
    means = dict(zip(PRESENT, PRESENT_MEAN, strict=True))
    changes = (CHANGE_SPREAD[time] * spread(colour, y + x) for time, colour, y, x in future)
    return Kept(
        present,
        future,
        tuple(means.get(each, 0.0) for each in present),
        tuple(spread(colour, y + x) for _, colour, y, x in present),
        tuple(max(change, LEAST_SPREAD) for change in changes),
    )


KEPT: Mapping[Keeps, Kept] = {
    "coarse": Kept(PRESENT, FUTURE, PRESENT_MEAN, PRESENT_STD, FUTURE_STD),
    "whole": _whole(),
}


class BlockCodec(Tables):
    """video [b, 3, 1 + 4 g, H, W] in [-1, 1] <-> latents [b, channels, 1 + g, H / 8, W / 8], about unit variance.

    keeps: a row of KEPT; channels: how many coefficients that has.
    """

    spatial = BLOCK
    temporal = GROUP
    present_basis: Tensor
    future_basis: Tensor
    present_mean: Tensor
    present_std: Tensor
    future_std: Tensor

    def __init__(self, keeps: Keeps = "coarse") -> None:
        kept = KEPT[keeps]
        with torch.device("cpu"):
            super().__init__(
                present_basis=block_basis(kept.present, 1),
                future_basis=block_basis(kept.future, GROUP),
                present_mean=torch.tensor(kept.present_mean),
                present_std=torch.tensor(kept.present_std),
                future_std=torch.tensor(kept.future_std),
            )
        self.kept, self.channels = kept, len(kept.present)

    @property
    def fingerprint(self) -> str:
        """Names this transform, its kept coefficients and its constants."""
        digest = hashlib.sha256(repr(tuple(vars(self.kept).values())).encode())
        return f"block-cosine-{digest.hexdigest()[:12]}"

    def encode(self, video: Float[Tensor, "b 3 t H W"]) -> Float[Tensor, "b c f h w"]:
        """Latents; the first depends on the first frame only, each later one on it and its own four frames."""
        present = (
            self._analyse(video[:, :, :1], self.present_basis, 1) - _column(self.present_mean)
        ) / _column(self.present_std)
        change = video[:, :, 1:] - self._first_frame(present)
        future = self._analyse(change, self.future_basis, GROUP) / _column(self.future_std)
        return torch.cat([present, future], dim=2)

    def still(self) -> StillBlocks:
        """`encode` of single frames."""
        return StillBlocks(self)

    def decode(self, latents: Float[Tensor, "b c f h w"]) -> Float[Tensor, "b 3 t H W"]:
        """Pixels, not clamped."""
        first = self._first_frame(latents[:, :, :1])
        change = self._synthesise(latents[:, :, 1:] * _column(self.future_std), self.future_basis, GROUP)
        return torch.cat([first, first + change], dim=2)

    def _first_frame(self, present: Float[Tensor, "b c 1 h w"]) -> Float[Tensor, "b 3 1 H W"]:
        return self._synthesise(
            present * _column(self.present_std) + _column(self.present_mean), self.present_basis, 1
        )

    def _analyse(self, video: Tensor, basis: Tensor, frames: int) -> Tensor:
        b, _, t, height, width = video.shape
        blocks = video.reshape(b, 3, t // frames, frames, height // BLOCK, BLOCK, width // BLOCK, BLOCK)
        blocks = blocks.permute(0, 2, 4, 6, 1, 3, 5, 7).flatten(4)  # b g h w (colour frame row column)
        return (blocks @ basis.T.to(blocks.dtype)).permute(0, 4, 1, 2, 3)

    def _synthesise(self, latents: Tensor, basis: Tensor, frames: int) -> Tensor:
        blocks = latents.permute(0, 2, 3, 4, 1) @ basis.to(latents.dtype)  # b g h w n
        blocks = blocks.unflatten(-1, (3, frames, BLOCK, BLOCK)).permute(0, 4, 1, 5, 2, 6, 3, 7)
        return blocks.flatten(6, 7).flatten(4, 5).flatten(2, 3)


class StillBlocks(Tables):
    """The transform of single frames [b 3 H W] -> [b c H/8 W/8], and its normalisation: one convolution."""

    weight: Tensor
    bias: Tensor

    def __init__(self, codec: BlockCodec) -> None:
        basis = codec.present_basis.unflatten(1, (3, BLOCK, BLOCK)) / _column(codec.present_std)
        weight = basis.contiguous(memory_format=torch.channels_last)
        super().__init__(weight=weight, bias=-codec.present_mean / codec.present_std)

    def forward(self, frames: Float[Tensor, "b 3 H W"]) -> Float[Tensor, "b c h w"]:
        """See above."""
        return F.conv2d(frames, self.weight, self.bias, stride=BLOCK)


def _column(x: Float[Tensor, " c"]) -> Float[Tensor, "c 1 1 1"]:
    return x[:, None, None, None]
