"""The action model starts from the video model, every tensor resized to the smaller width (Fast-WAM spec 1.8).

`action_encoder` and `head` have no counterpart and keep their random values.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from wamkit.policies.fast_wam.action_dit import ActionDiT
from wamkit.wan.dit import WanDiT

Rule = Callable[[str, Tensor, torch.Size], Tensor]

OWN = ("action_encoder.", "head.")
CHUNKED = "time_projection."


def resize(x: Float[Tensor, "..."], shape: torch.Size) -> Float[Tensor, "..."]:
    """Linear interpolation axis by axis, endpoints aligned, in float32."""
    x = x.float()
    for axis, length in enumerate(shape):
        if x.shape[axis] != length:
            moved = x.movedim(axis, -1)
            flat = moved.reshape(1, -1, moved.shape[-1])
            longer = F.interpolate(flat, size=length, mode="linear", align_corners=True)
            x = longer.reshape(*moved.shape[:-1], length).movedim(-1, axis)
    return x


def published(name: str, video: Tensor, shape: torch.Size) -> Tensor:
    """The rule that the released weights started from: fewer inputs, larger weights, where there are two or more axes.

    It has two oversights: block modulation, which is not a matrix, is scaled too; and the six rows of the time
    projection are resized as one axis, so that they bleed into each other at their borders.
    """
    resized = resize(video, shape)
    if video.ndim >= 2 and video.shape[-1] != shape[-1]:
        return resized * (video.shape[-1] / shape[-1]) ** 0.5
    return resized


def corrected(name: str, video: Tensor, shape: torch.Size) -> Tensor:
    """`published` without its two oversights."""
    if name.endswith(".modulation"):
        return resize(video, shape)
    if name.startswith(CHUNKED):
        rows = [
            published(name, part, torch.Size((shape[0] // 6, *shape[1:]))) for part in video.chunk(6, dim=0)
        ]
        return torch.cat(rows)
    return published(name, video, shape)


RULES: Mapping[str, Rule] = {"published": published, "corrected": corrected}


@torch.no_grad()
def start_from_video(action: ActionDiT, video: WanDiT, rule: Rule) -> None:
    """Overwrite the action model's parameters with resized ones of the video model."""
    source = dict(video.named_parameters())
    for name, parameter in action.named_parameters():
        if not name.startswith(OWN):
            parameter.copy_(rule(name, source[name], parameter.shape))
