"""Networks of published width and what they are asked in published shapes, on any device, without encoders."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Literal

import torch
from torch import Tensor

from wamkit.bench.counting import work
from wamkit.flow import FlowTimes, Shift
from wamkit.policies.fast_wam.action_dit import ActionDiT
from wamkit.policies.fast_wam.policy import FastWAMConfig
from wamkit.policies.fast_wam.sampling import Noise
from wamkit.policies.fast_wam.variants import VARIANTS, Variant
from wamkit.policies.lawam.action_expert import ActionExpert, Condition, ExpertSize
from wamkit.policies.lawam.physical_time import tokens_of, valid_tokens
from wamkit.wan.dit import NO_ADAPTERS, WanDiT

META = torch.device("meta")


@dataclass(frozen=True)
class Networks:
    """What Fast-WAM's sampling needs of a policy (policies/fast_wam/sampling.py): no codec, no text encoder."""

    dit: WanDiT
    action: ActionDiT
    acting: Variant

    def times(self, network: Literal["video", "action"]) -> FlowTimes:
        """The published times."""
        return Shift().times("float32")

    @classmethod
    def build(cls, config: FastWAMConfig, layers: int, device: torch.device, dtype: torch.dtype) -> Networks:
        """Random weights for LIBERO's seven action dimensions."""
        config = replace(config, size=replace(config.size, layers=layers))
        with device:
            dit, action = WanDiT(config.size, NO_ADAPTERS), ActionDiT(config.action_size, 7)
        # rotary tables have values wherever a network is built; here they follow its weights
        return cls(dit.to(device, dtype), action.to(device, dtype), VARIANTS[config.variant])


def libero(networks: Networks, batch: int) -> tuple[Tensor, Tensor, Noise]:
    """Present, context and noise as on LIBERO: canvas 224x448, 128 rows of text and one of proprio, 32 actions."""
    device, frames = networks.action.head.weight.device, 0 if networks.acting.imagines == "nothing" else 2
    shapes = [(48, 1, 14, 28), (129, networks.dit.size.text_dim), (32, 7), (48, frames, 14, 28)]
    present, context, action, video = (torch.randn(batch, *shape, device=device) for shape in shapes)
    return present, context, Noise(action, video)


HZ, SECONDS = 20.0, 0.4  # of LaWAM on LIBERO
PROMPT, HIDDEN, PATCHES, FEATURES, ROBOTS = 220, 2048, 256, 768, 32


def expert_on(device: torch.device, dtype: torch.dtype, size: ExpertSize | None = None) -> ActionExpert:
    """LaWAM's, with random weights."""
    with device:
        expert = ActionExpert(size or ExpertSize(), HIDDEN, FEATURES, PATCHES, ROBOTS)
    return expert.to(device, dtype).eval()


def asked(expert: ActionExpert) -> tuple[Tensor, Condition]:
    """Noise and condition as on LIBERO, padded as the official program pads."""
    device, tokens = expert.null_subgoal.device, expert.size.tokens
    hidden, now, subgoal = (
        torch.randn(1, *shape, device=device)
        for shape in ((PROMPT, HIDDEN), (PATCHES, FEATURES), (PATCHES, FEATURES))
    )
    hz = torch.full((1,), HZ, device=device)
    condition = Condition(
        hidden=hidden,
        hidden_valid=torch.ones(1, PROMPT, dtype=torch.bool, device=device),
        now=now,
        subgoal=subgoal,
        hz=hz,
        valid=valid_tokens(SECONDS, hz, tokens),
        robot=torch.ones(1, dtype=torch.int64, device=device),
    )
    return torch.randn(1, tokens, expert.size.action_dim, device=device), condition


def without_padding(condition: Condition) -> Condition:
    """Of as many tokens as the chunk has actions."""
    return replace(condition, valid=condition.valid[:, : tokens_of(SECONDS, HZ)])


def operations(do: Callable[[], object]) -> int:
    """Of one call."""
    return work(do).operations


def flops(do: Callable[[], object]) -> int:
    """Of one call."""
    return work(do).flops
