"""Several actions as one that does the same, for data at a lower rate (LaWAM spec 6.7).

    delta                           the sum
    rotation                        the product, later turns on the left: turns are about axes of the robot's base, as
                                    robosuite's controllers take them
    absolute, gripper, quaternion   the last

It knows what dimensions mean, in physical units; not where actions come from.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from jaxtyping import Float
from torch import Tensor

from wamkit.data.actions import ActionSpace, Kind, pad_actions


def composed(
    actions: Float[Tensor, "m a"], by: int, space: ActionSpace, radians: float
) -> Float[Tensor, "n a"]:
    """One action for every `by` of an episode; where the last ones are fewer, the robot stays for the rest.

    radians: of a rotation of length 1.
    """
    missing = -len(actions) % by
    whole = torch.cat([actions, actions.new_zeros(missing, actions.shape[1])]).double()
    is_pad = torch.arange(len(whole)) >= len(actions)
    groups = pad_actions(whole, is_pad, space).unflatten(0, (-1, by))
    result = groups[:, -1].clone()
    for kind, dims in space.runs():
        unit = radians if kind == "rotation" else 1.0
        result[:, dims] = COMPOSED[kind](groups[:, :, dims] * unit) / unit
    return result.to(actions.dtype)


def total(groups: Float[Tensor, "n by d"]) -> Float[Tensor, "n d"]:
    """The sum."""
    return groups.sum(dim=1)


def last(groups: Float[Tensor, "n by d"]) -> Float[Tensor, "n d"]:
    """The last."""
    return groups[:, -1]


def turned(groups: Float[Tensor, "n by d"]) -> Float[Tensor, "n d"]:
    """The product of turns, axis times angle, each three dimensions; of both ways around, the shorter."""
    turns = to_quaternion(groups.unflatten(-1, (-1, 3)))  # n by rotations 4
    whole = turns[:, 0]
    for step in range(1, turns.shape[1]):
        whole = product(turns[:, step], whole)
    return from_quaternion(whole).flatten(1)


COMPOSED: Mapping[Kind, Callable[[Tensor], Tensor]] = {
    "delta": total,
    "rotation": turned,
    "absolute": last,
    "gripper": last,
    "quaternion": last,
}


def to_quaternion(turn: Float[Tensor, "*b 3"]) -> Float[Tensor, "*b 4"]:
    """Axis times angle -> w, x, y, z."""
    half = turn.norm(dim=-1, keepdim=True) / 2
    return torch.cat([half.cos(), turn / 2 * torch.sinc(half / torch.pi)], dim=-1)


def from_quaternion(quaternion: Float[Tensor, "*b 4"]) -> Float[Tensor, "*b 3"]:
    """The inverse, with an angle from 0 to pi."""
    shorter = torch.where(quaternion[..., :1] < 0, -quaternion, quaternion)
    w, axis = shorter[..., :1], shorter[..., 1:]
    sine = axis.norm(dim=-1, keepdim=True)
    return axis * torch.where(sine < 1e-12, 2.0, 2 * torch.atan2(sine, w) / sine.clamp_min(1e-12))


def product(a: Float[Tensor, "*b 4"], b: Float[Tensor, "*b 4"]) -> Float[Tensor, "*b 4"]:
    """The turn b, and then a."""
    w, v = a[..., :1], a[..., 1:]
    other, u = b[..., :1], b[..., 1:]
    real = w * other - (v * u).sum(dim=-1, keepdim=True)
    return torch.cat([real, w * u + other * v + torch.linalg.cross(v, u)], dim=-1)
