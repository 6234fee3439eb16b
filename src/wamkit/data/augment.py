"""Training images changed by chance: a random crop, in the size of the whole, and colours.

Both act on the frames of one camera, all of which are changed alike, so that a clip stays a clip. What is drawn follows
from the sample's own generator (data/order.py): the same in any worker and after resuming. Neither acting nor a latent
cache has any of it.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Float, UInt8
from torch import Tensor

from wamkit.tree import Tree
from wamkit.types import Augmentation

Image = Float[Tensor, "t 3 h w"]
Pair = tuple[float, float]
LUMA = (0.2989, 0.587, 0.114)  # of red, green and blue in grey (ITU-R 601)
TRIES = 10  # crops of a drawn shape that do not fit into the image are drawn again so often


@dataclass(frozen=True)
class Augment:
    """The views of one sample, each with a crop and colours of its own; pickled to worker processes."""

    augmentation: Augmentation

    def __call__(self, views: Tree, generator: torch.Generator) -> Tree:
        """Views [1 t h w 3] by camera name, in their order; unchanged where nothing is drawn."""
        if not self.augmentation.draws:
            return views
        return {name: self._changed(frames[0], generator)[None] for name, frames in views.items()}

    def _changed(
        self, frames: UInt8[Tensor, "t h w 3"], generator: torch.Generator
    ) -> UInt8[Tensor, "t h w 3"]:
        own = self.augmentation
        image = as_image(frames)
        height, width = image.shape[2:]
        if own.crop < 1:
            image = random_crop(image, (own.crop, 1.0), (width / height, width / height), generator)
        return as_frames(jittered(image, (own.brightness, own.contrast, own.saturation, own.hue), generator))


def as_image(frames: UInt8[Tensor, "t h w 3"]) -> Image:
    """Frames as floats in [0, 1]."""
    return frames.permute(0, 3, 1, 2) / 255


def as_frames(image: Float[Tensor, "*n 3 h w"]) -> UInt8[Tensor, "*n h w 3"]:
    """The inverse, rounded."""
    return (image * 255).round().byte().movedim(-3, -1).contiguous()


def random_crop(image: Image, area: Pair, ratio: Pair, generator: torch.Generator) -> Image:
    """A random part of the image, in the image's size; all of it where no drawn shape fits.

    area: share of the image, smallest and largest. ratio: the part's width to its height, smallest and largest.
    """
    height, width = image.shape[2:]
    for _ in range(TRIES):
        pixels = height * width * _uniform(area, generator)
        shape = math.exp(_uniform((math.log(ratio[0]), math.log(ratio[1])), generator))
        rows, columns = round(math.sqrt(pixels / shape)), round(math.sqrt(pixels * shape))
        if 0 < rows <= height and 0 < columns <= width:
            top = int(torch.randint(height - rows + 1, (), generator=generator))
            left = int(torch.randint(width - columns + 1, (), generator=generator))
            part = image[:, :, top : top + rows, left : left + columns]
            return F.interpolate(part, (height, width), mode="bilinear", antialias=True)
    return image


def jittered(image: Image, most: tuple[float, float, float, float], generator: torch.Generator) -> Image:
    """Its colours changed, in a random order of changes. most: of each change, in the order of COLOURS."""
    for number in torch.randperm(len(COLOURS), generator=generator).tolist():
        change = _uniform((-most[number], most[number]), generator)
        image = COLOURS[number](image, change).clamp(0, 1)
    return image


def brightness(image: Image, change: float) -> Image:
    """Lighter by a share `change` of it."""
    return image * (1 + change)


def contrast(image: Image, change: float) -> Image:
    """Further from the mean grey of each frame."""
    return _away(image, _grey(image).mean(dim=(1, 2, 3), keepdim=True), change)


def saturation(image: Image, change: float) -> Image:
    """Further from grey."""
    return _away(image, _grey(image), change)


def hue(image: Image, change: float) -> Image:
    """Turned on the colour circle by `change` turns, with value and saturation as they are."""
    red, green, blue = image.unbind(1)
    value, least = image.amax(1), image.amin(1)
    chroma = value - least
    divisor = chroma.clamp(min=1e-6)
    sixth = torch.where(
        value == red,
        (green - blue) / divisor,
        torch.where(value == green, 2 + (blue - red) / divisor, 4 + (red - green) / divisor),
    )
    # the formula of HSV to RGB without cases: a channel falls below the value as far as its place is from the hue
    places = torch.tensor([5.0, 3.0, 1.0], device=image.device)[None, :, None, None]
    k = (places + (sixth + 6 * change)[:, None]) % 6
    return value[:, None] - chroma[:, None] * torch.minimum(k, 4 - k).clamp(0, 1)


COLOURS: tuple[Callable[[Tensor, float], Tensor], ...] = (brightness, contrast, saturation, hue)
"""In the order of what changes most: brightness, contrast, saturation, hue."""


def _away(image: Tensor, origin: Tensor, change: float) -> Tensor:
    return origin + (image - origin) * (1 + change)


def _grey(image: Image) -> Float[Tensor, "t 1 h w"]:
    weights = torch.tensor(LUMA, device=image.device)[None, :, None, None]
    return (image * weights).sum(1, keepdim=True)


def _uniform(bounds: tuple[float, float], generator: torch.Generator) -> float:
    low, high = bounds
    return low + (high - low) * float(torch.rand((), generator=generator))
