"""The curves of a training run, from its metrics.jsonl. The names in the file are the names on the page."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

from markupsafe import Markup
from pydantic import TypeAdapter
from wamkit_client.types import BadInput

from wamkit.report.page import Section
from wamkit.report.plots import lines

TITLES = {
    "loss": "total loss, weighted",
    "grad_norm": "gradient norm before clipping",
    "lr": "learning rate",
    "steps_per_second": "steps per second",
    "data_share": "share of time spent waiting for data",
}
LINEAR = ("lr", "steps_per_second", "data_share")
ROW = TypeAdapter(dict[str, float])


@dataclass(frozen=True)
class Curves:
    """steps: optimiser steps. plots: one per column of the metrics."""

    steps: int
    plots: list[Markup]


def training(run_dir: Path) -> Section:
    """A plot per column. BadInput where metrics.jsonl is missing, empty or damaged."""
    rows = read_metrics(run_dir / "metrics.jsonl")
    steps = [row["step"] for row in rows]
    plots = []
    for name in sorted(rows[-1].keys() - {"step"}, key=_place):
        values = [row[name] for row in rows]
        title = TITLES.get(name, name.replace("loss/", "") + " loss" if name.startswith("loss/") else name)
        plots.append(lines(title, steps, values, "step", log=name not in LINEAR and min(values) > 0))
    return Section("training", "Training", "training", Curves(int(steps[-1]), plots))


def _place(name: str) -> tuple[bool, int, str]:
    """Losses first, then in the order of TITLES, then the unknown."""
    order = list(TITLES)
    return not name.startswith("loss"), order.index(name) if name in TITLES else len(order), name


def read_metrics(path: Path) -> list[dict[str, float]]:
    """Rows of a metrics file, without a last line that was cut off while it was written."""
    if not path.is_file():
        raise BadInput(f"{path}: missing; the report reads it from the run directory, restore it")
    rows: list[dict[str, float]] = []
    for number, line in enumerate(path.read_bytes().split(b"\n")[:-1], 1):
        try:
            rows.append(ROW.validate_python(json.loads(line)))
        except (ValueError, RecursionError) as error:  # no text, no JSON, or none of numbers by name
            raise BadInput(
                f"{path}: line {number} is not JSON of numbers by name; restore the file"
            ) from error
        if rows[-1].keys() != rows[0].keys():
            raise BadInput(f"{path}: line {number} has other columns than the first; restore the file")
    if not rows:
        raise BadInput(f"{path}: no row; train at least until the first log line")
    return rows
