"""Presets of an engine: in what precision it acts, and what is done to encoder and policy so that they act sooner.

What can be done is a policy's own matter (`Policy.passes`, `Encoder.passes`). Every pass equals the plain computation
in real arithmetic; `fast` also changes the precision, and those below it the weights, which are quantised once passes
have made of them what they make.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import torch

PresetName = Literal["plain", "exact", "compiled", "fast", "small", "int8", "float8_weights", "float8"]


@dataclass(frozen=True)
class Preset:
    """passes: all of encoder and policy are done, or none.

    precision: of the weights; None: as the run says. compiled: the policy's work is done by compiled programs
    (infer/compiled.py). graphs: queries are replayed as CUDA graphs, where there is CUDA.
    packed: on a processor, large layers are laid out for it (nn/packed.py).
    weights: of the policy's large products.
    """

    passes: bool
    precision: torch.dtype | None = None
    compiled: bool = False
    graphs: bool = False
    packed: bool = False
    weights: Literal["stored", "int8", "int8_inputs", "float8_weights", "float8"] = "stored"

    def chosen(self, passes: tuple[str, ...]) -> tuple[str, ...]:
        """Of the passes that there are."""
        return passes if self.passes else ()


PRESETS: Mapping[PresetName, Preset] = {
    "plain": Preset(passes=False),
    "exact": Preset(passes=True),
    "compiled": Preset(passes=True, compiled=True, graphs=True),
    "fast": Preset(passes=True, precision=torch.bfloat16, graphs=True, packed=True),
    "small": Preset(passes=True, precision=torch.bfloat16, graphs=True, weights="int8"),
    "int8": Preset(passes=True, precision=torch.bfloat16, weights="int8_inputs"),
    "float8_weights": Preset(passes=True, precision=torch.bfloat16, graphs=True, weights="float8_weights"),
    "float8": Preset(passes=True, precision=torch.bfloat16, graphs=True, weights="float8"),
}
