"""LaWAM: a vision-language prior guesses a latent action, a latent world model turns it into one visual subgoal, and a
flow-matching expert acts on the prior's tokens and on that subgoal.

arXiv 2606.15768 section 3; every formula in the code's own terms: spec section 2. What the policy is shown (images,
features, tokens) and the teacher's latent action, which training compares its guess with, come from encoder.py.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import ClassVar, Literal

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn
from wamkit_client.types import BadInput

from wamkit.bounds import AT_LEAST_1, NOT_NEGATIVE, POSITIVE, check
from wamkit.data.normalize import Normalizer
from wamkit.draws import Draws
from wamkit.flow import Noised
from wamkit.foresight import Foreseer, Foresight
from wamkit.policies.base import EncoderFacts, PolicyConfig, PolicyModule
from wamkit.policies.continuing import RealTimeChunking
from wamkit.policies.lawam.acting import (
    PASSES,
    SEEING,
    SUBGOALS,
    Acting,
    Sight,
    SubgoalArm,
    continuing,
    foreseen,
    passed,
)
from wamkit.policies.lawam.action_expert import TIMES, ActionExpert, ExpertSize, action_loss
from wamkit.policies.lawam.begin import FromRun, FromStage1
from wamkit.policies.lawam.encoder import LaWAMEncoder, encoder_facts, example_inputs
from wamkit.policies.lawam.features import DINOv3Config, FeaturesConfig
from wamkit.policies.lawam.latent_action import LatentSize
from wamkit.policies.lawam.physical_time import TimeCode, tokens_of
from wamkit.policies.lawam.prior import (
    FromQwen,
    FromScratch,
    Prior,
    PriorSize,
    expect_prompt,
    stop_latent_context_grad,
)
from wamkit.policies.lawam.prompt import HashedPromptConfig, PromptConfig, QwenPromptConfig
from wamkit.policies.lawam.query_pool import HEADS, QueryPool
from wamkit.policies.lawam.robot_linear import HUMAN, RobotRows
from wamkit.policies.lawam.stage1 import FrozenWorld, Stage1, frozen_world
from wamkit.policies.lawam.world_model import LatentWorldModel
from wamkit.taking import SHARED, Take
from wamkit.tree import Tree
from wamkit.types import (
    Actor,
    Batch,
    DataSpec,
    Group,
    PartTable,
    Preprocessing,
    Query,
)


@dataclass(frozen=True)
class LearningRates:
    """Factors on the run's learning rate, by part (spec 2.9).

    expert: of the action expert. world: of the world model. prior: of the vision-language model. rest: of all else.
    """

    expert: float = 1.0
    world: float = 1.0
    prior: float = 1.0
    rest: float = 1.0

    def __post_init__(self) -> None:
        check("policy.learning_rates", self, dict.fromkeys(("expert", "world", "prior", "rest"), POSITIVE))


@dataclass(frozen=True)
class LaWAMConfig(PolicyConfig):
    """Defaults are the published full-size model.

    world: the run directory of stage 1 (kind "lawam_world"), whose world model training starts from and whose inverse
        model is the teacher. features, latent: as stage 1 had them. begin: what else training starts from.
    robots, robot_rows: which row of the expert's tables a robot has, and how many there are (robot_linear.RobotRows).
    prior_precision: of the stored prior, queries aside. The published one has no copy in float32 that small steps of
        the optimizer would add up in (spec 2.8).
    sample_steps: Euler steps when acting. guidance: how far a chunk is driven from the one without a subgoal; 1: not.
    chunking: how a chunk continues the previous one.
    repeats: draws of (noise, time) per sample in the action loss; the prior and the world model run once.
    subgoal: what the expert is shown; a row of SUBGOALS. subgoal_weight, distill_weight: of the losses; 0 omits one.
    stop_subgoal_grad: actions do not train the world model and the code through the subgoal.
    stop_latent_context_grad: nor the prior through its tokens up to the last latent query.
    time_code: of action tokens; "seconds" as published.
    clip_actions: keep chunks within [-1, 1] in unit range, which is what min_max saw in the data; as published.
    """

    world: str = "weights/lawam_world"
    features: FeaturesConfig = field(default_factory=DINOv3Config)
    latent: LatentSize = LatentSize()
    prompt: PromptConfig = field(default_factory=QwenPromptConfig)
    prior: PriorSize = PriorSize()
    prior_precision: Literal["float32", "bfloat16"] = "float32"
    start: FromQwen | FromScratch = field(default_factory=FromQwen)
    begin: FromStage1 | FromRun = field(default_factory=FromStage1)
    expert: ExpertSize = ExpertSize()
    robots: tuple[tuple[str, int], ...] = ()
    robot_rows: int = 32
    repeats: int = 2
    sample_steps: int = 10
    guidance: float = 1.0
    chunking: RealTimeChunking = RealTimeChunking()
    clip_actions: bool = False
    time_code: TimeCode = "seconds"
    subgoal: SubgoalArm = "predicted"
    subgoal_weight: float = 0.1
    distill_weight: float = 0.1
    stop_subgoal_grad: bool = True
    stop_latent_context_grad: bool = False
    learning_rates: LearningRates = LearningRates()
    kind: Literal["lawam"] = "lawam"
    continues: ClassVar[bool] = True
    inference_overrides: ClassVar[tuple[str, ...]] = ("sample_steps", "guidance", "chunking")
    exported: ClassVar[tuple[str, ...]] = (
        "device_images",
        "fused_features",
        "fused_prior",
        "fused_world",
        "fused_expert",
    )
    about_losses: ClassVar[str] = (
        "action: flow matching of the chunk; subgoal: squared error of the predicted features; distill: squared error "
        "of the latent action against the teacher's"
    )

    @property
    def identity(self) -> dict[str, str]:
        """What tells policies of this kind apart in results."""
        return {"subgoal": self.subgoal}

    def encoder(self, data: DataSpec, preprocessing: Preprocessing = "training") -> LaWAMEncoder:
        """The frozen half; images are prepared alike in training and in the published evaluations (spec 2.1)."""
        stage1 = self.stage1(data)
        return LaWAMEncoder(self.features.load(), self.prompt.load(data), stage1, data)

    @property
    def known_robots(self) -> tuple[str, ...]:
        """Those with a row in the expert's tables."""
        return tuple(name for name, _ in self.robots)

    def random_encoder(self, data: DataSpec, precision: torch.dtype) -> LaWAMEncoder:
        """An encoder of the same sizes that needs no files, for measurements of speed: of single frames, which need no
        teacher."""
        words = HashedPromptConfig(self.prompt.length, self.prompt.pixels, self.prompt.vocabulary)
        return LaWAMEncoder(self.features.build(), words.load(data), self.stage1(data), data)

    def stage1(self, data: DataSpec) -> Stage1:
        """The run that `world` names."""
        grid = self.features.grid(data.view_height, data.view_width)
        return Stage1(Path(self.world), self.features, self.latent, grid)

    def encoder_modules(self) -> dict[str, nn.Module]:
        """Its networks without weights, by row of the parameter table."""
        return {"image features": self.features.build()}

    def encoder_facts(
        self, data: DataSpec, instructions: Sequence[str], device: torch.device
    ) -> EncoderFacts:
        """What can be shown of its encoder on this machine."""
        return encoder_facts(self.features, self.prompt, self.start, data, instructions)

    def example_inputs(self, data: DataSpec, batch: int) -> Tree:
        """Zeros in the shapes of a training batch's inputs."""
        return example_inputs(self.features, self.latent, self.prompt, data, batch)

    def build(self, data: DataSpec, normalizer: Normalizer) -> LaWAM:
        """The policy with random weights; without any under `torch.device("meta")`."""
        return LaWAM(self, data, normalizer)

    def expect_source(self, data: DataSpec, source: DataSpec) -> None:
        """BadInput where chunks are not as long in seconds as the run's, by which tokens are counted (spec 2.6)."""
        expect_chunk(self.expert, source)
        if source.chunk_seconds != data.chunk_seconds:
            raise BadInput(
                f"chunk_seconds is {source.chunk_seconds:g}, the run's {data.chunk_seconds:g}; LaWAM's chunks are as "
                "long in seconds at every rate"
            )

    def started_from(self, directory: Path) -> LaWAMConfig:
        """This policy, on the stage 1 in `directory`."""
        return replace(self, world=str(directory))

    def world_model(self, directory: Path, data: DataSpec, device: torch.device) -> FrozenWorld:
        """LaWM as this policy's run directory has it, with the teacher of stage 1."""
        return frozen_world(self.stage1(data), directory, data, device)

    def __post_init__(self) -> None:
        check("policy", self, BOUNDS)
        expect_prompt(self.prompt, self.prior)
        if self.latent.code % HEADS:
            raise BadInput(
                f"policy.latent.code: expected a multiple of {HEADS}, for the query pool, got {self.latent.code}"
            )


BOUNDS = {
    **dict.fromkeys(("repeats", "sample_steps"), AT_LEAST_1),
    **dict.fromkeys(("subgoal_weight", "distill_weight", "guidance"), NOT_NEGATIVE),
}


class LaWAM(PolicyModule):
    """See the module docstring. Public inputs and outputs are in physical units."""

    def __init__(self, config: LaWAMConfig, data: DataSpec, normalizer: Normalizer) -> None:
        super().__init__(data, normalizer)
        expect_chunk(config.expert, data)
        self.config = config
        features, grid = config.features.dim, config.features.grid(data.view_height, data.view_width)
        self.prior = Prior(config.prior)
        self.pool = QueryPool(config.prior.width, config.latent.code)
        self.world = LatentWorldModel(config.latent, features, grid)
        self.expert = ActionExpert(
            config.expert,
            config.prior.width,
            features,
            grid[0] * grid[1],
            config.robot_rows,
            config.time_code,
        )
        self.robots = RobotRows(config.robots, normalizer.embodiments, config.robot_rows)
        config.start.freeze(self.prior)
        for half in (self.prior.visual, self.prior.text):
            half.to(PRECISIONS[config.prior_precision])

    @property
    def unsupported_sections(self) -> tuple[str, ...]:
        """Sections of a run's page that it has nothing for."""
        return ("future", "attention")

    def separable(self, batch: Batch) -> bool:
        """The action loss is a mean over all targets, of which samples must have equally many."""
        alike = batch.valid.all() & (batch.embodiment == batch.embodiment[0]).all()
        return self.config.subgoal != "shuffled" and bool(alike)

    def targets(self, batch: Batch) -> Mapping[str, Tensor]:
        """The action loss is a mean over all targets."""
        acts = self.robots(batch.embodiment) != HUMAN
        return {"action": (batch.valid & acts[:, None, None]).sum()}

    @property
    def parts(self) -> PartTable:
        """The rows of its parameter table."""
        return PARTS

    @property
    def loss_weights(self) -> Mapping[str, float]:
        """The losses `forward` returns, and their weights in the total (spec 2.3)."""
        weights = {
            "action": 1.0,
            "subgoal": self.config.subgoal_weight * (self.config.subgoal != "none"),
            "distill": self.config.distill_weight,
        }
        return {name: weight for name, weight in weights.items() if weight}

    def embodiment(self, names: Sequence[str]) -> Int[Tensor, " b"]:
        """Rows of the normaliser. BadInput for a robot it was not trained for, or that has no row in the tables."""
        self.robots.expect(names)
        return super().embodiment(names)

    def parameter_groups(self) -> list[Group]:
        """By part, each with its learning rate (spec 2.9)."""
        rates = self.config.learning_rates
        parts = {"prior": rates.prior, "world": rates.world, "expert": rates.expert, "pool": rates.rest}
        trained = {name: p for name, p in self.named_parameters() if p.requires_grad}
        return [
            Group({name: p for name, p in trained.items() if name.startswith(f"{part}.")}, rate)
            for part, rate in parts.items()
        ]

    def initialize(self) -> None:
        """As `begin` says."""
        self.config.begin.initialize(self)

    def load_frozen(self) -> None:
        """Read what of the prior is not trained."""
        self.config.start.load_frozen(self.prior)

    def forward(self, batch: Batch, draws: Draws) -> dict[str, Float[Tensor, ""]]:
        """Unweighted losses by name."""
        sight = self.see(batch.inputs)
        horizon, code = batch.inputs["features"][:, 1], batch.inputs["code"]
        losses = {
            "action": self.action_loss(sight, batch, draws),
            "subgoal": F.mse_loss(sight.subgoal.float(), horizon.float()),
            "distill": F.mse_loss(sight.code.float(), code.float()),
        }
        return {name: losses[name] for name in self.loss_weights}

    @property
    def acting(self) -> Acting:
        """How it answers, by its networks as they are trained."""
        return Acting.of(self)

    def act(self, query: Query) -> Float[Tensor, "b k a"]:
        """One chunk per row, physical units. What lies past a robot's own chunk is of no use."""
        return self.acting(query)

    @property
    def passes(self) -> tuple[str, ...]:
        """Each of the three networks without computing anything twice."""
        return tuple(PASSES)

    def actor(self, passes: Collection[str], take: Take = SHARED) -> Actor:
        """`act` with these passes."""
        policy = take.network(self)
        return passed(policy, replace(policy.acting, continuing=continuing(policy)), passes)

    def see(self, inputs: Tree) -> Sight:
        """What it makes of an observation."""
        return self.acting.see(inputs)

    def foresee(self, query: Query, encoder: LaWAMEncoder) -> Foresight:
        """Features of the present and the predicted ones of the chunk's last action. Nothing is drawn."""
        return foreseen(self.acting, query)

    def foreseer(self, passes: Collection[str]) -> Foreseer:
        """`foresee` with those of these passes that are about what is seen."""
        acting = passed(self, self.acting, [name for name in passes if name in SEEING])
        return lambda query, encoder: foreseen(acting, query)

    def action_loss(self, sight: Sight, batch: Batch, draws: Draws) -> Float[Tensor, ""]:
        """Flow matching of the chunk, averaged over `repeats` draws of (noise, time) per sample (spec 2.7).

        In float32 also under autocast, as published (spec 2.8).
        """
        config, expert = self.config, self.expert
        hidden = LATENT_CONTEXT[config.stop_latent_context_grad](sight.hidden, batch.inputs["latent_at"])
        subgoal = SUBGOALS[config.subgoal].training(sight, batch.inputs, self.world)
        subgoal = GRADIENT[config.stop_subgoal_grad](subgoal)
        sight = replace(sight, hidden=hidden.float(), now=sight.now.float())
        condition = self.acting.condition(
            sight, subgoal.float(), batch.hz, batch.embodiment, self.data.horizon
        )
        unit = self.normalizer.to_unit("action", batch.actions, batch.embodiment)
        more = (0, config.expert.action_dim - self.data.action_dim)  # up to the dimensions of the tables
        target, valid = F.pad(unit, more), F.pad(batch.valid, more)

        def drawn() -> Noised:
            t = TIMES.draw(draws, target.device)
            return TIMES.noised(target, draws.normal(target), t)

        with _in_float32(target.device):
            chunks = [drawn() for _ in range(config.repeats)]
            noisy, t = (
                torch.stack([each.x for each in chunks], 1),
                torch.stack([each.t for each in chunks], 1),
            )
            velocities = expert.velocities(noisy, t, expert.context(condition), expert.dropout(draws))
            losses = [
                action_loss(velocity, each.target, valid, condition.robot)
                for velocity, each in zip(velocities.unbind(1), chunks, strict=True)
            ]
        return torch.stack(losses).mean()


def _in_float32(device: torch.device) -> AbstractContextManager[object]:
    known = torch.amp.is_autocast_available(device.type)  # a plan's meta device has no autocast to switch off
    return torch.autocast(device.type, enabled=False) if known else nullcontext()


def expect_chunk(size: ExpertSize, data: DataSpec) -> None:
    """BadInput where the data's chunks do not fit the expert."""
    if data.horizon > size.tokens:
        raise BadInput(
            f"data.chunk_seconds: {data.chunk_seconds:g} s at data.hz {data.hz:g} are {data.horizon} actions, LaWAM's "
            f"expert takes at most {size.tokens} (policy.expert.tokens); ask for shorter chunks or a lower rate"
        )
    if tokens_of(data.chunk_seconds, data.hz) != data.horizon:
        raise BadInput(
            f"data.chunk_seconds: {data.chunk_seconds!r} s at data.hz {data.hz!r} are {data.horizon} actions, but "
            f"{tokens_of(data.chunk_seconds, data.hz)} in float32, as LaWAM counts; write more digits of the time"
        )
    if data.action_dim > size.action_dim:
        raise BadInput(
            f"data.action_dim: {data.action_dim}, LaWAM's expert takes at most {size.action_dim} dimensions "
            "(policy.expert.action_dim)"
        )


# Whether gradients of the action loss stop, at the subgoal and at tokens up to the last latent query (spec 2.3).
GRADIENT: Mapping[bool, Callable[[Tensor], Tensor]] = {True: Tensor.detach, False: lambda x: x}
LATENT_CONTEXT: Mapping[bool, Callable[[Tensor, Tensor], Tensor]] = {
    True: stop_latent_context_grad,
    False: lambda hidden, latent_at: hidden,
}

PRECISIONS = {"float32": torch.float32, "bfloat16": torch.bfloat16}

# Rows of the parameter table (spec 0).
PARTS: PartTable = (
    ("latent-action and action queries", lambda name: name.endswith("_queries")),
    ("vision-language prior", lambda name: name.startswith("prior.")),
    ("query aggregation", lambda name: name.startswith("pool.")),
    ("latent world model", lambda name: name.startswith("world.")),
    ("action expert", lambda name: name.startswith("expert.")),
)
