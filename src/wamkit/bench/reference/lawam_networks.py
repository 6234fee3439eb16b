"""The networks of the released LaWAM, operation for operation, on the weights of ours: what its twins are made of.

Written from their description (LaWAM spec 1.5, 2.1, 2.4, 2.5, 8). Images are looked at one after the other, with
position codes and rotations made anew; prompts of a batch see each other's padding masked; both contexts of the expert
are projected at every call, for all tokens of a padded chunk, as are the code of physical time and the embedded flow
time, and the robots' matrices are chosen at every call. Nothing is read on the host, so all of it can be counted.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor

from wamkit.nn.attention import join_heads, split_heads
from wamkit.policies.lawam.action_expert import ActionExpert, Condition
from wamkit.policies.lawam.alternate_dit import PERIOD, Layer
from wamkit.policies.lawam.patches import patches
from wamkit.policies.lawam.prior import Prior, TextLayers, VisionTower
from wamkit.policies.lawam.world_model import Block, LatentWorldModel
from wamkit.tree import Tree

Drop = Callable[[Tensor], Tensor]


def see(prior: Prior, inputs: Tree, mask: Tensor | None) -> Tensor:
    """States [b l d] of all tokens of b prompts. mask: of attention [b 1 l l]; None: causal, nothing is padding."""
    tokens, taps = look(prior.visual, inputs["images"])
    x: Tensor = prior.text.embed_tokens(inputs["tokens"])
    b = len(x)
    for at, rows in (
        (inputs["image_at"], tokens),
        (inputs["latent_at"], prior.latent_queries.expand(b, -1, -1)),
        (inputs["action_at"], prior.action_queries.expand(b, -1, -1)),
    ):
        x = x.index_put((number(at), at), rows.to(x.dtype))
    return read(prior.text, x, inputs["image_at"], taps, mask)


def number(at: Tensor) -> Tensor:
    """The row of the batch that each place of `at` [b n] is in."""
    return torch.arange(len(at), device=at.device)[:, None].expand(at.shape)


def read(layers: TextLayers, x: Tensor, image_at: Tensor, taps: list[Tensor], mask: Tensor | None) -> Tensor:
    """The text layers; taps: added at image tokens behind the first of them."""
    angles = layers.rope(torch.arange(x.shape[1], device=x.device)[:, None])
    turn = angles.cos().to(x.dtype)[None], angles.sin().to(x.dtype)[None]
    for place, layer in enumerate(layers.layers):
        x = layer(x, attention_mask=mask, position_embeddings=turn)
        for tap in taps[place : place + 1]:
            x = x.index_put((number(image_at), image_at), tap.to(x.dtype), accumulate=True)
    return cast(Tensor, layers.norm(x))


def look(tower: VisionTower, images: Tensor) -> tuple[Tensor, list[Tensor]]:
    """Images [b v H W 3] -> tokens [b n d] of all views, and those of every tap."""
    size, embed, count = tower.size, tower.patch_embed.proj, images.shape[:2].numel()
    rows, columns = images.shape[2] // size.patch, images.shape[3] // size.patch
    x = patches(images.flatten(0, 1), size.patch, size.merge).flatten(0, 1).to(embed.weight.dtype)
    x = embed(x.unflatten(1, embed.weight.shape[1:])).flatten(1)
    x = x + torch.cat([tower.positions(rows, columns).to(x.dtype) for _ in range(count)])
    angles = torch.cat([tower.angles(rows, columns) for _ in range(count)])[:, None]
    turn, taps = (angles.cos(), angles.sin()), []
    for place, block in enumerate(tower.blocks):
        x = x + attend_by_image(block.attn, block.norm1(x), turn, count)
        x = x + block.mlp(block.norm2(x))
        if place in size.vision_taps:
            taps.append(tower.deepstack_merger_list[size.vision_taps.index(place)](x))
    found = [tokens.unflatten(0, (len(images), -1)) for tokens in (tower.merger(x), *taps)]
    return found[0], found[1:]


def attend_by_image(attention: Any, x: Tensor, turn: tuple[Tensor, Tensor], images: int) -> Tensor:
    """Patches [s d] of several images, each seeing those of its own; one attention after the other."""
    q, k, v = attention.qkv(x).unflatten(-1, (3, attention.num_heads, -1)).unbind(1)
    q, k = (turned(part.float(), *turn).to(v.dtype) for part in (q, k))
    each = (part.transpose(0, 1)[None].chunk(images, dim=2) for part in (q, k, v))
    seen = [F.scaled_dot_product_attention(*own).transpose(1, 2) for own in zip(*each, strict=True)]
    return cast(Tensor, attention.proj(torch.cat(seen, dim=1)[0].flatten(1)))


def turned(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Numbers i and i + e / 2 of a head as pairs, turned."""
    left, right = x.chunk(2, dim=-1)
    return x * cos + torch.cat([-right, left], dim=-1) * sin


def predict(world: LatentWorldModel, now: Tensor, code: Tensor) -> Tensor:
    """Features at the horizon; every block activates the latent action anew."""
    dtype = world.input.weight.dtype
    x = world.input(now.to(dtype)) + world.tables.get_buffer("positions").to(dtype)
    action = world.code(code.to(dtype))
    for block in cast(Iterable[Block], world.blocks):
        shift1, scale1, gate1, shift2, scale2, gate2 = block.modulation(F.silu(action))[:, None].chunk(6, -1)
        y = block.norm(x) * (1 + scale1) + shift1
        x = x + gate1 * block.attention(y, y, y, need_weights=False)[0]
        x = x + gate2 * block.ffn(block.norm(x) * (1 + scale2) + shift2)
    return cast(Tensor, world.norm(world.output(x)))


def velocity(
    expert: ActionExpert, noisy: Tensor, t: Tensor, given: Condition, drop: Drop = lambda x: x
) -> Tensor:
    """Of chunks [b k a] at flow times t [b], padding included. drop: dropout."""
    dtype, heads = expert.null_subgoal.dtype, expert.size.heads
    world = torch.cat([given.now, given.subgoal], dim=1).to(dtype)
    prior, kept = expert.hidden(given.hidden.to(dtype)), given.valid[..., None]
    due = (expert.physical_time(given.hz, given.valid.shape[1]) * kept).to(dtype)
    time = expert.time(expert.flow_time(t).to(dtype))[:, None]
    x = expert.encoder(noisy.to(dtype), given.robot) * kept
    contexts = {0: (prior, given.hidden_valid), PERIOD // 2: (world, None)}
    for place, layer in enumerate(cast(Iterable[Layer], expert.trunk.layers)):
        scale, shift = layer.modulation(F.silu(time)).chunk(2, dim=-1)
        asked = layer.norm(x) * (1 + scale) + shift + due
        tokens, valid = contexts.get(place % PERIOD, (asked, given.valid))
        q, k, v = (split_heads(part, heads) for part in (layer.q(asked), layer.k(tokens), layer.v(tokens)))
        mask = None if valid is None else valid[:, None, None]
        attended = F.scaled_dot_product_attention(q, k, v, attn_mask=mask)
        x = x + drop(layer.out(join_heads(attended)))
        inner = F.gelu(layer.up(layer.norm(x)), approximate="tanh")
        x = x + drop(layer.down(drop(inner)))
    shift, scale = expert.trunk.last_modulation(F.silu(time)).chunk(2, dim=-1)
    x = expert.trunk.last(expert.trunk.last_norm(x) * (1 + scale) + shift)
    return cast(Tensor, expert.decoder(x, given.robot)).float()
