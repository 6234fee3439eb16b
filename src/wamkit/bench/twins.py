"""The eager twins of each kind of policy (reference/), by `policy.kind`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from importlib import import_module
from typing import Any

from torch import Tensor
from wamkit_client.types import BadInput

from wamkit.bench.subject import Subject
from wamkit.config import Run
from wamkit.draws import Draws
from wamkit.types import ActingEncoder, Actor, Batch

Losses = Callable[[Any, Batch, Draws], dict[str, Tensor]]

TWINS: Mapping[str, str] = {"light_wam": "light_wam", "fast_wam": "fast_wam", "lawam": "lawam"}
"""Modules of reference/, each with a function `twin(policy) -> Actor`."""

TRAINING_TWINS: Mapping[str, str] = {kind: f"{name}_training" for kind, name in TWINS.items()}
"""Modules of reference/, each with a function `losses(policy, batch, draws)`: the official training step."""

ENCODER_PASSES: Mapping[str, tuple[str, ...]] = {"lawam": ("bare_prompts",)}
"""What released programs do too: a single prompt is not padded."""


def twin_of(subject: Subject) -> tuple[ActingEncoder, Actor]:
    """The encoder and the twin of its policy. BadInput where there is none of its kind."""
    kind = subject.run.policy.kind
    if kind not in TWINS:
        raise BadInput(f"--reference: there is no twin of {kind}, only of {', '.join(TWINS)}; omit the flag")
    actor: Actor = import_module(f"wamkit.bench.reference.{TWINS[kind]}").twin(subject.policy)
    return subject.encoder.acting(ENCODER_PASSES.get(kind, ())), actor


def losses_of(run: Run) -> Losses:
    """The losses of the official training step of the run's policy. BadInput where there is none of its kind."""
    kind = run.policy.kind
    if kind not in TRAINING_TWINS:
        raise BadInput(f"--reference: there is no twin of {kind}'s training step; omit the flag")
    losses: Losses = import_module(f"wamkit.bench.reference.{TRAINING_TWINS[kind]}").losses
    return losses
