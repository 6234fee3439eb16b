"""Feature maps as images (LaWAM spec 6.6): how alike patches are to an anchor, and their principal components.

Similarities below LOW have no colour difference any more; the map is blended over the image that it is about.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import matplotlib as mpl
import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from wamkit.analysis.maps import Components, alike_to

LOW, HIGH, BLEND = 0.4, 1.0, 0.5
COLOURS = "jet"
HEIGHT = 192
"""Pixels images are enlarged to."""


@dataclass(frozen=True)
class Feature:
    """One way to know an image's features [s d]. note: a number about it, in words. image: uint8 [h, w, 3].

    recorded: the features are those of the image; else they are a guess of them, and maps of it lie over the image.
    """

    name: str
    features: Float[Tensor, "s d"]
    image: np.ndarray
    note: str
    recorded: bool


@dataclass(frozen=True)
class Maps:
    """A column for each name. photos: uint8, of the recorded ones, which come first; alike: images under their
    similarity to the anchor; components: patches in the colours of their principal components. notes: below."""

    title: str
    detail: str
    names: list[str]
    photos: list[np.ndarray]
    alike: list[np.ndarray]
    components: list[np.ndarray]
    notes: list[str]


def maps(
    title: str,
    detail: str,
    anchor: Float[Tensor, " d"],
    components: Components,
    shown: Sequence[Feature],
    grid: tuple[int, int],
) -> Maps:
    """Draw them. anchor: the features of a patch."""
    stacked = torch.stack([one.features for one in shown])
    alike = alike_to(anchor, stacked).unflatten(-1, grid)
    colours = components.colours(stacked).unflatten(1, grid)
    photos = [enlarged(one.image) for one in shown]
    return Maps(
        title,
        detail,
        [one.name for one in shown],
        [photo for photo, one in zip(photos, shown, strict=True) if one.recorded],
        [heat(photo, own) for photo, own in zip(photos, alike, strict=True)],
        [painted(own, photo.shape[:2]) for photo, own in zip(photos, colours, strict=True)],
        [one.note for one in shown],
    )


def enlarged(image: np.ndarray) -> np.ndarray:
    """uint8 [h, w, 3] at HEIGHT pixels."""
    size = HEIGHT, round(HEIGHT * image.shape[1] / image.shape[0])
    pixels = torch.from_numpy(image.copy()).permute(2, 0, 1)[None].float()
    large = F.interpolate(pixels, size, mode="bicubic", align_corners=False).round().clamp(0, 255)
    return large[0].byte().permute(1, 2, 0).numpy()


def heat(
    image: np.ndarray, alike: Float[Tensor, "rows columns"], low: float = LOW, high: float = HIGH
) -> np.ndarray:
    """The image, uint8 [h, w, 3], under the map: `low` and below is one end of the colours, `high` the other."""
    smooth = F.interpolate(alike[None, None].float().cpu(), image.shape[:2], mode="bilinear")[0, 0]
    colours = mpl.colormaps[COLOURS](((smooth - low) / (high - low)).clamp(0, 1).numpy())[..., :3]
    return (image * (1 - BLEND) + 255 * colours * BLEND).round().astype(np.uint8)


def painted(colours: Float[Tensor, "rows columns 3"], size: tuple[int, int]) -> np.ndarray:
    """Patches of these colours, uint8 [h, w, 3]."""
    large = F.interpolate(colours.permute(2, 0, 1)[None].float().cpu(), size, mode="nearest")[0]
    return (255 * large).round().byte().permute(1, 2, 0).numpy()


def scale() -> list[str]:
    """The colours of the maps from LOW to HIGH, in hex."""
    return [mpl.colors.to_hex(mpl.colormaps[COLOURS](place)) for place in np.linspace(0, 1, 9)]
