"""The eager twin of each kind of policy (reference/), by `policy.kind`."""

from __future__ import annotations

from collections.abc import Mapping
from importlib import import_module

from wamkit_client.types import BadInput

from wamkit.bench.subject import Subject
from wamkit.types import ActingEncoder, Actor

TWINS: Mapping[str, str] = {"light_wam": "light_wam", "fast_wam": "fast_wam", "lawam": "lawam"}
"""Modules of reference/, each with a function `twin(policy) -> Actor`."""

ENCODER_PASSES: Mapping[str, tuple[str, ...]] = {"lawam": ("bare_prompts",)}
"""What released programs do too: a single prompt is not padded."""


def twin_of(subject: Subject) -> tuple[ActingEncoder, Actor]:
    """The encoder and the twin of its policy. BadInput where there is none of its kind."""
    kind = subject.run.policy.kind
    if kind not in TWINS:
        raise BadInput(f"--reference: there is no twin of {kind}, only of {', '.join(TWINS)}; omit the flag")
    actor: Actor = import_module(f"wamkit.bench.reference.{TWINS[kind]}").twin(subject.policy)
    return subject.encoder.acting(ENCODER_PASSES.get(kind, ())), actor
