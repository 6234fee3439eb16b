"""What stage 1 sees of a sample: a pair of frames as it is, or two augmented versions of it (LaWAM spec 1.8).

One version goes to the inverse-dynamics encoder, the other to the world model and its target, so that a latent action
cannot carry the image. Both frames of a version are cropped and coloured alike. The released code draws once for a
whole batch; here every sample has draws of its own.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import ClassVar, Literal

import torch
from jaxtyping import UInt8
from torch import Tensor

from wamkit.bounds import DECAY, Bound, check
from wamkit.data.augment import as_frames, as_image, jittered, random_crop
from wamkit.policies.lawam.images import squeezed
from wamkit.tree import Tree
from wamkit.types import DataSpec


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
        pair = as_image(squeezed(cameras[place], height, width))
        most = (self.brightness, self.contrast, self.saturation, self.hue)
        versions = []
        for _ in range(self.versions):
            crop = random_crop(pair, self.area, self.ratio, generator)
            versions.append(jittered(crop, most, generator))
        return as_frames(torch.stack(versions))


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
