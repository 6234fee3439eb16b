"""The work that the released Fast-WAM does for one chunk, on our policy's weights: the twin its passes are measured
against. Written from its description (Fast-WAM spec 1.2-1.4, 3.1, 6), for variants that imagine nothing.

Every step embeds text and time again. Time and sample are rounded to the weights' dtype. The present's pass runs every
block to its end. What a block does is in wan.py. Observations are answered one by one, and the codec is ours as it is
without passes.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import cast

import torch
from torch import Tensor
from wamkit_client.types import BadInput

from wamkit.bench.reference.wan import complex_table, conditions, embed, one_by_one, run
from wamkit.flow import FlowTimes
from wamkit.nn.attention import KV
from wamkit.policies.fast_wam.action_dit import ActionDiT
from wamkit.policies.fast_wam.policy import FastWAM
from wamkit.policies.fast_wam.sampling import Networks, Noise, Sample
from wamkit.spans import Span
from wamkit.types import Actor, Query
from wamkit.wan.block import Block
from wamkit.wan.dit import WanDiT


def twin(policy: FastWAM) -> Actor:
    """What `policy.act` answers, by the official work. BadInput for a variant that imagines the future."""
    if policy.acting.imagines != "nothing":
        raise BadInput(
            f"policy.variant: there is no twin of {policy.acting.title}, which imagines the future; "
            "measure it without --reference"
        )

    @torch.inference_mode()
    def answer(query: Query) -> Tensor:
        present = query.inputs["present"]
        context = policy.context(query.inputs, query.embodiment)
        noise = policy.draw_noise(present, query.generators)
        unit = sample(policy, present, context, noise, policy.config.sample_steps).action
        return policy.normalizer.to_physical("action", unit, query.embodiment)

    return one_by_one(answer)


@torch.inference_mode()
def sample(policy: Networks, present: Tensor, context: Tensor, noise: Noise, steps: int) -> Sample:
    """present [b c 1 h w], context [b l text] -> a chunk."""
    with Span("blocks"):
        memory = prefill(policy.dit, present, context)
    with Span("expert"):
        chunk = act(policy.action, memory, context, noise.action, policy.times("action"), steps)
    return Sample(chunk, noise.video)


@torch.inference_mode()
def prefill(network: WanDiT, present: Tensor, context: Tensor) -> list[KV]:
    """Keys and values of the present in every block."""
    x, rotation = embed(network, present)
    t = torch.zeros(x.shape[1], dtype=x.dtype, device=x.device)
    given = conditions(network, t, context, rotation, keys=x.shape[1])
    memory = []
    for block in cast(Iterable[Block], network.blocks):
        x, kv = run(block, x, given, before=())
        memory.append(kv)
    return memory


@torch.inference_mode()
def act(
    network: ActionDiT, memory: list[KV], context: Tensor, noise: Tensor, flow: FlowTimes, steps: int
) -> Tensor:
    """The chunk, from keys and values of the present."""
    dtype, keys = network.head.weight.dtype, memory[0].k.shape[2] + noise.shape[1]
    rotation = complex_table(network.rotary(noise.shape[1]))
    x = noise.to(dtype)
    grid = flow.grid(steps).to(x.device)
    for t, stride in zip(grid.times[:-1], grid.strides, strict=True):
        tokens, now = network.action_encoder(x), t[None].to(dtype)
        given = conditions(network, now, context, rotation, keys)
        for block, known in zip(cast(Iterable[Block], network.blocks), memory, strict=True):
            tokens, _ = run(block, tokens, given, before=(known,))
        x = x + flow.velocity(network.head(tokens), x, now) * stride.to(dtype)
    return x.float()
