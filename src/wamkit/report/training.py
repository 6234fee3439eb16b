"""The curves of a training run: its metrics, and what was measured now and then of episodes that were held out and in
closed loop. The names in the files are the names on the page.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from markupsafe import Markup
from pydantic import TypeAdapter
from wamkit_client.types import BadInput

from wamkit.report.page import Header, Section
from wamkit.report.plots import GREEN, ORANGE, Curve, curves, smoothed

TITLES = {
    "loss": "total loss, weighted",
    "grad_norm": "gradient norm before clipping",
    "lr": "learning rate",
    "steps_per_second": "steps per second",
    "data_share": "share of time spent waiting for data",
}
LINEAR = ("lr", "steps_per_second", "data_share")
ACTION_ERROR = "action_error"
NOT_EVALUATED = "Not evaluated in closed loop (wamkit eval): whether it solves its tasks is not known."
ROW = TypeAdapter(dict[str, float])
Row = dict[str, float]


@dataclass(frozen=True)
class History:
    """Rows by step. metrics: of the training, at least one. held_out: losses and "action_error" of held-out episodes.
    closed_loop: "successes" of "trials". warning: on what they show, a sentence; "" for none."""

    metrics: Sequence[Row]
    held_out: Sequence[Row] = ()
    closed_loop: Sequence[Row] = ()
    warning: str = ""


@dataclass(frozen=True)
class Curves:
    """steps: optimiser steps. plots: one per column of the metrics, and what else was measured."""

    steps: int
    history: History
    plots: list[Markup]


def read_history(run_dir: Path) -> History:
    """Of a run directory. BadInput where metrics.jsonl is missing or empty, and where a file is damaged."""
    metrics = read_metrics(run_dir / "metrics.jsonl")
    held_out, closed_loop = (run_dir / name for name in ("held_out.jsonl", "closed_loop.jsonl"))
    return History(
        metrics,
        held_out=read_rows(held_out) if held_out.exists() else [],
        closed_loop=read_rows(closed_loop) if closed_loop.exists() else [],
    )


def trained_header(title: str, histories: Sequence[History]) -> Header:
    """Of a run that was not evaluated."""
    for history in histories:
        first, last = history.metrics[0], history.metrics[-1]
        return Header(
            title,
            f"Trained for {last['step']:.0f} steps: loss {first['loss']:.3g} to {last['loss']:.3g}",
            NOT_EVALUATED,
        )
    return Header(title, "Released weights, not evaluated", NOT_EVALUATED)


def training(history: History) -> Section:
    """A plot per column."""
    rows = history.metrics
    steps = [row["step"] for row in rows]
    plots = []
    for name in sorted(rows[-1].keys() - {"step"}, key=_place):
        values = [row[name] for row in rows]
        held_out = [row for row in history.held_out if name in row]
        drawn = [*_held_out(held_out, name), *smoothed(steps, values)]
        title = TITLES.get(name, name.replace("loss/", "") + " loss" if name.startswith("loss/") else name)
        log = name not in LINEAR and all(value > 0 for curve in drawn for value in curve.y)
        plots.append(curves(title, drawn, "step", log))
    return Section(
        "training", "Training", "training", Curves(int(steps[-1]), history, _measured(history) + plots)
    )


def _held_out(rows: Sequence[Row], name: str) -> list[Curve]:
    return (
        [Curve([row["step"] for row in rows], [row[name] for row in rows], ORANGE, alpha=1.0)] if rows else []
    )


def _measured(history: History) -> list[Markup]:
    """Plots of what is no column of the metrics."""
    plots = []
    errors = [row for row in history.held_out if ACTION_ERROR in row]
    if errors:
        plots.append(curves("held-out action error, unit range", _held_out(errors, ACTION_ERROR), "step"))
    if history.closed_loop:
        steps = [row["step"] for row in history.closed_loop]
        rates = [100 * row["successes"] / row["trials"] for row in history.closed_loop]
        plots.append(curves("episodes solved in closed loop, %", [Curve(steps, rates, GREEN)], "step"))
    return plots


def _place(name: str) -> tuple[bool, int, str]:
    """Losses first, then in the order of TITLES, then the unknown."""
    order = list(TITLES)
    return not name.startswith("loss"), order.index(name) if name in TITLES else len(order), name


def read_metrics(path: Path) -> list[dict[str, float]]:
    """Rows of a metrics file, at least one, without a last line that was cut off while it was written."""
    rows = read_rows(path)
    if not rows:
        raise BadInput(f"{path}: no row; train at least until the first log line")
    return rows


def read_rows(path: Path) -> list[dict[str, float]]:
    """Rows with equal columns. BadInput where the file is missing or damaged."""
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
    return rows
