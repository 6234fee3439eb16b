"""The work that the released Light-WAM does for one chunk, on our policy's weights: the twin its passes are measured
against. Written from its description (Light-WAM spec 1.4-1.8, 5.1 and 6.1).

The low-rank additions are not merged, all blocks run though nothing reads those after the last tap, and the expert
projects every token and embeds every step anew. What a block does is in wan.py. Observations are answered one by one,
and the codec is ours as it is without passes: three-dimensional convolutions of a clip of one frame.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import cast

import torch
from torch import Tensor

from wamkit.bench.reference.wan import conditions, embed, one_by_one, run
from wamkit.policies.light_wam.policy import LightWAM
from wamkit.policies.light_wam.state_fusion import proprio_states
from wamkit.spans import Span
from wamkit.types import Actor, Query
from wamkit.wan.block import Block
from wamkit.wan.dit import WanDiT


def twin(policy: LightWAM) -> Actor:
    """What `policy.act` answers, by the official work."""

    @torch.inference_mode()
    def answer(query: Query) -> Tensor:
        context = policy.context(query.inputs, query.embodiment)
        with Span("blocks"):
            states = look(policy.dit, query.inputs["present"], context)
        taps = tuple(states[layer] for layer in policy.config.adapters.layers)
        with Span("expert"):
            given = (*taps, *proprio_states(policy.config.expert, policy.normalizer, query))
            unit = policy.expert(given, policy.data.horizon)  # all steps, however many are used
        return policy.normalizer.to_physical("action", unit.float(), query.embodiment)

    return one_by_one(answer)


def look(network: WanDiT, present: Tensor, context: Tensor) -> list[Tensor]:
    """The tokens [b s d] after every block and its adapter."""
    x, rotation = embed(network, present)
    t = torch.zeros(x.shape[1], dtype=x.dtype, device=x.device)
    given = conditions(network, t, context, rotation, keys=x.shape[1])
    states = []
    for block, adapter in zip(cast(Iterable[Block], network.blocks), network.adapters, strict=True):
        x = adapter(run(block, x, given, before=())[0])
        states.append(x)
    return states
