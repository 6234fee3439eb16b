"""How the time of a query grows with what is asked, beside how its counted work grows."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch

from wamkit.bench.counting import work
from wamkit.bench.depths import layers_of, of_depth
from wamkit.bench.latency import job
from wamkit.bench.results import table
from wamkit.bench.subject import META, asking, random_subject
from wamkit.bench.timing import in_turns
from wamkit.config import Run
from wamkit.data.canvas import view_boxes
from wamkit.infer.engine import Engine
from wamkit.io.differences import replaced


@dataclass(frozen=True)
class Point:
    """factor: of what grows. seconds: median of a query. flops, operations: counted."""

    factor: float
    seconds: float
    flops: int
    operations: int


Grown = Callable[[Run, int], Run]
"""The run in which something is as many times as large; the first factor is 1."""


def measure(run: Run, device: torch.device, over: str, factors: Sequence[int], rounds: int) -> list[Point]:
    """over: a key of GROWN. All factors are measured in turns; they are in memory together."""
    runs = {factor: GROWN[over](run, factor) for factor in factors}
    sizes = {factor: factor if over == "batch" else 1 for factor in factors}
    jobs = {}
    for factor, own in runs.items():
        subject = random_subject(own, device)
        engine = Engine(subject.encoder, subject.policy, device, own.eval.engine)
        jobs[str(factor)] = job(subject, engine, sizes[factor])
    seconds = in_turns(jobs, rounds, device, over)
    points = []
    for factor, own in runs.items():
        subject = random_subject(own, META)
        encoder, actor = (
            subject.encoder.acting(subject.encoder.passes),
            subject.policy.actor(subject.policy.passes),
        )
        ask = asking(subject, encoder, actor, sizes[factor])
        ask()
        counted = work(ask)
        median = seconds[str(factor)].summary["median"]
        points.append(Point(factor, median, counted.flops, counted.operations))
    return points


def exponent(points: Sequence[Point], of: Callable[[Point], float]) -> float:
    """p of the fit: something grows as factor^p."""
    x, y = (np.log([value(point) for point in points]) for value in (lambda point: point.factor, of))
    return float(np.polyfit(x, y, 1)[0])


def _same(run: Run, factor: int) -> Run:
    return run


def _resolution(run: Run, factor: int) -> Run:
    height, width = run.data.view_height * factor, run.data.view_width * factor
    return grown(run, {"data.view_height": height, "data.view_width": width})


def _horizon(run: Run, factor: int) -> Run:
    return grown(run, {"data.chunk_seconds": run.data.chunk_seconds * factor})


def _cameras(run: Run, factor: int) -> Run:
    views = run.data.views
    more = [f"{view}_{number}" for number in range(2, factor + 1) for view in views]
    canvas = "horizontal" if run.data.canvas == "single" else run.data.canvas  # of one view they are the same
    data = replace(run.data, views=(*views, *more), canvas=canvas)
    view_boxes(data)  # before anything is built: not every canvas has room for more
    return replace(run, data=data)


def _depth(run: Run, factor: int) -> Run:
    return of_depth(run, layers_of(run) * factor)


def grown(run: Run, values: Mapping[str, float]) -> Run:
    """With other values."""
    other: Run = replaced(run, dict(values))
    return other


GROWN: Mapping[str, Grown] = {
    "batch": _same,
    "resolution": _resolution,
    "horizon": _horizon,
    "cameras": _cameras,
    "depth": _depth,
}
"""Observations in a query; both sides of every view; actions in a chunk; views, side by side; layers."""


def growth_table(over: str, points: Sequence[Point]) -> str:
    """As Markdown: times and work over those of the first point, and the exponents of both."""
    first = points[0]
    rows = [
        [
            f"{point.factor:g}",
            f"{1e3 * point.seconds:.2f}",
            f"{point.seconds / first.seconds:.2f}",
            f"{point.flops / first.flops:.2f}",
            f"{(point.seconds / first.seconds) / (point.flops / first.flops):.2f}",
            f"{point.operations:,}",
        ]
        for point in points
    ]
    powers = [exponent(points, of) for of in (lambda point: point.seconds, lambda point: point.flops)]
    head = (over, "ms", "times the first", "its FLOP", "time over FLOP", "operations")
    fit = f"Time grows as the {powers[0]:.2f}th power, counted FLOP as the {powers[1]:.2f}th."
    return f"{table(head, rows)}\n\n{fit}"
