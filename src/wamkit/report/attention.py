"""Where the learned queries look at each tapped depth, over the picture (Light-WAM's figure 3, bottom).

All maps of a page share one scale, in multiples of even attention, and only what exceeds 1 is coloured: a flat map
looks flat. It does not know
how a policy attends.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import matplotlib as mpl
import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from wamkit.data.canvas import tile, view_boxes
from wamkit.report.future import join, pixels
from wamkit.report.markup import Section, block, escape, paragraphs, photograph
from wamkit.report.recordings import NONE, Recording
from wamkit.types import Clip, DataSpec

COLOURS = "inferno"
LEAST_TOP = 1.1
"""The scale ends at the largest value, but not below this multiple of even attention."""

HEIGHT = 224
"""Pixels the pictures are enlarged to."""


class AttendingPolicy(Protocol):
    """What this section asks of a policy."""

    data: DataSpec

    def encode(self, clip: Clip) -> Any:
        """Inputs."""

    def attention_maps(
        self, inputs: Any, embodiments: tuple[str, ...]
    ) -> Mapping[int, Float[Tensor, "b rows columns"]]:
        """By block; each map covers the canvas and sums to 1."""


@torch.no_grad()
def attention(policy: AttendingPolicy, recordings: Sequence[Recording]) -> Section:
    """A row per recording: the picture and a map per depth, at the first query after a third of the episode."""
    if not recordings:
        return Section("attention", "Attention", paragraphs(NONE))
    steps = [recording.query_at(1 / 3) for recording in recordings]
    clip = join([r.clip(step, (0,), policy.data.views) for r, step in zip(recordings, steps, strict=True)])
    maps = {
        layer: weights.float().cpu() * weights[0].numel()
        for layer, weights in policy.attention_maps(policy.encode(clip), clip.embodiments).items()
    }
    top = max(LEAST_TOP, *(float(weights.max()) for weights in maps.values()))
    canvas = tile(clip.views, policy.data)[:, :, 0]
    rows = [
        _row(
            recording,
            step,
            canvas[n],
            {layer: weights[n] for layer, weights in maps.items()},
            top,
            policy.data,
        )
        for n, (recording, step) in enumerate(zip(recordings, steps, strict=True))
    ]
    grid = "×".join(str(size) for size in next(iter(maps.values())).shape[1:])
    text = (
        "The action expert reads the picture through learned queries at several depths of the video model. Each map "
        "is the attention of one depth, averaged over heads and queries as the policy weighs them, on its grid of "
        f"{grid} tokens, interpolated. Below each: how the attention divides among the cameras."
    )
    scale = f"Grey: at most even attention. {_scale()} up to {top:.2f} times as much"
    return Section("attention", "Attention", paragraphs(text) + block("p", "note", scale) + "".join(rows))


def _row(
    recording: Recording,
    step: int,
    canvas: Float[Tensor, "3 H W"],
    maps: Mapping[int, Tensor],
    top: float,
    data: DataSpec,
) -> str:
    height, width = HEIGHT, round(HEIGHT * canvas.shape[2] / canvas.shape[1])
    large = F.interpolate(canvas[None], (height, width), mode="bicubic", align_corners=False)[0].clamp(-1, 1)
    seen = pixels(large)
    heads = [block("span", "head", name) for name in ("picture", *(f"block {layer}" for layer in maps))]
    images = [photograph(seen, f"{recording.task}, what the policy sees")]
    shares = [block("span", "number", escape(", ".join(data.views)))]
    for layer, weights in maps.items():
        images.append(
            photograph(overlay(seen, weights, top), f"{recording.task}, attention of block {layer}")
        )
        shares.append(block("span", "number", _shares(weights, canvas, data)))
    columns = f"grid-template-columns:repeat({len(images)},1fr)"
    title = f"<h3>{escape(recording.task)} <small>seed {recording.seed}, step {step}</small></h3>"
    strip = f'<div class="strip" style="{columns}">{"".join(heads + images + shares)}</div>'
    return title + block("div", "strip-scroll", strip)


def overlay(seen: np.ndarray, weights: Float[Tensor, "rows columns"], top: float) -> np.ndarray:
    """The picture, uint8 [h, w, 3], grey where the weight is at most 1, the more coloured the nearer it is to `top`."""
    smooth = F.interpolate(weights[None, None], seen.shape[:2], mode="bicubic", align_corners=False)[0, 0]
    heat = ((smooth - 1) / (top - 1)).clamp(0, 1).numpy()
    colour = mpl.colormaps[COLOURS](0.35 + 0.65 * heat)[..., :3] * 255
    grey = np.repeat(seen.mean(axis=2, keepdims=True), 3, axis=2)
    strength = (0.85 * heat)[..., None]
    return (grey * (1 - strength) + colour * strength).round().astype(np.uint8)


def _shares(weights: Float[Tensor, "rows columns"], canvas: Float[Tensor, "3 H W"], data: DataSpec) -> str:
    """Percent of the attention on each view, in the order of the views."""
    spread = F.interpolate(weights[None, None], canvas.shape[1:], mode="nearest")[0, 0]
    total = float(spread.sum())
    boxes = view_boxes(data).values()
    shares = [float(spread[top : top + h, left : left + w].sum()) / total for top, left, h, w in boxes]
    return ", ".join(f"{100 * share:.0f} %" for share in shares)


def _scale() -> str:
    stops = [mpl.colors.to_hex(mpl.colormaps[COLOURS](0.35 + 0.65 * i / 6)) for i in range(7)]
    return f'<span class="scale" style="background:linear-gradient(90deg,{",".join(stops)})"></span>'
