"""How LaWAM answers a query: by its networks as they are trained, or as passes make them: the same answer, sooner."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Literal

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from wamkit.data.normalize import Normalizer
from wamkit.flow import Steering, noise_rows
from wamkit.foresight import Foresight
from wamkit.policies.continuing import Continuing
from wamkit.policies.lawam.action_expert import TIMES, Condition
from wamkit.policies.lawam.fused import FusedExpert
from wamkit.policies.lawam.fused_prior import FusedPrior
from wamkit.policies.lawam.fused_world import FusedWorld
from wamkit.policies.lawam.physical_time import valid_tokens
from wamkit.policies.lawam.prior import rows_at
from wamkit.policies.lawam.robot_linear import RobotRows
from wamkit.spans import Span
from wamkit.tree import Tree
from wamkit.types import DataSpec, Query

if TYPE_CHECKING:
    from wamkit.policies.lawam.policy import LaWAM, LaWAMConfig


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


World = Callable[[Tensor, Tensor], Tensor]
"""Features, latent action -> features at the horizon."""
Shown = Callable[[Sight, Tree, World], Tensor]
"""What the expert is shown as the subgoal [b s d]: of an observation and its inputs."""


@dataclass(frozen=True)
class Subgoal:
    """An arm of the ablation (spec 6.4). codes: inputs that are latent actions drawn at random when acting."""

    training: Shown
    acting: Shown
    codes: tuple[str, ...] = ()


def _predicted(sight: Sight, inputs: Tree, world: World) -> Tensor:
    return sight.subgoal


def _present(sight: Sight, inputs: Tree, world: World) -> Tensor:
    return sight.now


def _true(sight: Sight, inputs: Tree, world: World) -> Tensor:
    horizon: Tensor = inputs["features"][:, 1]
    return horizon


SubgoalArm = Literal["predicted", "none", "oracle", "shuffled"]
SUBGOALS: Mapping[SubgoalArm, Subgoal] = {
    "predicted": Subgoal(_predicted, _predicted),
    "none": Subgoal(_present, _present),
    "oracle": Subgoal(_true, _predicted),  # when acting, the true horizon is not known
    # A query alone has no other samples; latent actions are regularized to standard normal numbers.
    "shuffled": Subgoal(
        lambda sight, inputs, world: world(sight.now, sight.code.roll(1, dims=0)),
        lambda sight, inputs, world: world(sight.now, inputs["random_code"]),
        codes=("random_code",),
    ),
}


def continuing(policy: LaWAM) -> Continuing:
    """What a query's previous actions mean to its sampler."""
    config = policy.config
    return Continuing.of(config.chunking, policy.normalizer, TIMES.grid(config.sample_steps))


def _steered(policy: LaWAM, query: Query, shape: tuple[int, int]) -> Steering:
    """`continuing` when it is needed: training has no use for it."""
    return continuing(policy)(query, shape)


@dataclass(frozen=True)
class Acting:
    """What a policy acts with; it refers to no other weights.

    prior: inputs -> hidden states. pool: those of the latent queries -> latent action. world: features, latent action
    -> features at the horizon. sample: noise, condition, steering -> a chunk of `tokens` actions in unit range.
    """

    config: LaWAMConfig
    data: DataSpec
    normalizer: Normalizer
    robots: RobotRows
    prior: Callable[[Tree], Tensor]
    pool: Callable[[Tensor], Tensor]
    world: World
    sample: Callable[[Tensor, Condition, Steering], Tensor]
    tokens: int
    continuing: Callable[[Query, tuple[int, int]], Steering]

    @classmethod
    def of(cls, policy: LaWAM) -> Acting:
        """Networks as they are trained, with chunks of all tokens that the expert may have."""
        config, sample = policy.config, policy.expert.sample
        return cls(
            config,
            policy.data,
            policy.normalizer,
            policy.robots,
            policy.prior,
            policy.pool,
            policy.world,
            lambda noise, condition, steer: sample(
                noise, condition, config.sample_steps, config.guidance, steer
            ),
            config.expert.tokens,
            partial(_steered, policy),
        )

    def __call__(self, query: Query) -> Float[Tensor, "b k a"]:
        """One chunk per row, physical units. What lies past a robot's own chunk is of no use."""
        return self.compute(self.prepare(query))

    def prepare(self, query: Query) -> Query:
        """With what is drawn: a latent action, where the expert is shown that of nothing; noise [b k a].

        Noise of the whole padded chunk, however much of it is sampled, so that all samplers begin with the same.
        """
        size, names = self.config.expert, SUBGOALS[self.config.subgoal].codes
        codes = {
            name: noise_rows((self.config.latent.code,), query.generators, query.hz.device) for name in names
        }
        noise = noise_rows((size.tokens, size.action_dim), query.generators, query.hz.device)
        return replace(query, inputs=query.inputs | codes | {"noise": noise})

    @torch.no_grad()
    def compute(self, query: Query) -> Float[Tensor, "b k a"]:
        """The answer to a prepared query."""
        with Span("blocks"):
            sight = self.see(query.inputs)
            subgoal = SUBGOALS[self.config.subgoal].acting(sight, query.inputs, self.world)
        condition = self.condition(sight, subgoal, query.hz, query.embodiment, self.tokens)
        steer = self.continuing(query, (self.tokens, self.config.expert.action_dim))
        with Span("expert"):
            unit = self.sample(query.inputs["noise"], condition, steer)
        unit = unit[:, : self.data.horizon, : self.data.action_dim]
        unit = CLIPPED[self.config.clip_actions](unit.float())
        return self.normalizer.to_physical("action", unit, query.embodiment)

    def see(self, inputs: Tree) -> Sight:
        """Prior, latent action and subgoal."""
        hidden, now = self.prior(inputs), inputs["features"][:, 0]
        code = self.pool(rows_at(hidden, inputs["latent_at"]))
        valid = torch.arange(hidden.shape[1], device=hidden.device) < inputs["length"][:, None]
        return Sight(hidden, valid, now, code, self.world(now, code))

    def condition(
        self,
        sight: Sight,
        subgoal: Float[Tensor, "b s d"],
        hz: Float[Tensor, " b"],
        embodiment: Int[Tensor, " b"],
        tokens: int,
    ) -> Condition:
        """What the expert makes chunks of `tokens` actions from, padding included."""
        valid = valid_tokens(self.data.chunk_seconds, hz, tokens)
        return Condition(sight.hidden, sight.valid, sight.now, subgoal, hz, valid, self.robots(embodiment))


def _fused_prior(policy: LaWAM, acting: Acting) -> Acting:
    data, length = policy.data, policy.config.prompt.length
    return replace(acting, prior=FusedPrior(policy.prior, data.view_height, data.view_width, length))


def _fused_world(policy: LaWAM, acting: Acting) -> Acting:
    return replace(acting, world=FusedWorld(policy.world))


def _fused_expert(policy: LaWAM, acting: Acting) -> Acting:
    fused = FusedExpert(policy.expert, policy.config.sample_steps, policy.config.guidance)
    return replace(acting, sample=fused.sample, tokens=policy.data.horizon)


# Each network without computing anything twice; none of them needs another.
PASSES: Mapping[str, Callable[[LaWAM, Acting], Acting]] = {
    "fused_prior": _fused_prior,
    "fused_world": _fused_world,
    "fused_expert": _fused_expert,
}


SEEING = ("fused_prior", "fused_world")
"""Those that are about what is seen."""


def passed(policy: LaWAM, acting: Acting, passes: Iterable[str]) -> Acting:
    """With these passes."""
    for name in passes:
        acting = PASSES[name](policy, acting)
    return acting


@torch.no_grad()
def foreseen(acting: Acting, query: Query) -> Foresight:
    """Features of the present and the predicted ones of the chunk's last action. Nothing is drawn."""
    sight = acting.see(query.inputs)
    return Foresight(sight.now.float(), sight.subgoal.float()[:, None])


CLIPPED: Mapping[bool, Callable[[Tensor], Tensor]] = {True: lambda x: x.clamp(-1, 1), False: lambda x: x}
