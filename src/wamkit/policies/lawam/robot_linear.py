"""Linear layers with a matrix per robot, and which row of their tables a robot has (LaWAM spec 1.6, 2.4)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from wamkit_client.types import BadInput

from wamkit.bounds import Bound, check
from wamkit.nn.tables import Tables

HUMAN = 0
"""The row of human video: its samples have neither actions nor states as targets."""


@dataclass(frozen=True)
class Robots:
    """Rows of the tables of robots.

    rows: how many there are, published: 32. named: (robot, row), where weights that exist fix them; (): rows 1, 2, ...
    in the order of the run's normaliser. Row 0 is human video.
    """

    rows: int = 32
    named: tuple[tuple[str, int], ...] = ()

    def __post_init__(self) -> None:
        check("policy.robots", self, {"rows": Bound("at least 2", lambda rows: rows >= 2)})
        for robot, row in self.named:
            if not 0 <= row < self.rows:
                raise BadInput(
                    f"policy.robots.named: {robot!r} has row {row}; expected 0 (human video) to {self.rows - 1}"
                )

    def rows_of(self, embodiments: Sequence[str]) -> RobotRows:
        """The rows of a normaliser's robots. BadInput for a robot without one, or for more robots than rows."""
        rows = dict(self.named) if self.named else {name: 1 + i for i, name in enumerate(embodiments)}
        unknown = [name for name in embodiments if name not in rows]
        if unknown:
            raise BadInput(
                f"policy.robots.named: robot {unknown[0]!r} of the data has no row; expected one of {list(rows)}. "
                "Give it a row of its own, from 1"
            )
        if max(rows.values()) >= self.rows:
            raise BadInput(
                f"policy.robots.rows: {len(rows)} robots and human video need {len(rows) + 1} rows, got {self.rows}"
            )
        return RobotRows([rows[name] for name in embodiments])


class RobotRows(Tables):
    """Rows of a normaliser -> rows of the tables."""

    def __init__(self, rows: Sequence[int]) -> None:
        super().__init__(rows=torch.tensor(rows, device="cpu"))

    def forward(self, embodiment: Int[Tensor, " b"]) -> Int[Tensor, " b"]:
        """See above."""
        return self.get_buffer("rows")[embodiment]


@dataclass(frozen=True)
class Matrices:
    """The matrices of a batch of robots; a sampler selects them once for all of its steps."""

    weight: Float[Tensor, "b i o"]
    bias: Float[Tensor, "b o"]

    def __call__(self, x: Float[Tensor, "b *n i"]) -> Float[Tensor, "b *n o"]:
        rows = x.reshape(len(x), -1, x.shape[-1])
        return torch.baddbmm(self.bias[:, None], rows, self.weight).reshape(*x.shape[:-1], -1)


class RobotLinear(nn.Module):
    """x W + b with a W and a b for each row of the table."""

    def __init__(self, robots: int, inputs: int, outputs: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(0.02 * torch.randn(robots, inputs, outputs))
        self.bias = nn.Parameter(torch.zeros(robots, outputs))

    def of(self, robot: Int[Tensor, " b"]) -> Matrices:
        """Those of these rows."""
        return Matrices(self.weight[robot], self.bias[robot])

    def forward(self, x: Float[Tensor, "b *n i"], robot: Int[Tensor, " b"]) -> Float[Tensor, "b *n o"]:
        return self.of(robot)(x)
