"""A latent world model that can be checked by hand: features are patch colours, a latent action is added to all."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class ToyWorld:
    """gain: of what is added; 1 is exact where all patches change alike."""

    gain: float = 1.0
    view: str = "front"
    grid: tuple[int, int] = (2, 2)
    seconds: float = 0.5

    def features(self, frames: Tensor) -> Tensor:
        rows, columns = self.grid
        patches = frames.float().unflatten(2, (columns, -1)).unflatten(1, (rows, -1))
        return patches.mean(dim=(2, 4)).flatten(1, 2) / 255  # b s 3

    def infer(self, now: Tensor, later: Tensor) -> Tensor:
        return (later - now).mean(1)

    def information(self, now: Tensor, later: Tensor) -> Tensor:
        return self.infer(now, later).square() / 2  # of a normal distribution of variance 1 around it

    def step(self, now: Tensor, code: Tensor) -> Tensor:
        return now + self.gain * code[:, None]


def trajectory(colours: list[list[tuple[int, int, int]]]) -> Tensor:
    """Frames of 4 x 4 pixels with these colours of the four patches."""
    patches = torch.tensor(colours, dtype=torch.uint8).unflatten(1, (2, 2))  # t 2 2 3
    return patches.repeat_interleave(2, 1).repeat_interleave(2, 2)
