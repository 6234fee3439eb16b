"""The work that the released Fast-WAM does for the losses of a batch, on our policy's weights: the twin that training
is measured against. Written from its description (Fast-WAM spec 1.4, 2, 3.2 and 6.5).

Queries, keys and values of both networks are joined in every block and attend under one dense mask. The variant that
imagines first has a second copy of the present before its condition. How a clip enters the blocks is in
wan_training.py, what a block does in wan.py.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor
from wamkit_client.types import BadInput

from wamkit.bench.reference.wan import Conditions, complex_table, finish, modulation, project
from wamkit.bench.reference.wan_training import dense, embed_clip, every_row, head
from wamkit.draws import Draws
from wamkit.flow import Noised
from wamkit.nn.attention import FIRST_FRAME_CAUSAL, Visibility
from wamkit.nn.losses import action_loss_per_sample, latent_is_pad, video_loss
from wamkit.policies.fast_wam.action_dit import ActionDiT
from wamkit.policies.fast_wam.policy import FastWAM
from wamkit.policies.fast_wam.sampling import frames
from wamkit.policies.fast_wam.variants import VARIANTS
from wamkit.types import Batch
from wamkit.wan.block import EMBEDDED_TIME_SCALE, Block
from wamkit.wan.dit import PATCH

AGAIN = "present again"

SEQUENCES: Mapping[str, Visibility] = {
    "fast": VARIANTS["fast"].sees,
    "joint": VARIANTS["joint"].sees,
    "idm": (
        *FIRST_FRAME_CAUSAL,
        (AGAIN, (AGAIN,)),
        ("given", (AGAIN, "given")),
        ("action", (AGAIN, "given", "action")),
    ),
}
"""The published training sequence of a variant, and who sees whom in it."""


def losses(policy: FastWAM, batch: Batch, draws: Draws) -> Mapping[str, Tensor]:
    """What `policy` returns for the batch, by the official work. BadInput for a variant without a published recipe."""
    config = policy.config
    if config.variant not in SEQUENCES:
        raise BadInput(
            f"policy.variant: there is no twin of {policy.variant.title}'s training, only of "
            f"{', '.join(SEQUENCES)}; omit --reference"
        )
    noised = policy.add_noise(batch, draws)
    action, future = noised["action"], noised["future"]
    tokens = look(policy, {**noised, AGAIN: noised["present"]}, batch)
    is_pad = latent_is_pad(batch.inputs["frame_is_pad"], future.x.shape[2])
    velocity = tokens["video"][:, :, 1 : 1 + future.x.shape[2]]
    every = torch.ones(action.x.shape[1], device=action.x.device)
    error = action_loss_per_sample(tokens["action"], action.target, batch.valid, every)
    return {
        "video": video_loss(velocity, future.target, config.video_times.weight(future.t), is_pad),
        "action": (config.action_times.weight(action.t) * error).mean(),
    }


def look(policy: FastWAM, noised: Mapping[str, Noised], batch: Batch) -> dict[str, Tensor]:
    """Velocities of "video" [b c t h w] and "action" [b k a], both networks in lock step."""
    sees, context = SEQUENCES[policy.config.variant], policy.context(batch.inputs, batch.embodiment)
    names = [name for name, _ in sees if name != "action"]
    frame = noised["present"].x[0, 0, 0].numel() // PATCH**2
    sizes = {name: noised[name].x.shape[2] * frame for name in names}
    sizes["action"] = noised["action"].x.shape[1]
    mask = dense(sees, sizes, context.device)
    clip = embed_clip(
        policy.dit,
        torch.cat([noised[name].x for name in names], dim=2),
        torch.cat([noised[name].t[:, None].expand(-1, noised[name].x.shape[2]) for name in names], dim=1),
        context,
        [frames(name.removesuffix(" again"), noised[name].x).positions for name in names],
        mask,
    )
    chunk, given = embed_chunk(policy.action, noised["action"], context, mask)
    networks, conditions = (policy.dit, policy.action), (clip.given, given)
    tokens = [clip.tokens, chunk]
    lengths = [x.shape[1] for x in tokens]
    for blocks in zip(*(cast(Iterable[Block], network.blocks) for network in networks), strict=True):
        layer = [*zip(blocks, conditions, strict=True)]
        rows = [modulation(*own) for own in layer]
        made = [project(block, x, row, own) for (block, own), x, row in zip(layer, tokens, rows, strict=True)]
        q, k, v = (
            torch.cat(parts, dim=2) for parts in zip(*((q, kv.k, kv.v) for q, kv in made), strict=True)
        )
        attended = F.scaled_dot_product_attention(q, k, v, attn_mask=mask).split(lengths, dim=2)
        tokens = [
            finish(block, x, seen, row, own)
            for (block, own), x, seen, row in zip(layer, tokens, attended, rows, strict=True)
        ]
    return {"video": head(policy.dit, tokens[0], clip), "action": policy.action.head(tokens[1])}


def embed_chunk(
    network: ActionDiT, noised: Noised, context: Tensor, mask: Tensor
) -> tuple[Tensor, Conditions]:
    """Tokens [b k d] of a noisy chunk, and what its blocks share; all its tokens have the sample's one time."""
    x = network.action_encoder(noised.x.to(network.action_encoder.weight.dtype))
    time = network.time_embedding(network.sinusoid(noised.t[:, None] * EMBEDDED_TIME_SCALE).to(x.dtype))
    embedded = network.text_embedding(context.to(x.dtype))
    return x, Conditions(
        modulation=network.time_projection(time).unflatten(-1, (6, -1)),
        context=embedded,
        rotation=complex_table(network.rotary(x.shape[1])),
        mask=mask,
        context_mask=every_row(embedded),
    )
