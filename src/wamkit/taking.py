"""How an actor comes by the weights that it is made of: it shares those of a policy, or takes them away from it.

A pass makes other weights of a policy's, or uses them as they are. Where nobody needs the policy afterwards, its parts
are taken one by one to the device and the precision that they act in, and of each the policy keeps the shape alone. So
never more than one part is there twice, and what no pass asks for is never moved.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

import torch
from torch import nn

M = TypeVar("M", bound=nn.Module)


Become = Callable[[Any], Any]  # of modules, each of which becomes one of its kind


@dataclass(frozen=True)
class Take:
    """What becomes of the modules of a policy before they act. None is asked for twice.

    part: of one that a pass makes something else of. layer: of a Linear layer that a pass has made, or that is used as
    it is and stood in a part. network: of a whole one that is used as it is, or nearly.
    """

    part: Become
    layer: Become
    network: Become


def _itself(module: M) -> M:
    return module


SHARED = Take(part=_itself, layer=_itself, network=_itself)
"""The policy lies where it acts, and goes on living."""


def taken(device: torch.device, precision: torch.dtype) -> Take:
    """To `device`, in `precision`; tables and statistics keep theirs. Parameters of what it was made of are on the meta
    device from then on, its buffers stay."""

    def part(old: M) -> M:
        # what deepcopy finds in its memo it does not copy
        memo: dict[int, object] = {id(buffer): buffer.to(device) for buffer in old.buffers()}
        for parameter in old.parameters():
            assert not parameter.is_meta, f"{type(old).__name__}: its weights have been taken already"
            moved = parameter.detach().to(device, precision)
            memo[id(parameter)] = nn.Parameter(moved, parameter.requires_grad)
        new: M = copy.deepcopy(old, memo)
        for module in old.modules():
            for name, parameter in module.named_parameters(recurse=False):
                shape = torch.empty_like(parameter, device="meta")
                setattr(module, name, nn.Parameter(shape, requires_grad=False))
        return new

    return Take(part=part, layer=_itself, network=part)
