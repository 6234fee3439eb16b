"""A latent world model run open-loop: its own predictions are what it predicts from (LaWAM paper section 4, spec 6.5).

Trajectories are frames one horizon apart. Latent actions come from pairs of true frames, so what is measured is how
predictions drift, and the baselines say how much of the agreement the latent actions are responsible for.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from wamkit.analysis.similarity import PATCHES, Mean, averaged, cosine, interval
from wamkit.foresight import WorldModel

Frames = Callable[[int], Tensor]
"""Trajectory i as uint8 frames [j + 1, h, w, 3]."""

CODES = {
    "inferred": "latent actions of the trajectory itself",
    "zero": "zero latent actions",
    "mean": "the mean latent action",
    "shuffled": "latent actions of another trajectory",
}
CURVES = {
    **{name: f"rollout and truth: {about}" for name, about in CODES.items()},
    "one step": "one step from the true frame before, and truth",
    "still": "first frame and truth: nothing moves",
    "drift": "rollout and first frame",
}
"""Cosines that are measured at every step, by name."""


@dataclass(frozen=True)
class Rollouts:
    """values: by patches, curve and step, one number per trajectory that is long enough."""

    values: Mapping[str, Mapping[str, Sequence[Sequence[float]]]]

    def remaining(self) -> list[int]:
        """Trajectories that are left at each step."""
        return [len(step) for step in self.values["all"]["still"]]

    def curves(self, least: int, seed: int) -> dict[str, dict[str, list[Mean]]]:
        """By patches and name; they end where fewer than `least` trajectories are left."""
        return {
            patches: {
                name: [interval(step, seed) for step in steps if len(step) >= least]
                for name, steps in own.items()
            }
            for patches, own in self.values.items()
        }


def codes_of(world: WorldModel, frames: Tensor) -> Float[Tensor, "j e"]:
    """The latent actions between each frame and the next."""
    u = world.features(frames)
    return world.infer(u[:-1], u[1:])


def roll_out(
    world: WorldModel, frames: Frames, codes: Sequence[Float[Tensor, "_ e"]], advance: Callable[[int], None]
) -> Rollouts:
    """All trajectories. codes: of each; a trajectory of j codes has j + 1 frames."""
    longest = max(map(len, codes))
    values: dict[str, dict[str, list[list[float]]]] = {
        patches: {name: [[] for _ in range(longest)] for name in CURVES} for patches in PATCHES
    }
    mean = torch.cat(list(codes)).mean(0)
    for i, own in enumerate(codes):
        others = codes[(i + 1) % len(codes)]
        given = {
            "inferred": own,
            "zero": torch.zeros_like(own),
            "mean": mean.expand_as(own),
            "shuffled": others[torch.arange(len(own)) % len(others)],
        }
        for patches, curves in _trajectory(world, world.features(frames(i)), given).items():
            for name, steps in curves.items():
                for j, value in enumerate(steps.tolist()):
                    values[patches][name][j].append(value)
        advance(1)
    return Rollouts(values)


def _trajectory(
    world: WorldModel, u: Float[Tensor, "_ s d"], codes: Mapping[str, Float[Tensor, "j e"]]
) -> dict[str, dict[str, Float[Tensor, " j"]]]:
    """Every curve of one trajectory, by patches."""
    later = u[1:]
    still = cosine(later, u[:1].expand_as(later))
    rolled = _rolled(world, u[0], torch.stack(list(codes.values())))
    alike = {name: cosine(own, later) for name, own in zip(codes, rolled, strict=True)}
    alike["one step"] = cosine(world.step(u[:-1], codes["inferred"]), later)
    alike["still"] = still
    alike["drift"] = cosine(rolled[0], u[:1].expand_as(later))
    means = {name: averaged(own, still) for name, own in alike.items()}
    return {patches: {name: own[patches].cpu() for name, own in means.items()} for patches in PATCHES}


def _rolled(
    world: WorldModel, first: Float[Tensor, "s d"], codes: Float[Tensor, "n j e"]
) -> Float[Tensor, "n j s d"]:
    """From one frame on, with each of n sequences of latent actions."""
    x, steps = first.expand(len(codes), -1, -1), []
    for code in codes.unbind(1):
        x = world.step(x, code)
        steps.append(x)
    return torch.stack(steps, dim=1)
