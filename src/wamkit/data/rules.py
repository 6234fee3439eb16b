"""How one dimension is brought to unit range: a rule by name, each row of RULES the map `x * scale + offset`.

    min_max            the observed range becomes [-1, 1]; a dimension that does not move in the data (range below 1e-4)
                       is only shifted, never scaled: dividing by its range would blow noise up
    inverted_min_max   min_max with the other sign (the grippers of LaWAM spec 2.8 on RoboTwin)
    z_score            mean 0, standard deviation 1. It has no rule for still dimensions, because the released weights
                       were trained without one (Fast-WAM spec 4.3, 7.1): one is 0 at its mean and leaves the unit range
                       everywhere else
    binary             a gripper command: 1 above 0.5 and else 0; back, above 0.5, the largest command and else the
                       smallest (LaWAM spec 2.8, 6.1)
    quaternion         as it is; back, four numbers are brought to length 1 (LaWAM spec 2.8)

The last two are not linear; Binary and Quaternions do what a scale and an offset cannot.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Literal

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor
from wamkit_client.types import BadInput

from wamkit.data.statistics import STILL, Stats
from wamkit.nn.tables import Tables

Mode = Literal["min_max", "z_score"]
"""Rules that hold for a whole field."""

Exceptions = Mapping[int, str]
"""Dimension -> rule, where it is not that of the field."""

THRESHOLD = 0.5
Affine = tuple[np.ndarray, np.ndarray]


def min_max(stats: Stats) -> Affine:
    """Scale and offset [d]."""
    still = stats.max - stats.min < STILL
    scale = 2 / np.where(still, 2.0, stats.max - stats.min)
    return scale, np.where(still, -stats.min, -1 - scale * stats.min)


def inverted_min_max(stats: Stats) -> Affine:
    """Scale and offset [d]."""
    scale, offset = min_max(stats)
    return -scale, -offset


def z_score(stats: Stats) -> Affine:
    """Scale and offset [d]."""
    scale = 1 / (stats.std + 1e-8)
    return scale, -stats.mean * scale


def raw(stats: Stats) -> Affine:
    """Scale and offset [d]."""
    return np.ones_like(stats.min), np.zeros_like(stats.min)


RULES: Mapping[str, Callable[[Stats], Affine]] = {
    "min_max": min_max,
    "z_score": z_score,
    "inverted_min_max": inverted_min_max,
    "binary": raw,
    "quaternion": raw,
}


def scale_and_offset(stats: Stats, rule: str, exceptions: Exceptions) -> Affine:
    """[d] each: by `rule`, and by another one where there is an exception."""
    scale, offset = RULES[rule](stats)
    for dim, other in exceptions.items():
        own = RULES[other](stats)
        scale[dim], offset[dim] = own[0][dim], own[1][dim]
    return scale, offset


def expect_rules(name: str, width: int, exceptions: Exceptions) -> None:
    """BadInput, beginning with `name`, unless all are known rules of dimensions that there are."""
    for dim, rule in exceptions.items():
        if rule not in RULES or not 0 <= dim < width:
            raise BadInput(
                f"{name}: rule {rule!r} of dimension {dim}; expected one of {', '.join(RULES)} for dimensions 0 to "
                f"{width - 1}"
            )
    quaternions(name, exceptions)


def quaternions(name: str, exceptions: Exceptions) -> list[list[int]]:
    """The dimensions of each quaternion. BadInput, beginning with `name`, where they do not come in fours."""
    dims = sorted(dim for dim, rule in exceptions.items() if rule == "quaternion")
    fours = [dims[i : i + 4] for i in range(0, len(dims), 4)]
    for four in fours:
        if four != list(range(four[0], four[0] + 4)):
            raise BadInput(
                f"{name}: a quaternion is four dimensions in a row, w, x, y, z; got dimensions {four}"
            )
    return fours


class Binary(Tables):
    """Dimensions of rule "binary", by embodiment.

    at: where. low, high: the commands that 0 and 1 stand for, in physical units; all [embodiments d].
    """

    at: Tensor
    low: Tensor
    high: Tensor

    @classmethod
    def of(cls, stats: Sequence[Stats], exceptions: Sequence[Exceptions], width: int) -> Binary:
        """Of these embodiments."""
        at = torch.zeros(len(stats), width, dtype=torch.bool, device="cpu")
        low, high = torch.zeros(2, len(stats), width, device="cpu")
        for row, (own, rules) in enumerate(zip(stats, exceptions, strict=True)):
            for dim in (dim for dim, rule in rules.items() if rule == "binary"):
                at[row, dim], low[row, dim], high[row, dim] = True, own.min[dim], own.max[dim]
        return cls(at=at, low=low, high=high)

    def to_unit(
        self, x: Float[Tensor, "b *_ d"], unit: Float[Tensor, "b *_ d"], embodiment: Int[Tensor, " b"]
    ) -> Float[Tensor, "b *_ d"]:
        """`unit` with 0 or 1 in its dimensions; x: the same in physical units."""
        command = (x > THRESHOLD).to(unit.dtype)
        return torch.where(rows(self.at, x, embodiment), command, unit)

    def to_physical(
        self, unit: Float[Tensor, "b *_ d"], x: Float[Tensor, "b *_ d"], embodiment: Int[Tensor, " b"]
    ) -> Float[Tensor, "b *_ d"]:
        """`x` with one of both commands in its dimensions; unit: the same in unit range."""
        low, high = rows(self.low, x, embodiment), rows(self.high, x, embodiment)
        command = torch.where(unit > THRESHOLD, high, low).to(x.dtype)
        return torch.where(rows(self.at, x, embodiment), command, x)


class Quaternions(Tables):
    """Dimensions of rule "quaternion", by embodiment.

    at: where, [embodiments d]. members: of each dimension, the four of its quaternion, [embodiments d 4].
    """

    at: Tensor
    members: Tensor

    @classmethod
    def of(cls, stats: Sequence[Stats], exceptions: Sequence[Exceptions], width: int) -> Quaternions:
        """Of these embodiments."""
        at = torch.zeros(len(stats), width, dtype=torch.bool, device="cpu")
        members = torch.zeros(len(stats), width, 4, dtype=torch.int64, device="cpu")
        for row, rules in enumerate(exceptions):
            for four in quaternions("normalizer", rules):
                at[row, four], members[row, four] = True, torch.tensor(four, device="cpu")
        return cls(at=at, members=members)

    def to_unit(
        self, x: Float[Tensor, "b *_ d"], unit: Float[Tensor, "b *_ d"], embodiment: Int[Tensor, " b"]
    ) -> Float[Tensor, "b *_ d"]:
        """`unit`."""
        return unit

    def to_physical(
        self, unit: Float[Tensor, "b *_ d"], x: Float[Tensor, "b *_ d"], embodiment: Int[Tensor, " b"]
    ) -> Float[Tensor, "b *_ d"]:
        """`x` with quaternions of length 1."""
        members = rows(self.members.flatten(1), x, embodiment).expand(*x.shape[:-1], -1)
        length = x.gather(-1, members).unflatten(-1, (-1, 4)).square().sum(-1).sqrt()
        return torch.where(rows(self.at, x, embodiment), x / length.clamp_min(1e-8), x)


CORRECTIONS: Mapping[str, type[Binary] | type[Quaternions]] = {"binary": Binary, "quaternion": Quaternions}
"""What a rule does beside its scale and offset."""


def corrections(
    stats: Sequence[Stats], exceptions: Sequence[Exceptions], width: int
) -> list[Binary | Quaternions]:
    """Those that the rules of these embodiments need."""
    used = {rule for rules in exceptions for rule in rules.values()}
    return [kind.of(stats, exceptions, width) for rule, kind in CORRECTIONS.items() if rule in used]


def rows(table: Tensor, x: Tensor, embodiment: Int[Tensor, " b"]) -> Tensor:
    """Each sample's row of a table [embodiments d], as it broadcasts against x [b ... d]."""
    return table[embodiment].view(len(x), *(1,) * (x.ndim - 2), -1)
