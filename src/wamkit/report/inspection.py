"""The page of `wamkit inspect`: findings, canvas, numbers, instructions and action chunks of what a policy is shown.

It draws values (report/seen.py) and judges nothing; the findings are given to it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import groupby
from pathlib import Path

import numpy as np
from jaxtyping import Float
from markupsafe import Markup
from torch import Tensor

from wamkit.data.canvas import canvas_size, view_boxes
from wamkit.data.normalize import LIMIT
from wamkit.data.statistics import STILL
from wamkit.report.distributions import MODES
from wamkit.report.facts import Facts, facts
from wamkit.report.future import pixels, psnr
from wamkit.report.page import Header, Section, jpeg, png, write_page
from wamkit.report.plots import chunk as chunk_plot
from wamkit.report.plots import spark
from wamkit.report.seen import PIXEL_STEP, Chunk, Field, Look, Seen, gripper_direction

EXACT = 2**16
"""Pixels up to which a canvas is stored without loss; larger ones as JPEG, or the page would take minutes to load."""


def write_inspection(page: Path, title: str, seen: Seen, found: Sequence[str], about: Facts) -> None:
    """Write the page, whole or not at all; the same arguments give the same bytes."""
    count = len(found)
    headline = "Nothing looks suspicious" if not count else f"{count} thing{'s' * (count > 1)} to look at"
    subline = (
        "What a policy is given of this dataset: its images after tiling, its numbers after normalisation, its "
        "words after tokenising. Wrong conventions train without an error and fail on the robot; most can be seen here."
    )
    titles = {"action": "Actions", "proprio": "Proprio"}
    sections = [
        Section("findings", "Findings", "findings", found),
        Section("canvas", "Canvas", "canvas", _canvas(seen)),
        *(Section(f.field, titles[f.field], "numbers", _numbers(f, seen)) for f in seen.fields),
        Section("instructions", "Instructions", "instructions", seen),
        Section("chunks", "Action chunks", "chunks", _chunks(seen)),
        facts(about),
    ]
    write_page(page, Header(f"wamkit inspect: {title}", headline, subline), sections)


@dataclass(frozen=True)
class View:
    """A camera on the canvas. box: its top, left, height and width in pixels; percent: in percent of the canvas.

    source: height and width as recorded. stretch: how many times as wide the canvas shows it. low, high: of its values.
    colour: mean RGB, 0..255.
    """

    name: str
    source: tuple[int, int]
    box: tuple[int, int, int, int]
    percent: list[float]
    stretch: float
    low: float
    high: float
    colour: list[int]


@dataclass(frozen=True)
class Strip:
    """A clip as data URIs. times: seconds and whether the frame is padding. low, high: of the canvas' values.

    decoded: what the codec gives back (none without one); psnr: its first frame's and, of several, the later ones'.
    """

    step: str
    instruction: str
    times: list[tuple[float, bool]]
    low: float
    high: float
    canvas: list[str]
    decoded: list[str]
    psnr: list[str]


@dataclass(frozen=True)
class Canvas:
    """size: height and width in pixels. first: a canvas as a data URI. strips: by episode."""

    seen: Seen
    size: tuple[int, int]
    views: list[View]
    first: str
    strips: dict[str, list[Strip]]


def _canvas(seen: Seen) -> Canvas:
    size, boxes = canvas_size(seen.spec), view_boxes(seen.spec)
    views = [_view(name, box, size, seen.sources[name], seen.frames_of(name)) for name, box in boxes.items()]
    episodes = groupby(seen.looks, key=lambda look: look.id.split(":")[0])
    strips = {episode: [_strip(look, seen) for look in looks] for episode, looks in episodes}
    return Canvas(seen, size, views, _image(seen.looks[0].canvas[:, 0]), strips)


def _view(
    name: str,
    box: tuple[int, int, int, int],
    size: tuple[int, int],
    source: tuple[int, int],
    frames: Float[Tensor, "n 3 h w"],
) -> View:
    percent = [100 * length / whole for length, whole in zip(box, size * 2, strict=True)]
    stretch = (box[3] / box[2]) / (source[1] / source[0])
    colour = ((frames.mean(dim=(0, 2, 3)) + 1) / PIXEL_STEP).round().int().tolist()
    return View(name, source, box, percent, stretch, float(frames.min()), float(frames.max()), colour)


def _strip(look: Look, seen: Seen) -> Strip:
    psnrs = []
    if look.decoded.shape[1]:
        errors = (look.decoded - look.canvas).square().mean(dim=(0, 2, 3))
        psnrs = [psnr(float(part.mean())) for part in (errors[:1], errors[1:]) if len(part)]
    return Strip(
        step=look.id.split(":")[1],
        instruction=look.instruction,
        times=list(zip(seen.spec.frame_times, look.is_pad.tolist(), strict=True)),
        low=float(look.canvas.min()),
        high=float(look.canvas.max()),
        canvas=[_image(frame) for frame in look.canvas.unbind(1)],
        decoded=[_image(frame) for frame in look.decoded.unbind(1)],
        psnr=psnrs,
    )


def _image(frame: Float[Tensor, "3 H W"]) -> str:
    return (png if frame[0].numel() <= EXACT else jpeg)(pixels(frame))


@dataclass(frozen=True)
class Dimension:
    """A dimension of a field. ranges: min, 1 %, 99 %, max. ends: what becomes -1 and 1.

    outside, clamped: shares of the steps. ends, spark and shares only where the normaliser knows the robot.
    """

    name: str
    kind: str
    recorded_as: str
    ranges: list[float]
    still: bool
    ends: tuple[float, float] = (0, 0)
    spark: Markup = Markup()
    outside: float = 0.0
    clamped: float = 0.0


@dataclass(frozen=True)
class Numbers:
    """lines_at: what the normaliser's mode makes -1 and 1, in words. notes: on the gripper; limit: of clamping."""

    seen: Seen
    field: Field
    lines_at: str
    dimensions: list[Dimension]
    notes: list[str]
    limit: float = LIMIT


def _numbers(field: Field, seen: Seen) -> Numbers:
    dimensions = [_dimension(field, i) for i in range(len(field.names))]
    return Numbers(seen, field, MODES[field.mode], dimensions, gripper_direction(seen))


def _dimension(field: Field, i: int) -> Dimension:
    stats, name = field.stats, field.names[i]
    about = Dimension(
        name=f"{i} {name}",
        kind=field.kinds[i],
        recorded_as=field.recorded_as[i] if field.recorded_as[i] != name else "",
        ranges=[float(values[i]) for values in (stats.min, stats.q01, stats.q99, stats.max)],
        still=bool(stats.max[i] - stats.min[i] < STILL),
    )
    if not len(field.unit):
        return about
    unit = np.abs(field.unit[:, i])
    span = max(1.25, min(LIMIT, float(np.abs(field.unit).max())))
    return replace(
        about,
        ends=(float(field.low[i]), float(field.high[i])),
        spark=spark(f"{name} in unit range", field.unit[:, i], span),
        outside=float((unit > 1 + 1e-4).mean()),
        clamped=float((unit >= LIMIT).mean()),
    )


@dataclass(frozen=True)
class Chunks:
    """plots: of each chunk, one per dimension."""

    seen: Seen
    plots: list[tuple[Chunk, list[Markup]]]


def _chunks(seen: Seen) -> Chunks:
    stats = seen.fields[0].stats
    # Of a plot's height, or the noise of a still dimension would fill it.
    least = 0.2 * np.maximum(stats.max - stats.min, STILL)
    plots = [
        [
            chunk_plot(name, chunk.id, chunk.recorded[:, i], chunk.is_pad, chunk.predicted[:, i], least[i])
            for i, name in enumerate(seen.space.names)
        ]
        for chunk in seen.chunks
    ]
    return Chunks(seen, list(zip(seen.chunks, plots, strict=True)))
