"""Read a golden file and collect relative errors by group."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor

FORWARD, LOSS, GRADIENT = 2e-6, 1e-5, 1e-4


@dataclass(frozen=True)
class Row:
    """One group: its largest relative error, the bound it must keep, how many tensors or numbers it has."""

    group: str
    error: float
    bound: float
    count: int

    @property
    def ok(self) -> bool:
        """Within the bound (NaN is not)."""
        return self.error <= self.bound


@dataclass
class Golden:
    """tensors by name; about: the JSON beside the file (config, losses, gradient norms)."""

    tensors: dict[str, Tensor]
    about: dict[str, Any]
    _rows: dict[str, Row] = field(default_factory=dict)

    @classmethod
    def read(cls, path: Path) -> Golden:
        """The safetensors file and the JSON of the same name."""
        return cls(load_file(path), json.loads(path.with_suffix(".json").read_text()))

    def section(self, prefix: str) -> dict[str, Tensor]:
        """Tensors whose name starts with `prefix`, without it."""
        return {name.removeprefix(prefix): x for name, x in self.tensors.items() if name.startswith(prefix)}

    def check(self, name: str, ours: Tensor, bound: float = FORWARD) -> None:
        """Compare with the tensor `name`; its group is the part before the slash."""
        self.record(name.split("/", maxsplit=1)[0], ours, self.tensors[name], bound)

    def record(self, group: str, ours: Tensor | float, golden: Tensor | float, bound: float) -> None:
        """Largest absolute difference over the largest golden value; an all-zero golden asks for exact zeros."""
        ours, golden = torch.as_tensor(ours).double(), torch.as_tensor(golden).double()
        assert ours.shape == golden.shape, f"{group}: got {tuple(ours.shape)}, golden {tuple(golden.shape)}"
        scale = float(golden.abs().max())
        difference = float((ours - golden).abs().max())
        error = difference / scale if scale else (0.0 if difference == 0 else float("inf"))
        row = self._rows.get(group, Row(group, 0.0, bound, 0))
        self._rows[group] = Row(group, max(row.error, error), bound, row.count + 1)

    @property
    def rows(self) -> list[Row]:
        """All groups compared so far."""
        return list(self._rows.values())
