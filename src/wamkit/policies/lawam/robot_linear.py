"""Linear layers with a matrix per robot, and which row of their tables a robot has (LaWAM spec 1.6, 2.4)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from wamkit_client.types import BadInput

from wamkit.nn.tables import Tables

HUMAN = 0
"""The row of human video: its samples have neither actions nor states as targets."""


class RobotRows(Tables):
    """Rows of a normaliser -> rows of the tables.

    named: (robot, row), where weights that exist fix them; (): rows 1, 2, ... in the order of `embodiments`, the
    normaliser's robots. rows: how many the tables have. Raises BadInput for a row that they do not have.
    """

    def __init__(self, named: Sequence[tuple[str, int]], embodiments: Sequence[str], rows: int) -> None:
        row_of = dict(named) or {name: 1 + i for i, name in enumerate(embodiments)}
        # A robot without a row is refused where a batch or an observation of it comes in: `expect`.
        table = [row_of.get(name, HUMAN) for name in embodiments]
        super().__init__(rows=torch.tensor(table, device="cpu"))
        self._row_of = row_of
        for robot, row in row_of.items():
            if not 0 <= row < rows:
                raise BadInput(
                    f"policy.robots: {robot!r} has row {row}, and the tables have rows 1 to {rows - 1} for robots and "
                    f"{HUMAN} for human video; name another row, or make larger tables"
                )

    def expect(self, robots: Sequence[str]) -> None:
        """BadInput for a robot without a row."""
        unknown = [name for name in robots if name not in self._row_of]
        if unknown:
            raise BadInput(
                f"policy.robots: robot {unknown[0]!r} has no row; expected one of {list(self._row_of)}. Give it a row "
                "of its own, or train on its data"
            )

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
    """x W + b with a W and a b for each row of the table. spread: standard deviation of new weights."""

    def __init__(self, robots: int, inputs: int, outputs: int, spread: float = 0.02) -> None:
        super().__init__()
        self.weight = nn.Parameter(spread * torch.randn(robots, inputs, outputs))
        self.bias = nn.Parameter(torch.zeros(robots, outputs))

    def of(self, robot: Int[Tensor, " b"]) -> Matrices:
        """Those of these rows."""
        return Matrices(self.weight[robot], self.bias[robot])

    def forward(self, x: Float[Tensor, "b *n i"], robot: Int[Tensor, " b"]) -> Float[Tensor, "b *n o"]:
        return self.of(robot)(x)
