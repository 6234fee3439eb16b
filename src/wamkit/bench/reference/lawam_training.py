"""The work that the released LaWAM does for the losses of a batch, on our policy's weights: the twin that training is
measured against. Written from its description (LaWAM spec 2.1-2.7, 8).

Prompts attend under a dense mask. The expert is asked once for all draws of (noise, time): the batch is repeated with
its contexts, which are projected for every copy, and chunks are padded. What a network does is in lawam_networks.py.
The batch has frozen features and the teacher's code already, which the released program makes anew in every step.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor

from wamkit.bench.reference.lawam_networks import predict, see, velocity
from wamkit.draws import Draws
from wamkit.policies.lawam.acting import SUBGOALS, Sight
from wamkit.policies.lawam.action_expert import TIMES, Condition, action_loss
from wamkit.policies.lawam.policy import GRADIENT, LATENT_CONTEXT, LaWAM
from wamkit.policies.lawam.prior import rows_at
from wamkit.types import Batch


def losses(policy: LaWAM, batch: Batch, draws: Draws) -> Mapping[str, Tensor]:
    """What `policy` returns for the batch, by the official work."""
    inputs = batch.inputs
    now, horizon = inputs["features"].unbind(1)
    places = torch.arange(inputs["tokens"].shape[1], device=now.device)
    valid = places < inputs["length"][:, None]
    hidden = see(policy.prior, inputs, (places <= places[:, None]) & valid[:, None, None])
    code = policy.pool(rows_at(hidden, inputs["latent_at"]))
    sight = Sight(hidden, valid, now, code, predict(policy.world, now, code))
    found = {
        "action": chunk_loss(policy, sight, batch, draws),
        "subgoal": F.mse_loss(sight.subgoal.float(), horizon.float()),
        "distill": F.mse_loss(code.float(), inputs["code"].float()),
    }
    return {name: found[name] for name in policy.loss_weights}


def chunk_loss(policy: LaWAM, sight: Sight, batch: Batch, draws: Draws) -> Tensor:
    """Flow matching of the chunk, all draws at once, in float32."""
    config, size = policy.config, policy.config.expert
    world = partial(predict, policy.world)
    subgoal = SUBGOALS[config.subgoal].training(sight, batch.inputs, world)
    subgoal = GRADIENT[config.stop_subgoal_grad](subgoal)
    hidden = LATENT_CONTEXT[config.stop_latent_context_grad](sight.hidden, batch.inputs["latent_at"])
    shown = replace(sight, hidden=hidden.float(), now=sight.now.float())
    given = policy.acting.condition(shown, subgoal.float(), batch.hz, batch.embodiment, size.tokens)
    unit = policy.normalizer.to_unit("action", batch.actions, batch.embodiment)
    wider = F.pad(unit, (0, size.action_dim - unit.shape[2]))
    noised = [
        TIMES.noised(wider, draws.normal(wider), t)
        for t in (TIMES.draw(draws, unit.device) for _ in range(config.repeats))
    ]
    padding = (0, 0, 0, size.tokens - unit.shape[1])
    noisy = F.pad(torch.cat([one.x for one in noised]), padding)
    target = F.pad(torch.cat([one.target for one in noised]), padding)
    counts = F.pad(batch.valid, (0, size.action_dim - unit.shape[2], *padding[2:]))
    times, again = torch.cat([one.t for one in noised]), repeated(given, config.repeats)
    drop = partial(F.dropout, p=size.dropout, training=policy.training)
    with torch.autocast(unit.device.type, enabled=False):
        predicted = velocity(policy.expert, noisy, times, again, drop)
        return action_loss(predicted, target, torch.cat([counts] * config.repeats), again.robot)


def repeated(given: Condition, times: int) -> Condition:
    """Of a batch that is repeated so many times."""
    return Condition(**{name: torch.cat([x] * times) for name, x in vars(given).items()})
