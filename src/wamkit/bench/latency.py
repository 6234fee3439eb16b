"""How long a query takes: views and proprio in host memory to a chunk in host memory, by part, beside what could be."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from wamkit.bench.agreement import Agreement, agreement, answers, float32_chunks, needs_float32
from wamkit.bench.counting import Work, work_by_span
from wamkit.bench.kernels import Kernel, kernels_of
from wamkit.bench.limits import Hardware
from wamkit.bench.process import Cost, Steps, in_own_process
from wamkit.bench.shapes import RememberedShapes
from wamkit.bench.subject import (
    META,
    RING,
    Answering,
    Subject,
    asking,
    is_run_directory,
    random_subject,
    subject_around,
)
from wamkit.bench.timing import Job, Ratio, Seconds, by_span, in_turns, ratio
from wamkit.bench.twins import twin_of
from wamkit.config import Run, load_acting
from wamkit.infer.engine import Engine
from wamkit.infer.presets import PRESETS, PresetName

SPAN_ROUNDS = 3
TWIN = "official work"


@dataclass(frozen=True)
class Asked:
    """batches: observations per query. rounds: of every measurement. preset: how the policy acts. reference: beside its
    twin. ladder: its passes one after the other. layers: (), or two depths that full depth follows from (depth.py)."""

    batches: Sequence[int]
    rounds: int
    preset: PresetName
    reference: bool = False
    ladder: bool = False
    layers: tuple[int, ...] = ()


@dataclass(frozen=True)
class Batch:
    """seconds, spans: by way, of a query of `size` observations. ratios: of each slower way to the preset, of
    seconds on the wall and of processor seconds, which other work on the machine changes less."""

    size: int
    seconds: Mapping[str, Seconds]
    spans: Mapping[str, Mapping[str, float]]
    ratios: Mapping[str, Ratio]
    processor_ratios: Mapping[str, Ratio]


@dataclass(frozen=True)
class Rung:
    """A pass, and how many times as fast a query is with it and all before it as with none, and as with these only."""

    name: str
    all_before: Ratio
    alone: Ratio


@dataclass(frozen=True)
class Latency:
    """work: counted by way and span, one observation. limit: seconds by span at the device's peaks, of the preset's
    work. gate: None without a reference. kernels: of a GPU, by way, of one observation. memory: bytes, at most, on a
    GPU while it was asked; 0 on a processor. depths: batches that were measured at small depths, by layers, where
    `batches` follow from those (depth.py)."""

    batches: Sequence[Batch]
    work: Mapping[str, Mapping[str, Work]]
    limit: Mapping[str, float]
    gate: Agreement | None
    ladder: Sequence[Rung]
    kernels: Mapping[str, Sequence[Kernel]]
    memory: int
    depths: Mapping[int, Sequence[Batch]] = field(default_factory=dict)


def measure(subject: Subject, asked: Asked, hardware: Hardware) -> Latency:
    """Raises BadInput where there is no twin; a gate that fails is in the result, without times."""
    engines, gate = ways(subject, asked)
    if gate and not gate.passed:
        return failed(gate)
    cuda = subject.device.type == "cuda"
    if cuda:
        torch.cuda.reset_peak_memory_stats(subject.device)
    batches = []
    for size in asked.batches:
        jobs = {name: job(subject, engine, size) for name, engine in engines.items()}
        seconds = in_turns(jobs, asked.rounds, subject.device, f"batch {size}")
        spans = {name: by_span(do, SPAN_ROUNDS, subject.device) for name, do in jobs.items()}
        batches.append(batch_of(size, seconds, spans, asked))
    memory = torch.cuda.max_memory_allocated(subject.device) if cuda else 0
    counted, limit = expected(subject.run, subject.precision, asked, hardware)
    rungs = ladder(subject, asked.rounds) if asked.ladder else ()
    busy = {name: kernels_of(job(subject, engine, 1), subject.device) for name, engine in engines.items()}
    return Latency(batches, counted, limit, gate, rungs, busy, memory)


def ways(subject: Subject, asked: Asked) -> tuple[dict[str, Engine[Any]], Agreement | None]:
    """What is measured beside each other, slow ones first, and whether they agree; None: there is only one."""
    exact = float32_chunks(subject) if asked.reference and needs_float32(subject) else None
    engines: dict[str, Engine[Any]] = {}
    if asked.reference:
        engines[TWIN] = Answering(subject, *twin_of(subject))
    engines[asked.preset] = Engine(subject.encoder, subject.policy, subject.device, asked.preset)
    if not asked.reference:
        return engines, None
    slow, fast = ((name, answers(engine)) for name, engine in engines.items())
    binding = PRESETS[asked.preset].weights == "stored"
    return engines, replace(agreement(subject, slow, fast, exact), binding=binding)


def failed(gate: Agreement) -> Latency:
    """What is found where two ways do not agree: nothing is timed."""
    return Latency((), {}, {}, gate, (), {}, 0)


def batch_of(
    size: int, seconds: Mapping[str, Seconds], spans: Mapping[str, Mapping[str, float]], asked: Asked
) -> Batch:
    """With the ratios of the other ways to the preset."""
    fast = seconds[asked.preset]
    others = {name: own for name, own in seconds.items() if name != asked.preset}
    wall = {name: ratio(own.wall, fast.wall) for name, own in others.items()}
    return Batch(size, seconds, spans, wall, {name: ratio(own.cpu, fast.cpu) for name, own in others.items()})


def expected(
    run: Run, precision: torch.dtype, asked: Asked, hardware: Hardware
) -> tuple[dict[str, dict[str, Work]], dict[str, float]]:
    """Work by way and span, counted, and the least seconds of the preset's by span."""
    counted = count(run, asked)
    own = counted.get(asked.preset, {})
    return counted, {name: hardware.seconds(work, precision) for name, work in own.items()}


def job(subject: Subject, engine: Engine[Any], size: int) -> Job:
    """A query of `size` observations, other ones in every round."""
    ring = subject.observations(max(RING, size))

    def ask(number: int) -> None:
        first = number * size
        chunks = engine.act([ring[(first + i) % len(ring)] for i in range(size)])
        assert all(np.isfinite(chunk.actions).all() for chunk in chunks)

    return ask


def ladder(subject: Subject, rounds: int) -> list[Rung]:
    """Every pass of encoder and policy in turn. Three engines at a time are in memory: without any, with all before,
    and with one more."""
    base = subject.engine()
    rungs: list[Rung] = []
    before, actor = base, subject.policy.actor(())
    passes: tuple[list[str], list[str]] = ([], [])
    steps = [(0, name) for name in subject.encoder.passes] + [(1, name) for name in subject.policy.passes]
    for side, name in steps:
        passes[side].append(name)
        actor = subject.policy.actor(tuple(passes[1])) if side else actor
        after = subject.engine(tuple(passes[0]), actor)
        engines = {"none": base, "before": before, "after": after}
        jobs = {way: job(subject, engine, 1) for way, engine in engines.items()}
        found = in_turns(jobs, rounds, subject.device, name)
        after_wall = found["after"].wall
        rungs.append(
            Rung(name, ratio(found["none"].wall, after_wall), ratio(found["before"].wall, after_wall))
        )
        before = after
    return rungs


def count(run: Run, asked: Asked) -> dict[str, dict[str, Work]]:
    """Of one observation, by way and span; without memory. Ways that read numbers on the host are missing."""
    subject = random_subject(run, META)
    preset = PRESETS[asked.preset]
    passes = preset.chosen(subject.encoder.passes)
    ways = {TWIN: twin_of(subject)} if asked.reference else {}
    ways[asked.preset] = (
        subject.encoder.acting(passes),
        subject.policy.actor(preset.chosen(subject.policy.passes)),
    )
    counted = {}
    for name, (encoder, actor) in ways.items():
        ask = asking(subject, encoder, actor, 1)
        if on_shapes(ask):
            counted[name] = work_by_span(ask)
    return counted


def on_shapes(ask: Callable[[], object]) -> bool:
    """Whether a query reads no numbers on the host, so that shapes are enough. What it makes at the first query of a
    shape is made."""
    try:
        with RememberedShapes():
            ask()
    except RuntimeError as error:
        if "meta tensor" not in str(error):
            raise
        return False
    return True


def cold_start(what: str, run: Run, device: torch.device, preset: PresetName) -> Cost:
    """From a new process to its first chunks."""
    return in_own_process(_first_queries, what, run, device, preset)


def _first_queries(what: str, run: Run, device: torch.device, preset: PresetName, steps: Steps) -> None:
    with steps("load"):
        subject, engine = _loaded(what, replace(run, eval=replace(run.eval, engine=preset)), device)
        ask = job(subject, engine, 1)
        engine.release()  # as every program that only acts does
        del subject
    for name in ("first query", "second query"):
        with steps(name):
            ask(0)


def _loaded(what: str, run: Run, device: torch.device) -> tuple[Subject, Engine[Any]]:
    """As `wamkit eval` loads a run directory; of a recipe, random weights."""
    if is_run_directory(what):
        engine = load_acting(run, Path(what), device)
        return subject_around(what, run, engine), engine
    subject = random_subject(run, device)
    return subject, Engine(subject.encoder, subject.policy, device, run.eval.engine)
