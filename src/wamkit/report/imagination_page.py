"""The page of `wamkit analyse imagination`: PSNR of whole imagined episodes over time, and some of them to look at."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from markupsafe import Markup

from wamkit.analysis.motion import Motion
from wamkit.infer.engine import Engine
from wamkit.report.analyses import ImaginationRecord, facts_of
from wamkit.report.facts import facts
from wamkit.report.images import psnr
from wamkit.report.imagination import IMAGINED, STILL
from wamkit.report.imagined_episodes import keys, plot, shown_episodes
from wamkit.report.page import Header, Section, write_page
from wamkit.report.video import FilmConfig
from wamkit.report.watched import Episode, evenly

MOST_ROWS = 12
"""Of the table."""


@dataclass(frozen=True)
class ImaginationPage:
    """rows: places among `record.steps` that the table has."""

    record: ImaginationRecord
    rows: list[int]
    keys: dict[str, str]
    plot: Markup


def write_imagination_page(
    out: Path, record: ImaginationRecord, engine: Engine[Any], episodes: Sequence[Episode], motion: Motion
) -> None:
    """Write the page, whole or not at all. episodes: those that are shown as images."""
    last = {name: own[-1].mean for name, own in record.errors.items()}
    seconds = record.steps[-1] / record.hz
    header = Header(
        f"wamkit analyse imagination: {record.origin.policy['recipe']}",
        f"{psnr(last[IMAGINED])} dB after {seconds:.3g} s of imagining; first image repeated {psnr(last[STILL])} dB",
        f"PSNR of the canvas, {record.remaining[0]} episodes. {record.about}",
    )
    drawn = plot(
        {name: [m.mean for m in own] for name, own in record.errors.items()}, [0, *record.steps], record.hz
    )
    shown = ImaginationPage(record, evenly(len(record.steps), MOST_ROWS), keys(), drawn)
    whole = shown_episodes(engine, episodes, motion, FilmConfig(), record.config.seed)
    sections = [
        Section("imagination", "Imagination over time", "imagination", shown),
        Section("episodes", "Episodes", "whole_episodes", whole),
        facts(facts_of(record)),
    ]
    write_page(out, header, sections)
