"""Images as LaWAM's networks take them, in training and when acting (LaWAM spec 1.8, 2.1)."""

from __future__ import annotations

import torch.nn.functional as F
from jaxtyping import UInt8
from torch import Tensor


def squeezed(
    images: UInt8[Tensor, "n _ _ 3"], height: int, width: int
) -> UInt8[Tensor, "n {height} {width} 3"]:
    """The middle of images wider than 4:3, then all of it in the given shape (bilinear, with antialiasing)."""
    rows, columns = images.shape[1:3]
    kept = min(columns, 4 * rows // 3)
    left = (columns - kept) // 2
    middle = images[:, :, left : left + kept]
    if middle.shape[1:3] == (height, width):
        return middle  # the antialiased resize to the same size is the identity
    pixels = F.interpolate(
        middle.permute(0, 3, 1, 2).float(), (height, width), mode="bilinear", antialias=True
    )
    return pixels.round().clamp(0, 255).byte().permute(0, 2, 3, 1).contiguous()
