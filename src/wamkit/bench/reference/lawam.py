"""The work that the released LaWAM does for one chunk, on our policy's weights: the twin its passes are measured
against. Written from its description (LaWAM spec 2.1, 2.7, 8).

The vision tower is transformers' own, image after image, with position codes and rotations made anew; both contexts of
the expert are projected anew in every step, for all tokens of a padded chunk, as are the code of physical time, the
embedded flow time, and the choice of the robot's matrices. Observations are answered one by one. The encoder is ours
as it is without passes; the official one also runs the twelfth block of DINOv3, which nothing reads.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from wamkit.bench.reference.wan import one_by_one
from wamkit.flow import integrate
from wamkit.policies.lawam.action_expert import TIMES, ActionExpert, Condition, Velocity, guided
from wamkit.policies.lawam.patches import patches
from wamkit.policies.lawam.policy import LaWAM
from wamkit.policies.lawam.prior import Prior, VisionTower
from wamkit.tree import Tree
from wamkit.types import Actor, Query


def twin(policy: LaWAM) -> Actor:
    """What `policy.act` answers, by the official work."""
    config = policy.config

    def sample_chunk(noise: Tensor, condition: Condition) -> Tensor:
        return sample(policy.expert, noise, condition, config.sample_steps, config.guidance)

    official = replace(policy.acting, prior=lambda inputs: see(policy.prior, inputs), sample=sample_chunk)

    @torch.inference_mode()
    def answer(query: Query) -> Tensor:
        return official(replace(query, inputs=query.inputs | {"tokens": bare(query.inputs)}))

    return one_by_one(answer)


def bare(inputs: Tree) -> Tensor:
    """The tokens of one prompt, which is not padded. On the meta device, without numbers, it has to be bare already."""
    tokens: Tensor = inputs["tokens"]
    return tokens if tokens.is_meta else tokens[:, : int(inputs["length"])]


def see(prior: Prior, inputs: Tree) -> Tensor:
    """States of all tokens of one prompt."""
    views = inputs["images"][0]
    found = look(prior.visual, views)
    x = prior.text.embed_tokens(inputs["tokens"])
    for at, rows in (
        (inputs["image_at"], found[0]),
        (inputs["latent_at"], prior.latent_queries),
        (inputs["action_at"], prior.action_queries),
    ):
        x = x.index_put((torch.zeros_like(at), at), rows[None].to(x.dtype))
    states: Tensor = prior.text(x, inputs["image_at"], [tap[None] for tap in found[1:]])
    return states


def look(tower: VisionTower, images: Tensor) -> list[Tensor]:
    """Tokens [n*m d] of images, and after them those of every tap."""
    size, embed = tower.size, tower.patch_embed
    rows, columns = images.shape[1] // size.patch, images.shape[2] // size.patch
    x = embed(patches(images, size.patch, size.merge).flatten(0, 1).to(embed.proj.weight.dtype))
    x = x + torch.cat([tower.positions(rows, columns).to(x.dtype) for _ in images])
    angles = torch.cat([tower.angles(rows, columns) for _ in images])
    ends = torch.arange(len(images) + 1, device=x.device) * rows * columns
    turn: Any = (angles.cos(), angles.sin())
    taps = []
    for number, block in enumerate(tower.blocks):
        x = block(x, cu_seqlens=ends, position_embeddings=turn)
        if number in size.vision_taps:
            taps.append(tower.deepstack_merger_list[size.vision_taps.index(number)](x))
    return [tower.merger(x), *taps]


@torch.no_grad()
def sample(
    expert: ActionExpert, noise: Tensor, condition: Condition, steps: int, guidance: float = 1.0
) -> Tensor:
    """noise [b tokens a] -> chunks in unit range; every step has all padded tokens and projects both contexts again."""
    kept = condition.valid[..., None]

    def velocity_of(given: Condition) -> Velocity[Tensor]:
        return lambda x, t: expert(x, t, given)

    velocity = guided(velocity_of, expert.null_subgoal, condition, guidance)
    return integrate(noise * kept, lambda x, t: velocity(x, t) * kept, TIMES.grid(steps))
