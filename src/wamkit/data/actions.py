"""What each action dimension means, and which actions pad a chunk after an episode's end.

It does not know about normalisation: everything here is in physical units.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import groupby
from typing import Literal

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from wamkit_client.types import BadInput

Kind = Literal["delta", "absolute", "gripper", "rotation", "quaternion"]
WIDTHS = {"rotation": 3, "quaternion": 4}
"""Kinds that come in groups of dimensions."""
RELATIVE = ("delta", "rotation")
"""Kinds that are relative to where the robot is."""


@dataclass(frozen=True)
class ActionSpace:
    """One name and one kind per action dimension.

    names: of the dimensions. kinds: delta, absolute, gripper, rotation or quaternion, for each:
    delta: a displacement; zero means stay.
    absolute: a target; repeating it means stay.
    gripper: an opening or a closing command; repeating it means hold.
    rotation: three dimensions, a turn as axis times angle in radians; zero means stay.
    quaternion: four dimensions w, x, y, z, an orientation as a target; repeating it means stay.
    """

    names: tuple[str, ...]
    kinds: tuple[Kind, ...]

    def __post_init__(self) -> None:
        if len(self.names) != len(self.kinds):
            raise BadInput(
                f"action space: {len(self.names)} names but {len(self.kinds)} kinds; give one each"
            )
        for kind, dims in self.runs():
            if len(dims) % WIDTHS.get(kind, 1):
                raise BadInput(
                    f"action space: {len(dims)} dimensions of kind {kind!r} in a row, from {self.names[dims.start]!r} "
                    f"on; expected a multiple of {WIDTHS[kind]}"
                )

    def __len__(self) -> int:
        return len(self.names)

    @property
    def relative(self) -> tuple[int, ...]:
        """Dimensions that are displacements and turns, relative to where the robot is."""
        return tuple(dim for dim, kind in enumerate(self.kinds) if kind in RELATIVE)

    def runs(self) -> Iterator[tuple[Kind, range]]:
        """Dimensions in a row that are of one kind."""
        first = 0
        for kind, run in groupby(self.kinds):
            end = first + len(list(run))
            yield kind, range(first, end)
            first = end


def pad_actions(
    actions: Float[Tensor, "k a"], is_pad: Bool[Tensor, " k"], space: ActionSpace
) -> Float[Tensor, "k a"]:
    """Actions whose padded steps mean "stay": what is relative becomes 0, everything else repeats the last real action.

    Done in physical units, before normalisation: a normalised 0 would mean "the average displacement".
    Raises ValueError where every step is padded or the width differs from the space.
    """
    if actions.shape[-1] != len(space):
        raise ValueError(f"actions have {actions.shape[-1]} dimensions, the action space names {len(space)}")
    real = (~is_pad).nonzero()
    if len(real) == 0:
        raise ValueError("every action of the chunk is padding; a window begins at a real step")
    is_delta = torch.tensor([kind in RELATIVE for kind in space.kinds], device=actions.device)
    stay = torch.where(is_delta, torch.zeros_like(actions[0]), actions[real[-1, 0]])
    return torch.where(is_pad[:, None], stay, actions)
