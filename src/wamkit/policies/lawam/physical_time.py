"""How many action tokens a chunk has, and the code of when each is due, in seconds (LaWAM paper 3.3, spec 2.5, 2.6).

It is the only thing that orders the tokens, so one network can act at any control rate.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor
from wamkit_client.types import BadInput

from wamkit.nn.tables import Tables

LONGEST_PERIOD = 1e4  # of the code, against its shortest
INDEX_HZ = 20.0

TimeCode = Literal["seconds", "index", "none"]


@dataclass(frozen=True)
class Clock:
    """times: (token numbers [k], control rates [b]) -> what is encoded [b k]. amplitude: of the code."""

    times: Callable[[Tensor, Tensor], Tensor]
    amplitude: float = 1.0


def seconds(step: Float[Tensor, " k"], hz: Float[Tensor, " b"]) -> Float[Tensor, "b k"]:
    """When a token is due."""
    return step / hz[:, None]


def index(step: Float[Tensor, " k"], hz: Float[Tensor, " b"]) -> Float[Tensor, "b k"]:
    """The number of a token, as if every robot had the same control rate."""
    return (step / INDEX_HZ).expand(len(hz), -1)


# "index" tells order but not time; "none" leaves tokens without any order
CLOCKS: Mapping[TimeCode, Clock] = {
    "seconds": Clock(seconds),
    "index": Clock(index),
    "none": Clock(seconds, amplitude=0.0),
}


def tokens_of(chunk_seconds: float, hz: float) -> int:
    """Actions in a chunk: the whole steps of its length, in float32 as in the published code."""
    return int(np.float32(chunk_seconds) * np.float32(hz))


def valid_tokens(chunk_seconds: float, hz: Float[Tensor, " b"], tokens: int) -> Bool[Tensor, "b {tokens}"]:
    """Which of `tokens` tokens are actions at each control rate: `tokens_of`, without leaving the device."""
    count = (hz.float() * np.float32(chunk_seconds).item()).floor()
    return torch.arange(tokens, device=hz.device) < count[:, None]


class PhysicalTime(Tables):
    """Control rates -> the codes of a chunk's tokens.

    tokens: the most that a chunk may have. unit: seconds in which the fastest frequency turns by one radian; published:
    1, by which tokens of a short chunk differ little.
    """

    frequency: Tensor
    step: Tensor

    def __init__(self, width: int, tokens: int, clock: TimeCode, unit: float = 1.0) -> None:
        frequencies = width // 2
        k = torch.arange(frequencies, dtype=torch.float32, device="cpu")
        super().__init__(
            frequency=torch.exp(-math.log(LONGEST_PERIOD) * k / max(frequencies - 1, 1)) / unit,
            step=torch.arange(tokens, dtype=torch.float32, device="cpu"),
        )
        self.width, self.clock = width, CLOCKS[clock]

    def forward(self, hz: Float[Tensor, " b"], tokens: int) -> Float[Tensor, "b {tokens} width"]:
        """[sin(t w), cos(t w)] of the first `tokens` tokens; an odd width has a zero at its end."""
        if tokens > len(self.step):
            raise BadInput(
                f"a chunk of {tokens} actions: LaWAM's tokens end at {len(self.step)}; shorten data.chunk_seconds "
                "or lower data.hz"
            )
        angle = self.clock.times(self.step[:tokens], hz.float())[..., None] * self.frequency
        code = torch.cat([angle.sin(), angle.cos()], dim=-1)
        return self.clock.amplitude * F.pad(code, (0, self.width - code.shape[-1]))
