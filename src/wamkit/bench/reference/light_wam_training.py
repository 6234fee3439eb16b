"""The work that the released Light-WAM does for the losses of a batch, on our policy's weights: the twin that training
is measured against. Written from its description (Light-WAM spec 2 and 6.1).

Both passes embed the context and run all blocks, though nothing reads what the action pass computes after the last tap.
Time, modulation and masks are per token. What a block does is in wan.py.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import cast

import torch
from torch import Tensor

from wamkit.bench.reference.wan import Conditions, complex_table, run
from wamkit.draws import Draws
from wamkit.policies.light_wam.policy import LightWAM
from wamkit.types import Batch
from wamkit.wan.block import EMBEDDED_TIME_SCALE, Block
from wamkit.wan.dit import WanDiT, fold


@dataclass(frozen=True)
class Looked:
    """Tokens [b s d] after every block and its adapter, their embedded time [b s d], and their grid."""

    states: list[Tensor]
    time: Tensor
    grid: tuple[int, ...]


def losses(policy: LightWAM, batch: Batch, draws: Draws) -> Mapping[str, Tensor]:
    """What `policy` returns for the batch, by the official work (objective "cotrain")."""
    context = policy.context(batch.inputs, batch.embodiment)
    clip, present = policy.draw_noise(batch.inputs, draws), batch.inputs["present"]
    later = clip.t[:, None].expand(-1, clip.velocity.shape[2])
    times = torch.cat([torch.zeros_like(later[:, :1]), later], dim=1)  # b t
    velocity = head(policy.dit, look(policy.dit, clip.latents, times, context))[:, :, 1:]
    now = look(policy.dit, present, times[:, :1], context)
    taps = tuple(now.states[layer] for layer in policy.config.adapters.layers)
    return {
        "video": policy.video_loss(velocity, clip, batch),
        "action": policy.action_loss(taps, batch),
    }


def look(network: WanDiT, latents: Tensor, times: Tensor, context: Tensor) -> Looked:
    """All blocks. times: of every frame, [b t]; the first frame looks at itself alone."""
    patches = network.patch_embedding(latents.to(network.patch_embedding.weight.dtype))
    grid, x = tuple(patches.shape[2:]), patches.flatten(2).transpose(1, 2).contiguous()
    frame = grid[1] * grid[2]
    code = network.sinusoid(times.repeat_interleave(frame, dim=1) * EMBEDDED_TIME_SCALE)
    time = network.time_embedding(code.to(x.dtype))
    mask = torch.ones(x.shape[1], x.shape[1], dtype=torch.bool, device=x.device)
    mask[:frame, frame:] = False
    embedded = network.text_embedding(context.to(x.dtype))
    given = Conditions(
        modulation=network.time_projection(time).unflatten(-1, (6, -1)),
        context=embedded,
        rotation=complex_table(network.rotary([range(grid[0])], *grid[1:])),
        mask=mask,
        context_mask=torch.ones(1, 1, 1, embedded.shape[1], dtype=torch.bool, device=x.device),
    )
    states = []
    for block, adapter in zip(cast(Iterable[Block], network.blocks), network.adapters, strict=True):
        x = adapter(run(block, x, given, before=())[0])
        states.append(x)
    return Looked(states, time, grid)


def head(network: WanDiT, looked: Looked) -> Tensor:
    """Velocity [b c t h w], modulated per token."""
    shift, scale = (network.head.modulation + looked.time[..., None, :]).unbind(-2)
    patches = network.head.head(network.head.norm(looked.states[-1]) * (1 + scale) + shift)
    return fold(patches, looked.grid)
