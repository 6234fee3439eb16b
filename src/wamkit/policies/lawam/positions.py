"""Fixed position codes of patches on a grid (LaWAM spec 1.4). Built once per network, on the CPU."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from itertools import accumulate
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

PositionLayout = Literal["overlapped", "concatenated"]

# layout -> the first channel of each axis' part, by the widths of the parts. The released weights need "overlapped":
# all parts begin at channel 0 and are added, so the code is symmetric in rows and columns and half its channels are 0.
FIRST_CHANNELS: Mapping[PositionLayout, Callable[[Sequence[int]], list[int]]] = {
    "overlapped": lambda widths: [0] * len(widths),
    "concatenated": lambda widths: list(accumulate(widths[:-1], initial=0)),
}


def sincos(width: int, n: int) -> Float[Tensor, "{n} {width}"]:
    """Row p: sin and cos of p * 10000^(-2i/width), i = 0 .. width/2 - 1, interleaved, sin first. width: even."""
    frequencies = torch.exp(torch.arange(0, width, 2, device="cpu").float() * (-math.log(1e4) / width))
    angles = torch.arange(n, device="cpu").float()[:, None] * frequencies
    return torch.stack([angles.sin(), angles.cos()], dim=-1).flatten(1)


def grid_code(sizes: Sequence[int], width: int, layout: PositionLayout) -> Float[Tensor, "*sizes {width}"]:
    """The code of every place of a grid: rows and columns, or frames, rows and columns.

    The first of three axes has half of the channels, rows and columns share the rest. width: a multiple of 8.
    """
    half, quarter = width // 2, width // 4
    widths = (half, half) if len(sizes) == 2 else (half, quarter, quarter)
    code = torch.zeros(*sizes, width, device="cpu")
    for axis, (size, part, first) in enumerate(
        zip(sizes, widths, FIRST_CHANNELS[layout](widths), strict=True)
    ):
        shape = [size if axis == other else 1 for other in range(len(sizes))]
        code[..., first : first + part] += sincos(part, size).view(*shape, part)
    return code
