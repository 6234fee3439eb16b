"""Low-rank adaptation of Linear layers: y = W x + b + (alpha / rank) Up(Down(x)).

A LoRALinear is a Linear that keeps the keys `weight` and `bias`; it is put in place of named layers from outside,
and the model that contains it does not know. Light-WAM spec 1.5.
"""

from __future__ import annotations

import math
from typing import cast

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn


class LoRALinear(nn.Linear):
    """A Linear with a trainable low-rank addition; the addition is zero at the start (Up = 0)."""

    def __init__(self, in_features: int, out_features: int, rank: int, alpha: float) -> None:
        super().__init__(in_features, out_features)
        self.scale = alpha / rank
        self.lora_down = nn.Linear(in_features, rank, bias=False)
        self.lora_up = nn.Linear(rank, out_features, bias=False)
        nn.init.kaiming_uniform_(self.lora_down.weight, a=math.sqrt(5))
        nn.init.zeros_(self.lora_up.weight)

    def forward(self, x: Float[Tensor, "... i"]) -> Float[Tensor, "... o"]:
        return F.linear(x, self.weight, self.bias) + self.scale * self.lora_up(self.lora_down(x))

    def merged(self) -> nn.Linear:
        """A plain Linear with the addition folded in (in float32, then cast): for inference."""
        plain = nn.Linear(
            self.in_features, self.out_features, device=self.weight.device, dtype=self.weight.dtype
        )
        delta = self.lora_up.weight.float() @ self.lora_down.weight.float()
        with torch.no_grad():
            plain.weight.copy_(self.weight.float() + self.scale * delta)
            plain.bias.copy_(self.bias)
        return plain


def add_lora(model: nn.Module, names: tuple[str, ...], rank: int, alpha: float) -> None:
    """Put a LoRALinear in place of every named Linear of `model`, keeping its weights."""
    for name in names:
        parent, _, child = name.rpartition(".")
        base = cast(nn.Linear, model.get_submodule(name))
        with torch.device(base.weight.device):
            lora = LoRALinear(base.in_features, base.out_features, rank, alpha).to(base.weight.dtype)
        lora.weight, lora.bias = base.weight, base.bias
        setattr(model.get_submodule(parent), child, lora)


def merge_lora(model: nn.Module) -> None:
    """Replace every LoRALinear of `model` by its merged Linear."""
    for name, module in list(model.named_modules()):
        if isinstance(module, LoRALinear):
            parent, _, child = name.rpartition(".")
            setattr(model.get_submodule(parent), child, module.merged())
