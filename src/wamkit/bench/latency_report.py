"""`wamkit bench latency`: measure, then write JSON, Markdown and the image of parts."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from wamkit_client.types import BadInput

from wamkit.bench import depth
from wamkit.bench.latency import Asked, cold_start, measure
from wamkit.bench.latency_page import page
from wamkit.bench.limits import gpu, hardware_of
from wamkit.bench.official import NO_PROGRAM, official_seconds
from wamkit.bench.plot import draw
from wamkit.bench.results import circumstances, stem, write
from wamkit.bench.subject import META, Subject, is_run_directory, random_subject, shown, subject_of
from wamkit.config import Run
from wamkit.io.weights import WEIGHTS


def report(
    what: str, run: Run, device: torch.device, asked: Asked, limit: str, cold: bool, official: Path, out: Path
) -> tuple[Path, bool]:
    """The page in `out`, and whether what was compared agrees. limit: a GPU's name; "": this device. official: a
    program (official.py); NO_PROGRAM: none."""
    hardware = gpu(limit) if limit else hardware_of(device)
    if asked.layers:
        expect_recipe(what, asked, cold)
        subject, new_process = random_subject(run, META), None
        found = depth.measure(run, device, asked, asked.layers, hardware)
    else:
        new_process = cold_start(what, run, device, asked.preset) if cold else None
        subject = subject_of(what, run, device)
        found = measure(subject, asked, hardware)
    theirs = [] if official == NO_PROGRAM else official_seconds(official, subject, asked.rounds)
    facts = circumstances(device)
    path = out / stem("latency", subject.name, facts)
    title = f"A query of {subject.name} ({run.policy.kind})"
    text = page(
        title, _about(subject, what), _precision(subject), found, hardware, new_process, theirs, facts
    )
    everything: dict[str, Any] = {
        "facts": facts,
        "what": what,
        "asked": asked,
        "found": found,
        "hardware": hardware,
        "cold": new_process,
        "official": theirs,
    }
    if found.batches:
        parts = {**found.batches[0].spans, f"limit of {hardware.name.partition(',')[0]}": found.limit}
        write(path, everything, f"{text}\n![Parts of a query]({path.name}.svg)\n")
        draw(Path(f"{path}.svg"), parts)
    else:
        write(path, everything, text)
    return Path(f"{path}.md"), found.gate is None or found.gate.passed


def expect_recipe(what: str, asked: Asked, cold: bool) -> None:
    """BadInput where more is asked than two small depths can tell of."""
    if is_run_directory(what):
        raise BadInput(f"--layers: {what} is a run directory, of one depth; name a recipe, or omit --layers")
    if cold or asked.ladder:
        raise BadInput("--layers: full depth is not built, so omit --cold and --passes")


def _about(subject: Subject, what: str) -> str:
    """What it sees, and what was read from where."""
    read = "Its weights are random: no file was read."
    if is_run_directory(what):
        path = Path(what) / WEIGHTS
        read = f"Its weights are {path}, {path.stat().st_size / 1e9:.3g} GB."
    return f"{shown(subject.run.data).capitalize()}. {read}"


def _precision(subject: Subject) -> str:
    size = subject.bytes / 1e9
    return f"{str(subject.precision).removeprefix('torch.')}, {size:.3g} GB as they are trained"
