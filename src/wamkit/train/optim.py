"""AdamW's parameter groups, the learning-rate schedule, clipping and the moving average of weights.

Does not know which model it trains: parameters are told apart by shape and by the last part of their name.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn

from wamkit.types import Group


def trained_parameters(module: nn.Module) -> dict[str, nn.Parameter]:
    """The parameters that learn, by name, each once."""
    return {name: parameter for name, parameter in module.named_parameters() if parameter.requires_grad}


def optimizer_groups(
    module: nn.Module,
    wanted: Sequence[Group],
    weight_decay: float,
    decayed: str,
    undecayed_names: Sequence[str],
) -> list[dict[str, Any]]:
    """AdamW's groups, with the `lr_scale` of each; every trained parameter of `module` is in exactly one.

    wanted: what the policy asks for, by factors. decayed: "matrices": parameters of two or more dimensions, except
    those whose name ends in one of `undecayed_names` (query tokens, modulation tables); "all": all of them (the recipe
    of official Light-WAM). ValueError naming parameters that are in no group or in several.
    """
    groups = [
        part | {"lr_scale": group.learning_rate}
        for group in wanted
        for part in _decayed(group.parameters, weight_decay * group.decay, decayed, undecayed_names)
    ]
    check_groups(module, groups)
    return groups


def _decayed(
    parameters: Mapping[str, nn.Parameter], weight_decay: float, decayed: str, undecayed_names: Sequence[str]
) -> list[dict[str, Any]]:
    if decayed == "all":
        return [{"params": list(parameters.values()), "weight_decay": weight_decay}]
    matrices = [
        name
        for name, parameter in parameters.items()
        if parameter.ndim >= 2 and name.rpartition(".")[2] not in undecayed_names
    ]
    others = [name for name in parameters if name not in set(matrices)]
    return [
        {"params": [parameters[name] for name in matrices], "weight_decay": weight_decay},
        {"params": [parameters[name] for name in others], "weight_decay": 0.0},
    ]


def check_groups(module: nn.Module, groups: Sequence[Mapping[str, object]]) -> None:
    """ValueError naming the trained parameters that are in no group or in several, and frozen ones in any."""
    counts: dict[int, int] = {}
    for group in groups:
        for parameter in group["params"]:  # type: ignore[attr-defined]
            counts[id(parameter)] = counts.get(id(parameter), 0) + 1
    trained = {id(parameter): name for name, parameter in trained_parameters(module).items()}
    wrong = [
        f"{name} in {counts.get(key, 0)} groups" for key, name in trained.items() if counts.get(key, 0) != 1
    ]
    wrong += [f"{len(counts.keys() - trained.keys())} parameters that are frozen"] * bool(
        counts.keys() - trained.keys()
    )
    if wrong:
        raise ValueError(f"parameter groups must hold every trained parameter once: {', '.join(wrong)}")


Shape = Literal["cosine", "constant"]
SHAPES: Mapping[Shape, Callable[[float], float]] = {
    "cosine": lambda progress: (1 + math.cos(math.pi * progress)) / 2,
    "constant": lambda progress: 1.0,
}
"""Share of the way from `final` to 1 that the rate is at, by progress in [0, 1] after warm-up."""


@dataclass(frozen=True)
class Schedule:
    """Learning rates: linear warm-up from `first` to 1 times `peak`, then `shape` down to `final` times it."""

    peak: float
    warmup_steps: int
    steps: int
    first: float
    final: float
    shape: Shape = "cosine"

    def rate(self, step: int) -> float:
        """Of step `step`, from 0."""
        if step < self.warmup_steps:
            return self.peak * (self.first + (1 - self.first) * step / self.warmup_steps)
        progress = (step - self.warmup_steps) / max(self.steps - self.warmup_steps, 1)
        return self.peak * (self.final + (1 - self.final) * SHAPES[self.shape](progress))


def clip_gradients(module: nn.Module, clip_norm: float | Literal["none"]) -> Tensor:
    """Scale gradients of a total norm above `clip_norm` down to it; "none": leave them. Returns the norm before."""
    weights = list(trained_parameters(module).values())
    norm = nn.utils.get_total_norm([weight.grad for weight in weights if weight.grad is not None])
    if clip_norm != "none":
        nn.utils.clip_grads_with_norm_(weights, clip_norm, norm)
    return norm


class MovingAverage:
    """Exponential moving average of the trained weights, updated after every step; empty with decay 0.

    The decay of step n is min(decay, (1 + n) / (10 + n)), so that a short run forgets its random start.
    """

    def __init__(self, module: nn.Module, decay: float) -> None:
        self.decay = decay
        self._weights = trained_parameters(module) if decay > 0 else {}
        self.tensors = {name: weight.detach().clone() for name, weight in self._weights.items()}

    @torch.no_grad()
    def update(self, step: int) -> None:
        """Take in the weights after step `step` (from 0)."""
        if self.tensors:
            decay = min(self.decay, (1 + step) / (10 + step))
            weights: list[Tensor] = list(self._weights.values())
            torch._foreach_lerp_(list(self.tensors.values()), weights, 1 - decay)

    @contextmanager
    def in_place(self) -> Iterator[None]:
        """The averages stand in the module meanwhile; nothing may be trained."""
        self._swap()
        try:
            yield
        finally:
            self._swap()

    @torch.no_grad()
    def _swap(self) -> None:
        for name, weight in self._weights.items():
            held = weight.detach().clone()
            weight.copy_(self.tensors[name])
            self.tensors[name].copy_(held)

    @torch.no_grad()
    def load(self, tensors: Mapping[str, Tensor]) -> None:
        """Go on from saved averages of the same names."""
        for name, average in self.tensors.items():
            average.copy_(tensors[name])
