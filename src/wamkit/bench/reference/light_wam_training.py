"""The work that the released Light-WAM does for the losses of a batch, on our policy's weights: the twin that training
is measured against. Written from its description (Light-WAM spec 2 and 6.1).

Both passes embed the context and run all blocks, though nothing reads what the action pass computes after the last tap.
How a clip enters the blocks is in wan_training.py, what a block does in wan.py.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import cast

import torch
from torch import Tensor

from wamkit.bench.reference.wan import run
from wamkit.bench.reference.wan_training import Clip, dense, embed_clip, head
from wamkit.draws import Draws
from wamkit.nn.attention import FIRST_FRAME_CAUSAL, only
from wamkit.policies.light_wam.policy import LightWAM
from wamkit.types import Batch
from wamkit.wan.block import Block
from wamkit.wan.dit import PATCH, WanDiT


def losses(policy: LightWAM, batch: Batch, draws: Draws) -> Mapping[str, Tensor]:
    """What `policy` returns for the batch, by the official work (objective "cotrain")."""
    network, context = policy.dit, policy.context(batch.inputs, batch.embodiment)
    noised, present = policy.draw_noise(batch.inputs, draws), batch.inputs["present"]
    later = noised.t[:, None].expand(-1, noised.target.shape[2])
    times = torch.cat([torch.zeros_like(later[:, :1]), later], dim=1)  # b t
    clip = embed(network, noised.latents, times, context)
    velocity = head(network, look(network, clip)[-1], clip)[:, :, 1:]
    now = look(network, embed(network, present, times[:, :1], context))
    taps = tuple(now[layer] for layer in policy.config.adapters.layers)
    return {
        "video": policy.video_loss(velocity, noised, batch),
        "action": policy.action_loss(taps, batch, draws),
    }


def embed(network: WanDiT, latents: Tensor, times: Tensor, context: Tensor) -> Clip:
    """times: of every frame, [b t]; the first frame sees itself alone."""
    frames, *pixels = latents.shape[2:]
    frame = pixels[0] * pixels[1] // PATCH**2
    sizes = {"present": frame} | ({"future": (frames - 1) * frame} if frames > 1 else {})
    mask = dense(only(FIRST_FRAME_CAUSAL, sizes), sizes, latents.device)
    return embed_clip(network, latents, times, context, [range(1), range(1, frames)], mask)


def look(network: WanDiT, clip: Clip) -> list[Tensor]:
    """Tokens [b s d] after every block and its adapter."""
    x, states = clip.tokens, []
    for block, adapter in zip(cast(Iterable[Block], network.blocks), network.adapters, strict=True):
        x = adapter(run(block, x, clip.given, before=())[0])
        states.append(x)
    return states
