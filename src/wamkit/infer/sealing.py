"""Weights that do not change any more: what was computed from them stays right, because whatever would change them is
refused.

An actor has copies of a policy's weights and shares others with it. A policy that moved, or got other weights, would
leave it with half of each.
"""

from __future__ import annotations

import copy
from typing import Any, TypeVar, cast

import torch
from torch import nn
from wamkit_client.types import BadInput

P = TypeVar("P")

CHANGED = (
    "this policy acts already, with copies of its weights that would stay as they were, so {what}; load the run "
    "directory again, on the device and in the precision it is to act in"
)


def seal(policy: Any) -> None:
    """Refuse from now on, by BadInput, to move or cast `policy`, or to load other weights into it."""
    module = cast(nn.Module, policy)
    if "_apply" not in vars(module):
        vars(module)["_apply"] = _refuse_move  # what .to(), .cuda() and .half() call
        module.register_load_state_dict_pre_hook(_refuse_weights)


def _refuse_move(*given: Any) -> nn.Module:
    raise BadInput(CHANGED.format(what="it cannot be moved or cast"))


def _refuse_weights(*given: Any) -> None:
    raise BadInput(CHANGED.format(what="no other weights can be loaded into it"))


def weightless(policy: P) -> P:
    """A copy of a policy that has its buffers and, in place of its weights, their shapes on the meta device."""
    module = cast(nn.Module, policy)
    # what deepcopy finds in its memo it does not copy
    memo: dict[int, object] = {id(buffer): buffer for buffer in module.buffers()}
    for parameter in module.parameters():
        memo[id(parameter)] = nn.Parameter(torch.empty_like(parameter, device="meta"), requires_grad=False)
    return copy.deepcopy(policy, memo)
