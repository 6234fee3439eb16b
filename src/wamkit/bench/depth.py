"""Policies of another depth, and a query at full depth from two small ones, where full depth does not fit in memory.

A query's time is linear in the layers: that of one more, times the missing ones, and that of the smaller depth.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from wamkit_client.types import BadInput

from wamkit.bench.latency import SPAN_ROUNDS, Asked, Batch, Latency, batch_of, expected, failed, job, ways
from wamkit.bench.limits import Hardware
from wamkit.bench.subject import Subject, random_subject
from wamkit.bench.timing import Seconds, by_span, in_turns
from wamkit.config import Run
from wamkit.policies.fast_wam.policy import FastWAMConfig
from wamkit.policies.lawam.policy import LaWAMConfig
from wamkit.policies.light_wam.policy import LightWAMConfig


@dataclass(frozen=True)
class Depth:
    """layers: how many a config has. of: the config with so many."""

    layers: Callable[[Any], int]
    of: Callable[[Any, int], Any]


def light_wam(config: LightWAMConfig, layers: int) -> LightWAMConfig:
    """As many blocks follow the last tap as before."""
    taps, more = config.adapters.layers, layers - config.size.layers
    adapters = replace(config.adapters, layers=moved(taps, taps[-1] + 1, taps[-1] + 1 + more))
    return replace(config, size=replace(config.size, layers=layers), adapters=adapters)


def fast_wam(config: FastWAMConfig, layers: int) -> FastWAMConfig:
    """Both networks."""
    return replace(config, size=replace(config.size, layers=layers))


def lawam(config: LaWAMConfig, layers: int) -> LaWAMConfig:
    """Of the expert; the prior and the world model become as many times as deep. Features stay as they are."""

    whole = config.expert.layers

    def scaled(count: int) -> int:
        if count * layers % whole:
            raise BadInput(
                f"--layers {layers}: of {whole} in the expert; another part would have {count * layers / whole:g} "
                f"layers of its {count}. Choose a depth in which all have whole numbers"
            )
        return count * layers // whole

    prior = config.prior
    blocks = scaled(prior.vision_blocks)
    taps = moved(prior.vision_taps, prior.vision_blocks, blocks)
    return replace(
        config,
        expert=replace(config.expert, layers=layers),
        prior=replace(prior, layers=scaled(prior.layers), vision_blocks=blocks, vision_taps=taps),
        latent=replace(config.latent, world_layers=scaled(config.latent.world_layers)),
    )


def moved(taps: Sequence[int], of: int, into: int) -> tuple[int, ...]:
    """Numbers of layers among `of`, as those among `into`. BadInput where two would become one."""
    found = tuple(round((tap + 1) * into / of) - 1 for tap in taps)
    if len({*found, -1}) <= len(taps):
        raise BadInput(f"--layers: {len(taps)} taps need more layers than {into}")
    return found


DEPTHS: Mapping[str, Depth] = {
    "light_wam": Depth(lambda config: config.size.layers, light_wam),
    "fast_wam": Depth(lambda config: config.size.layers, fast_wam),
    "lawam": Depth(lambda config: config.expert.layers, lawam),
}
"""By `policy.kind`."""


def layers_of(run: Run) -> int:
    """Of its policy. BadInput for one whose depth is not known."""
    kind = run.policy.kind
    if kind not in DEPTHS:
        raise BadInput(f"--layers: the depth of {kind} cannot be changed, only of {', '.join(DEPTHS)}")
    return DEPTHS[kind].layers(run.policy)


def of_depth(run: Run, layers: int) -> Run:
    """With a policy of so many layers. BadInput where it cannot have them."""
    if layers_of(run) == layers:
        return run
    return replace(run, policy=DEPTHS[run.policy.kind].of(run.policy, layers))


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
