"""Where the learned queries look at each tapped depth, over the image (Light-WAM's figure 3, bottom).

All maps of a page share one scale, in multiples of even attention, and only what exceeds 1 is coloured: a flat map
looks flat. It does not know how a policy attends.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import matplotlib as mpl
import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from wamkit.data.canvas import canvas_size, tile, view_boxes
from wamkit.infer.engine import Engine
from wamkit.report.images import pixels
from wamkit.report.page import Section
from wamkit.report.watched import Episode, Watched, join, query_at
from wamkit.types import DataSpec, Policy, Query

COLOURS = "inferno"
LEAST_TOP = 1.1
"""The scale ends at the largest value, but not below this multiple of even attention."""

HEIGHT = 224
"""Pixels the images are enlarged to."""


class AttendingPolicy(Policy, Protocol):
    """What this section asks of a policy."""

    def attention_maps(self, query: Query) -> Mapping[int, Float[Tensor, "b rows columns"]]:
        """By block; each map covers the canvas and sums to 1."""


@dataclass(frozen=True)
class AttendedStep:
    """What the policy sees at a step, uint8 [h, w, 3], and by block: the same under its map, and percent per view."""

    episode: Episode
    step: int
    image: np.ndarray
    maps: dict[int, tuple[np.ndarray, list[float]]]


@dataclass(frozen=True)
class Attention:
    """about: the episodes. grid: of the maps. top: the end of the scale, in multiples of even attention; colours: the
    scale's, in hex."""

    about: str
    looks: list[AttendedStep]
    views: Sequence[str]
    grid: Sequence[int]
    top: float
    colours: list[str]


@torch.no_grad()
def attention(engine: Engine[AttendingPolicy], watched: Watched) -> Section:
    """A row per episode: the image and a map per depth, at the first query after a third of it."""
    if not watched.episodes:
        return Section("attention", "Attention", "paragraphs", [watched.about])
    data = engine.policy.data
    steps = [query_at(episode, 1 / 3) for episode in watched.episodes]
    clip = join([e.clip(step, (0,), data.views) for e, step in zip(watched.episodes, steps, strict=True)])
    maps = {
        layer: weights.float().cpu() * weights[0].numel()
        for layer, weights in engine.policy.attention_maps(engine.query(clip)).items()
    }
    top = max(LEAST_TOP, *(float(weights.max()) for weights in maps.values()))
    canvas = tile(clip.views, data)[:, :, 0]  # [b, 3, H, W]
    size = HEIGHT, round(HEIGHT * canvas.shape[3] / canvas.shape[2])
    large = F.interpolate(canvas, size, mode="bicubic", align_corners=False).clamp(-1, 1)
    looks = []
    for n, (episode, step) in enumerate(zip(watched.episodes, steps, strict=True)):
        image = pixels(large[n])
        own = {
            layer: (overlay(image, weights[n], top), shares(weights[n], data))
            for layer, weights in maps.items()
        }
        looks.append(AttendedStep(episode, step, image, own))
    colours = [mpl.colors.to_hex(colour) for colour in _colours(np.linspace(0, 1, 7))]
    grid = next(iter(maps.values())).shape[1:]
    shown = Attention(watched.about, looks, data.views, grid, top, colours)
    return Section("attention", "Attention", "attention", shown)


def overlay(image: np.ndarray, weights: Float[Tensor, "rows columns"], top: float) -> np.ndarray:
    """The image, uint8 [h, w, 3], grey where the weight is at most 1, the more coloured the nearer it is to `top`."""
    smooth = F.interpolate(weights[None, None], image.shape[:2], mode="bicubic", align_corners=False)[0, 0]
    heat = ((smooth - 1) / (top - 1)).clamp(0, 1).numpy()
    grey = np.repeat(image.mean(axis=2, keepdims=True), 3, axis=2)
    strength = (0.85 * heat)[..., None]
    return (grey * (1 - strength) + 255 * _colours(heat) * strength).round().astype(np.uint8)


def _colours(heat: np.ndarray) -> np.ndarray:
    """[0, 1] -> RGB in [0, 1], without the darkest third of the colour map."""
    return mpl.colormaps[COLOURS](0.35 + 0.65 * heat)[..., :3]


def shares(weights: Float[Tensor, "rows columns"], data: DataSpec) -> list[float]:
    """Percent of the attention on each view, in the order of the views."""
    spread = F.interpolate(weights[None, None], canvas_size(data), mode="nearest")[0, 0]
    total = float(spread.sum())
    boxes = view_boxes(data).values()
    return [100 * float(spread[top : top + h, left : left + w].sum()) / total for top, left, h, w in boxes]
