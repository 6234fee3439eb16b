"""The networks that answer a query: as they are trained, and as passes make them, for the same answer sooner."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from wamkit.policies.lawam.action_expert import Condition
from wamkit.policies.lawam.fused import FusedExpert
from wamkit.policies.lawam.fused_prior import FusedPrior
from wamkit.policies.lawam.fused_world import FusedWorld
from wamkit.policies.lawam.prior import rows_at
from wamkit.tree import Tree

if TYPE_CHECKING:
    from wamkit.policies.lawam.policy import LaWAM


@dataclass(frozen=True)
class Sight:
    """What the policy makes of an observation, before it acts.

    hidden: of the prior's tokens, of which `valid` exist. now: features of the present, u. code: the latent action, ẑ.
    subgoal: the predicted features of the horizon, û_T.
    """

    hidden: Float[Tensor, "b l dv"]
    valid: Bool[Tensor, "b l"]
    now: Float[Tensor, "b s d"]
    code: Float[Tensor, "b e"]
    subgoal: Float[Tensor, "b s d"]


@dataclass(frozen=True)
class Networks:
    """prior: inputs -> hidden states. pool: those of the latent queries -> latent action. world: features, latent
    action -> features at the horizon. sample: noise, condition -> a chunk of `tokens` actions in unit range."""

    prior: Callable[[Tree], Tensor]
    pool: Callable[[Tensor], Tensor]
    world: Callable[[Tensor, Tensor], Tensor]
    sample: Callable[[Tensor, Condition], Tensor]
    tokens: int

    @classmethod
    def of(cls, policy: LaWAM) -> Networks:
        """As they are trained, with chunks of all tokens that the expert may have."""
        config, sample = policy.config, policy.expert.sample
        return cls(
            policy.prior,
            policy.pool,
            policy.world,
            lambda noise, condition: sample(noise, condition, config.sample_steps, config.guidance),
            config.expert.tokens,
        )

    def see(self, inputs: Tree) -> Sight:
        """Prior, latent action and subgoal."""
        hidden, now = self.prior(inputs), inputs["features"][:, 0]
        code = self.pool(rows_at(hidden, inputs["latent_at"]))
        valid = torch.arange(hidden.shape[1], device=hidden.device) < inputs["length"][:, None]
        return Sight(hidden, valid, now, code, self.world(now, code))


def _fused_prior(policy: LaWAM, networks: Networks) -> Networks:
    data, length = policy.data, policy.config.prompt.length
    return replace(networks, prior=FusedPrior(policy.prior, data.view_height, data.view_width, length))


def _fused_world(policy: LaWAM, networks: Networks) -> Networks:
    return replace(networks, world=FusedWorld(policy.world))


def _fused_expert(policy: LaWAM, networks: Networks) -> Networks:
    fused = FusedExpert(policy.expert, policy.config.sample_steps, policy.config.guidance)
    return replace(networks, sample=fused.sample, tokens=policy.data.horizon)


# None of them needs another.
PASSES: Mapping[str, Callable[[LaWAM, Networks], Networks]] = {
    "fused_prior": _fused_prior,
    "fused_world": _fused_world,
    "fused_expert": _fused_expert,
}
