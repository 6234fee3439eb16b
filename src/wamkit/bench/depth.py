"""Policies of another depth, and a query at full depth from two small ones, where full depth does not fit in memory.

A query's time is linear in the layers: that of one more, times the missing ones, and that of the smaller depth.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from wamkit_client.types import BadInput

from wamkit.bench.depths import layers_of, of_depth
from wamkit.bench.latency import SPAN_ROUNDS, Asked, Batch, Latency, batch_of, expected, failed, job, ways
from wamkit.bench.limits import Hardware
from wamkit.bench.subject import Subject, random_subject
from wamkit.bench.timing import Seconds, by_span, in_turns
from wamkit.config import Run


def measure(
    run: Run, device: torch.device, asked: Asked, depths: Sequence[int], hardware: Hardware
) -> Latency:
    """A query of the run's policy, of random weights, from two smaller depths, which take turns with each other."""
    full = layers_of(run)
    if len(depths) != 2 or not 0 < depths[0] < depths[1] <= full:
        raise BadInput(
            f"--layers: expected two depths below {full}, the smaller one first, got {list(depths)}"
        )
    subjects: dict[int, Subject] = {}
    for layers in depths:
        made = random_subject(of_depth(run, layers), device)
        first = subjects.get(depths[0], made)
        subjects[layers] = replace(made, encoder=first.encoder)
    engines, gates = {}, []
    for layers, subject in subjects.items():
        engines[layers], gate = ways(subject, asked)
        if gate and not gate.passed:
            return failed(gate)
        gates.append(gate)
    at: dict[int, list[Batch]] = {layers: [] for layers in depths}
    line, whole = Line(depths[0], depths[1], full), []
    for size in asked.batches:
        jobs = {
            (way, layers): job(subjects[layers], engine, size)
            for layers, own in engines.items()
            for way, engine in own.items()
        }
        named = {f"{way}, {layers} layers": do for (way, layers), do in jobs.items()}
        taken = in_turns(named, asked.rounds, device, f"batch {size}")
        seconds = dict(zip(jobs, taken.values(), strict=True))
        spans = {key: by_span(do, SPAN_ROUNDS, device) for key, do in jobs.items()}
        for layers, batches in at.items():
            own = [(way, layers) for way in engines[layers]]
            batches.append(
                batch_of(
                    size, {key[0]: seconds[key] for key in own}, {key[0]: spans[key] for key in own}, asked
                )
            )
        pairs = {way: [(way, layers) for layers in depths] for way in engines[depths[0]]}
        deep = {way: line.seconds(*(seconds[key] for key in pair)) for way, pair in pairs.items()}
        parts = {way: line.spans(*(spans[key] for key in pair)) for way, pair in pairs.items()}
        whole.append(batch_of(size, deep, parts, asked))
    counted, limit = expected(run, subjects[depths[0]].precision, asked, hardware)
    return Latency(whole, counted, limit, gates[-1], (), {}, 0, at)


@dataclass(frozen=True)
class Line:
    """From values at two depths to the value at `full`."""

    small: int
    large: int
    full: int

    def __call__(self, small: float, large: float) -> float:
        """One value."""
        return small + (self.full - self.small) * (large - small) / (self.large - self.small)

    def seconds(self, small: Seconds, large: Seconds) -> Seconds:
        """Round by round."""
        return Seconds(
            *(
                tuple(map(self, *both))
                for both in ((small.wall, large.wall), (small.cpu, large.cpu), (small.device, large.device))
            )
        )

    def spans(self, small: Mapping[str, float], large: Mapping[str, float]) -> dict[str, float]:
        """Span by span; none takes less than no time."""
        return {name: max(self(small[name], large[name]), 0.0) for name in small}
