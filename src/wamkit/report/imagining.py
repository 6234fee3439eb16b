"""What pages ask of a policy that imagines, and its images as they are shown: on the canvas, beside recorded ones."""

from __future__ import annotations

from typing import Protocol, cast

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from wamkit.data.canvas import canvas_size
from wamkit.infer.engine import Engine
from wamkit.tree import Tree
from wamkit.types import Encoder, Policy, Query

EULER_STEPS = 2
"""Of a clip that is shown; ten make small models at most 0.2 dB better, some worse (docs/log.md)."""


class DecodingEncoder(Encoder, Protocol):
    """What this section asks of an encoder."""

    def decode(self, latents: Float[Tensor, "b c f h w"]) -> Float[Tensor, "b 3 t H W"]:
        """Images in [-1, 1]."""


class ImaginingPolicy(Policy, Protocol):
    """What this section asks of a policy. Images are in [-1, 1] and may be smaller than the canvas."""

    def pool(self, latents: Float[Tensor, "b c f h w"]) -> Float[Tensor, "b c f hp wp"]:
        """Latents at the resolution of the imagined ones."""

    def imagine(
        self, query: Query, frames: int, steps: int, generator: torch.Generator
    ) -> Float[Tensor, "b c f h w"]:
        """Present and `frames` sampled future latents."""


def decoded(
    engine: Engine[ImaginingPolicy], latents: Float[Tensor, "n c f h w"]
) -> Float[Tensor, "n 3 t _ _"]:
    """Latents as images in [-1, 1], which may be smaller than the canvas, on the CPU."""
    return cast(DecodingEncoder, engine.encoder).decode(latents).float().cpu()


def enlarged(
    engine: Engine[ImaginingPolicy], video: Float[Tensor, "n 3 t _ _"]
) -> Float[Tensor, "n 3 t H W"]:
    """Images in [-1, 1] at the size of the canvas."""
    size = canvas_size(engine.policy.data)
    if video.shape[-2:] == size:
        return video.clamp(-1, 1)
    frames = F.interpolate(video.transpose(1, 2).flatten(0, 1), size, mode="bicubic", align_corners=False)
    return frames.unflatten(0, (len(video), -1)).transpose(1, 2).clamp(-1, 1)


def coded(engine: Engine[ImaginingPolicy], inputs: Tree) -> Float[Tensor, "n 3 t H W"]:
    """A recorded window, of these inputs, through the policy's codec at the resolution of the imagined latents."""
    latents = torch.cat([engine.policy.pool(inputs["present"]), inputs["future"]], dim=2)
    return enlarged(engine, decoded(engine, latents))


def squared_error(
    guess: Float[Tensor, "n 3 t H W"], recorded: Float[Tensor, "n 3 t H W"]
) -> Float[Tensor, "n t"]:
    """Mean over the canvas."""
    return (guess - recorded).square().mean(dim=(1, 3, 4))
