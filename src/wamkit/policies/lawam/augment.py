"""What stage 1 sees of a sample: a pair of frames as it is, or two augmented versions of it (LaWAM spec 1.8).

One version goes to the inverse-dynamics encoder, the other to the world model and its target, so that a latent action
cannot carry the image. Both frames of a version are cropped and coloured alike. The released code draws once for a
whole batch; here every sample has draws of its own.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import ClassVar, Literal

import torch
import torch.nn.functional as F
from jaxtyping import Float, UInt8
from torch import Tensor

from wamkit.bounds import DECAY, Bound, check
from wamkit.policies.lawam.images import squeezed
from wamkit.tree import Tree
from wamkit.types import DataSpec

Image = Float[Tensor, "t 3 h w"]
LUMA = (0.2989, 0.587, 0.114)  # of red, green and blue in grey (ITU-R 601)
TRIES = 10  # crops of a drawn shape that do not fit into the image are drawn again so often


@dataclass(frozen=True)
class NoAugmentation:
    """The first camera as it is, once; its features can be cached."""

    kind: Literal["none"] = "none"
    versions: ClassVar[int] = 1
    draws: ClassVar[bool] = False

    def __call__(
        self, cameras: Sequence[UInt8[Tensor, "t _ _ 3"]], height: int, width: int, generator: torch.Generator
    ) -> UInt8[Tensor, "v t h w 3"]:
        return squeezed(cameras[0], height, width)[None]


@dataclass(frozen=True)
class TwoViews:
    """Two versions of a random camera's pair. Defaults are the published values.

    area: of the crop, as a share of the image, smallest and largest. ratio: its width to its height.
    brightness, contrast, saturation: largest relative change. hue: largest change, in turns.
    """

    area: tuple[float, float] = (0.8, 1.0)
    ratio: tuple[float, float] = (1.0, 1.3)
    brightness: float = 0.2
    contrast: float = 0.2
    saturation: float = 0.25
    hue: float = 0.04
    kind: Literal["two_views"] = "two_views"
    versions: ClassVar[int] = 2
    draws: ClassVar[bool] = True

    def __post_init__(self) -> None:
        ascending = Bound(
            "two numbers above 0, ascending",
            lambda pair: pair[0] > 0 and all(a <= b for a, b in pairwise(pair)),
        )
        bounds = dict.fromkeys(("brightness", "contrast", "saturation", "hue"), DECAY)
        check("policy.augmentation", self, {"area": ascending, "ratio": ascending} | bounds)

    def __call__(
        self, cameras: Sequence[UInt8[Tensor, "t _ _ 3"]], height: int, width: int, generator: torch.Generator
    ) -> UInt8[Tensor, "v t h w 3"]:
        place = int(torch.randint(len(cameras), (), generator=generator))
        pair = squeezed(cameras[place], height, width).permute(0, 3, 1, 2) / 255
        versions = [self._jittered(self._cropped(pair, generator), generator) for _ in range(self.versions)]
        return (torch.stack(versions) * 255).round().byte().permute(0, 1, 3, 4, 2).contiguous()

    def _cropped(self, pair: Image, generator: torch.Generator) -> Image:
        """A random part of the pair, in the pair's size; all of it where no drawn shape fits."""
        height, width = pair.shape[2:]
        for _ in range(TRIES):
            area = height * width * _uniform(self.area, generator)
            ratio = math.exp(_uniform((math.log(self.ratio[0]), math.log(self.ratio[1])), generator))
            rows, columns = round(math.sqrt(area / ratio)), round(math.sqrt(area * ratio))
            if 0 < rows <= height and 0 < columns <= width:
                top = int(torch.randint(height - rows + 1, (), generator=generator))
                left = int(torch.randint(width - columns + 1, (), generator=generator))
                part = pair[:, :, top : top + rows, left : left + columns]
                return F.interpolate(part, (height, width), mode="bilinear", antialias=True)
        return pair

    def _jittered(self, pair: Image, generator: torch.Generator) -> Image:
        """Its colours changed, in a random order of changes."""
        most = (self.brightness, self.contrast, self.saturation, self.hue)
        for number in torch.randperm(len(COLOURS), generator=generator).tolist():
            change = _uniform((-most[number], most[number]), generator)
            pair = COLOURS[number](pair, change).clamp(0, 1)
        return pair


Augmentation = NoAugmentation | TwoViews


@dataclass(frozen=True)
class Prepare:
    """The views of one sample -> "clips" [1 v t h w 3], as the encoder takes them; pickled to worker processes."""

    augmentation: Augmentation
    data: DataSpec

    def __call__(self, views: Tree, generator: torch.Generator) -> Tree:
        cameras = [views[name][0] for name in self.data.views]
        size = self.data.view_height, self.data.view_width
        return {"clips": self.augmentation(cameras, *size, generator)[None]}


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
"""In the order of TwoViews' fields."""


def _away(image: Tensor, origin: Tensor, change: float) -> Tensor:
    return origin + (image - origin) * (1 + change)


def _grey(image: Image) -> Float[Tensor, "t 1 h w"]:
    weights = torch.tensor(LUMA, device=image.device)[None, :, None, None]
    return (image * weights).sum(1, keepdim=True)


def _uniform(bounds: tuple[float, float], generator: torch.Generator) -> float:
    low, high = bounds
    return low + (high - low) * float(torch.rand((), generator=generator))
