"""The work that the released LaWAM does for one chunk, on our policy's weights: the twin its passes are measured
against. Written from its description (LaWAM spec 2.1, 2.7, 8).

Both contexts of the expert are projected anew in every step, for all tokens of a padded chunk. What a network does is
in lawam_networks.py. Observations are answered one by one. The encoder is ours as it is without passes; the official
one also runs the twelfth block of DINOv3, which nothing reads.
"""

from __future__ import annotations

from dataclasses import replace
from functools import partial

import torch
from torch import Tensor

from wamkit.bench.reference.lawam_networks import predict, see, velocity
from wamkit.bench.reference.wan import one_by_one
from wamkit.flow import Steering, integrate, unsteered
from wamkit.policies.lawam.action_expert import TIMES, ActionExpert, Condition, Velocity, guided
from wamkit.policies.lawam.policy import LaWAM
from wamkit.tree import Tree
from wamkit.types import Actor, Query


def twin(policy: LaWAM) -> Actor:
    """What `policy.act` answers, by the official work."""
    config = policy.config

    def sample_chunk(noise: Tensor, condition: Condition, steer: Steering) -> Tensor:
        return sample(policy.expert, noise, condition, config.sample_steps, config.guidance, steer)

    official = replace(
        policy.acting,
        prior=partial(see, policy.prior, mask=None),
        world=partial(predict, policy.world),
        sample=sample_chunk,
    )

    @torch.inference_mode()
    def answer(query: Query) -> Tensor:
        return official(replace(query, inputs=query.inputs | {"tokens": bare(query.inputs)}))

    return one_by_one(answer)


def bare(inputs: Tree) -> Tensor:
    """The tokens of one prompt, which is not padded. On the meta device, without numbers, it has to be bare already."""
    tokens: Tensor = inputs["tokens"]
    return tokens if tokens.is_meta else tokens[:, : int(inputs["length"])]


@torch.no_grad()
def sample(
    expert: ActionExpert,
    noise: Tensor,
    condition: Condition,
    steps: int,
    guidance: float = 1.0,
    steer: Steering = unsteered,
) -> Tensor:
    """noise [b tokens a] -> chunks in unit range; every step has all padded tokens and projects both contexts again."""
    kept = condition.valid[..., None]

    def velocity_of(given: Condition) -> Velocity[Tensor]:
        return lambda x, t: velocity(expert, x, t, given)

    driven = guided(velocity_of, expert.null_subgoal, condition, guidance)
    return integrate(noise * kept, lambda x, t: driven(x, t) * kept, TIMES.grid(steps), steer)
