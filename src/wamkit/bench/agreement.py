"""The gate before every comparison of speeds: two ways that are timed beside each other give the same chunks.

In float32 up to 1e-5 of their size. In bfloat16 both are compared with the plain policy in float32: the error of the
faster one may be 1.5 times that of the other.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import nn
from wamkit_client.types import Observation

from wamkit.bench.subject import Subject

ASKED = 4
"""Observations in the gate: of two, rounding errors differ by chance as much as what is allowed."""
LARGEST, LARGEST_RATIO = 1e-5, 1.5


@dataclass(frozen=True)
class Agreement:
    """errors: root mean square of each way's differences over that of the chunks: from the slow way in float32, else
    from the plain policy in float32. allowed: of the fast way's. binding: whether more is a failure; of quantised
    weights it is told and no failure."""

    errors: Mapping[str, float]
    allowed: float
    binding: bool = True

    @property
    def passed(self) -> bool:
        """Whether the fast way, the last, is within it."""
        return not self.binding or [*self.errors.values()][-1] <= self.allowed


Answers = Callable[[Sequence[Observation]], np.ndarray]


def answers(engine: Any) -> Answers:
    """Chunks [b k a] of an engine."""
    return lambda observations: np.stack([chunk.actions for chunk in engine.act(observations)])


def float32_chunks(subject: Subject) -> np.ndarray:
    """Of the plain policy and encoder in float32, on copies that are gone afterwards."""
    policy, encoder = copy.deepcopy(subject.policy), copy.deepcopy(subject.encoder)
    for part in (policy, *vars(encoder).values()):
        if isinstance(part, nn.Module):
            for weight in part.parameters():  # not .float(), which a policy that acts refuses
                weight.data = weight.data.float()
    plain = replace(subject, policy=policy, encoder=encoder)
    return answers(plain.engine())(subject.observations(ASKED))


def agreement(
    subject: Subject, slow: tuple[str, Answers], fast: tuple[str, Answers], exact: np.ndarray | None
) -> Agreement:
    """exact: `float32_chunks`, where the weights are narrower."""
    observations = subject.observations(ASKED)
    chunks = {name: answer(observations) for name, answer in (slow, fast)}
    if exact is None:
        return Agreement({fast[0]: distance(chunks[fast[0]], chunks[slow[0]])}, LARGEST)
    errors = {name: distance(own, exact) for name, own in chunks.items()}
    return Agreement(errors, LARGEST_RATIO * errors[slow[0]])


def distance(a: np.ndarray, b: np.ndarray) -> float:
    """Root mean square of a - b over that of b."""
    return float(np.sqrt(np.mean((a - b) ** 2) / np.mean(b**2)))


def needs_float32(subject: Subject) -> bool:
    """Whether its gate compares with a copy in float32."""
    return subject.precision != torch.float32
