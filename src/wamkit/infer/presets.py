"""Presets of an engine: in what precision it acts, and what is done to encoder and policy so that they act sooner.

What can be done is a policy's own matter (`Policy.passes`, `Encoder.passes`). Every pass equals the plain computation
in real arithmetic; only `fast` and `small` also change the arithmetic, by precision and quantisation.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import torch

PresetName = Literal["plain", "exact", "fast", "small"]


@dataclass(frozen=True)
class Preset:
    """passes: all of encoder and policy are done, or none. precision: of the weights; None: as the run says.

    graphs: queries are replayed as CUDA graphs, where there is CUDA. quantised: weights of large products are stored
    in eight bits.
    """

    passes: bool
    precision: torch.dtype | None = None
    graphs: bool = False
    quantised: bool = False

    def chosen(self, passes: tuple[str, ...]) -> tuple[str, ...]:
        """Of the passes that there are."""
        return passes if self.passes else ()


PRESETS: Mapping[PresetName, Preset] = {
    "plain": Preset(passes=False),
    "exact": Preset(passes=True),
    "fast": Preset(passes=True, precision=torch.bfloat16, graphs=True),
    "small": Preset(passes=True, precision=torch.bfloat16, quantised=True),
}
