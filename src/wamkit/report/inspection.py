"""The page of `wamkit inspect`: findings, canvas, numbers, instructions and action chunks of what a policy is shown.

It draws values (report/seen.py) and judges nothing; the findings are given to it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from markupsafe import Markup

from wamkit.analysis.open_loop import Chunk
from wamkit.data.normalize import LIMIT
from wamkit.data.statistics import STILL
from wamkit.report.facts import Facts, facts
from wamkit.report.page import Header, Section, write_page
from wamkit.report.plots import chunk as chunk_plot
from wamkit.report.plots import spark
from wamkit.report.seen import Field, Seen, gripper_direction


@dataclass(frozen=True)
class Numbers:
    """A field. sparks: one per dimension, none where nothing can be normalised. notes: sentences on the gripper.

    limit: where unit values are clamped.
    """

    seen: Seen
    field: Field
    sparks: list[Markup]
    notes: list[str]
    limit: float = LIMIT


@dataclass(frozen=True)
class Chunks:
    """plots: of each chunk, one per dimension."""

    seen: Seen
    plots: list[tuple[Chunk, list[Markup]]]


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
        Section("canvas", "Canvas", "canvas", seen),
        *(Section(f.field, titles[f.field], "numbers", _numbers(f, seen)) for f in seen.fields if f.names),
        Section("instructions", "Instructions", "instructions", seen),
        Section("chunks", "Action chunks", "chunks", _chunks(seen)),
        facts(about),
    ]
    write_page(page, Header(f"wamkit inspect: {title}", headline, subline), sections)


def _numbers(field: Field, seen: Seen) -> Numbers:
    sparks = []
    if len(field.unit):
        span = max(1.25, min(LIMIT, float(np.abs(field.unit).max())))
        columns = zip(field.names, field.unit.T, strict=True)
        sparks = [spark(f"{name} in unit range", values, span) for name, values in columns]
    return Numbers(seen, field, sparks, gripper_direction(seen))


def _chunks(seen: Seen) -> Chunks:
    stats = seen.field("action").stats
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
