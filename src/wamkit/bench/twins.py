"""The eager twin of each kind of policy (reference/), by `policy.kind`."""

from __future__ import annotations

from collections.abc import Mapping
from importlib import import_module

from wamkit_client.types import BadInput

from wamkit.bench.subject import Subject
from wamkit.types import Actor

TWINS: Mapping[str, str] = {"light_wam": "light_wam", "fast_wam": "fast_wam", "lawam": "lawam"}
"""Modules of reference/, each with a function `twin(policy) -> Actor`."""


def twin_of(subject: Subject) -> Actor:
    """The twin of its policy. BadInput where there is none of its kind."""
    kind = subject.run.policy.kind
    if kind not in TWINS:
        raise BadInput(f"--reference: there is no twin of {kind}, only of {', '.join(TWINS)}; omit the flag")
    actor: Actor = import_module(f"wamkit.bench.reference.{TWINS[kind]}").twin(subject.policy)
    return actor
