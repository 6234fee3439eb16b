"""Training with torch.compile: the layers of a network one by one, so that all of a kind are compiled once.

A network without Layers (nn/layers.py) is compiled as a whole.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import nn
from wamkit_client.types import BadInput

from wamkit.nn.compiler import can_compile
from wamkit.nn.layers import Layers

REMEDY = "or train without --train.compile True"


def compiled(module: nn.Module) -> Callable[..., Any]:
    """What to call in place of `module`, whose layers are changed in place. BadInput where there is no compiler."""
    expect_compiler(next(module.parameters()).device)
    layers = [part for part in module.modules() if isinstance(part, Layers)]
    call = Compiled()
    for part in layers:
        part.call = call
    return module if layers else torch.compile(module)


class Compiled:
    """Calls functions of a layer, compiled where gradients are wanted."""

    def __init__(self) -> None:
        self._made: dict[Callable[..., Any], Callable[..., Any]] = {}

    def __call__(self, function: Callable[..., Any], *given: Any) -> Any:
        if not torch.is_grad_enabled():
            return function(*given)
        if function not in self._made:
            self._made[function] = torch.compile(function, dynamic=False)
        return self._made[function](*given)


def expect_compiler(device: torch.device) -> None:
    """BadInput where torch.compile cannot make code for a device."""
    if can_compile(device):
        return
    if device.type == "cuda":
        raise BadInput(f"train.compile: Triton does not work with this GPU; pip install triton, {REMEDY}")
    raise BadInput(f"train.compile: no C++ compiler is found; install g++ or set CXX, {REMEDY}")
