"""Stage 1 of LaWAM: a latent world model learns from pairs of frames (LaWAM paper 3.1; spec 1).

Two frames become features by a frozen encoder; an inverse-dynamics encoder and a bottleneck write what changed between
them into a small code, and the world model predicts the later features from the earlier ones and the code. A head that
predicts the change of the robot's state helps the code to be about the robot. It is trained only: stage 2
(policy.py) acts, with this world model and the mean code as its teacher.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar, Literal

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from wamkit_client.types import BadInput

from wamkit.bounds import AT_LEAST_1, NOT_NEGATIVE, Bound, check
from wamkit.data.normalize import Normalizer
from wamkit.draws import Draws
from wamkit.nn.tables import Tables
from wamkit.policies.base import FrozenEncoder, PolicyConfig, TrainedModule
from wamkit.policies.lawam.augment import Augmentation, Prepare, TwoViews
from wamkit.policies.lawam.features import DINOv3Config, Features, FeaturesConfig
from wamkit.policies.lawam.latent_action import Bottleneck, Code, InverseDynamics, LatentSize
from wamkit.policies.lawam.losses import FEATURE_LOSSES, FeatureLoss, squared_error
from wamkit.policies.lawam.robot_linear import HUMAN, RobotRows
from wamkit.policies.lawam.stage1 import FrozenWorld, Stage1, frozen_world
from wamkit.policies.lawam.world_model import LatentWorldModel, StateHead
from wamkit.tree import Tree
from wamkit.types import Batch, DataSpec, Group, PartTable, Preprocessing


@dataclass(frozen=True)
class LaWAMWorldConfig(PolicyConfig):
    """Defaults are the published large model.

    features: what the world is predicted in. latent: structure of the networks.
    feature_loss: of the prediction; a row of FEATURE_LOSSES. beta: weight of the code's divergence from a standard
        normal distribution (the paper says 1e-5, the published code 5e-5). state_weight: of the state head's loss.
    state_dim: of the state head's tables; narrower states are filled up. Data without proprio has no state loss.
    robots, robot_rows: which row of these tables a robot has, and how many there are (robot_linear.RobotRows).
    augmentation: whether the networks see two augmented versions of a pair; features are cached without only.
    """

    features: FeaturesConfig = field(default_factory=DINOv3Config)
    latent: LatentSize = LatentSize()
    feature_loss: FeatureLoss = "smooth_l1"
    beta: float = 5e-5
    state_weight: float = 1.0
    state_dim: int = 14
    robots: tuple[tuple[str, int], ...] = ()
    robot_rows: int = 32
    augmentation: Augmentation = field(default_factory=TwoViews)
    kind: Literal["lawam_world"] = "lawam_world"
    about_losses: ClassVar[str] = (
        "features: error of the predicted features of the later frame; kl: divergence of the latent action; state: "
        "squared error of the predicted change of the robot's state"
    )

    def encoder(self, data: DataSpec, preprocessing: Preprocessing = "training") -> PairEncoder:
        """The frozen half. Raises BadInput naming a missing file."""
        return PairEncoder(self.features.load(), self.augmentation, data)

    def encoder_modules(self) -> dict[str, nn.Module]:
        """Its networks without their released weights, by row of the parameter table."""
        return {"image features": self.features.build()}

    def example_inputs(self, data: DataSpec, batch: int) -> Tree:
        """Zeros in the shapes of a training batch's inputs."""
        rows, columns = self.features.grid(data.view_height, data.view_width)
        versions, frames = self.augmentation.versions, len(data.frame_times)
        return {"features": torch.zeros(batch, versions, frames, rows * columns, self.features.dim)}

    def build(self, data: DataSpec, normalizer: Normalizer) -> LaWAMWorld:
        """The networks with random weights; without any under `torch.device("meta")`."""
        return LaWAMWorld(self, data, normalizer)

    def world_model(self, directory: Path, data: DataSpec, device: torch.device) -> FrozenWorld:
        """The latent world model of a run directory. Raises BadInput naming a missing file."""
        grid = self.features.grid(data.view_height, data.view_width)
        return frozen_world(Stage1(directory, self.features, self.latent, grid), directory, data, device)

    def __post_init__(self) -> None:
        check("policy", self, BOUNDS)


BOUNDS = {
    **dict.fromkeys(("beta", "state_weight"), NOT_NEGATIVE),
    "state_dim": AT_LEAST_1,
    "robot_rows": Bound("at least 2: human video and one robot", lambda rows: rows >= 2),
}


class PairEncoder(FrozenEncoder):
    """Pairs of frames -> features of both, once for each version that the augmentation makes."""

    def __init__(self, features: Features, augmentation: Augmentation, data: DataSpec) -> None:
        self.features, self.augmentation, self.data = features, augmentation, data

    @property
    def prepare(self) -> Prepare:
        """Draws camera and changes of a sample, as the augmentation says."""
        return Prepare(self.augmentation, self.data)

    @property
    def augments(self) -> bool:
        """Whether the same sample has other features in each epoch."""
        return self.augmentation.draws

    @property
    def fingerprint(self) -> Mapping[str, str]:
        """Names the features, camera and image size."""
        size = f"{self.data.view_height}x{self.data.view_width}"
        return {"features": self.features.fingerprint, "images": f"{self.data.views[0]} at {size}"}

    @torch.no_grad()
    def frames(self, prepared: Tree) -> Tree:
        """ "clips" uint8 [b v 2 h w 3] -> "features" [b v 2 s d]."""
        clips = prepared["clips"].to(self.device)
        return {"features": self.features(clips.flatten(0, 2)).unflatten(0, clips.shape[:3])}

    def to(self, device: torch.device) -> PairEncoder:
        """On `device`, in place."""
        self.features.to(device)
        super().to(device)
        return self


class LaWAMWorld(TrainedModule):
    """See the module docstring."""

    def __init__(self, config: LaWAMWorldConfig, data: DataSpec, normalizer: Normalizer) -> None:
        super().__init__(data, normalizer)
        expect_pairs(config, data)
        self.config = config
        grid = config.features.grid(data.view_height, data.view_width)
        self.inverse = InverseDynamics(config.latent, config.features.dim, grid)
        self.bottleneck = Bottleneck(config.latent.code)
        self.world = LatentWorldModel(config.latent, config.features.dim, grid)
        self.state_head: nn.Module = (
            StateHead(config.latent, config.robot_rows, config.state_dim)
            if data.proprio_dim
            else nn.Identity()
        )
        self.robots = RobotRows(config.robots, normalizer.embodiments, config.robot_rows)
        self.tables = Tables(state_valid=_state_valid(config, normalizer, self.robots))

    def separable(self, batch: Batch) -> bool:
        """The state loss is a mean over all dimensions, of which samples must have equally many."""
        return bool((batch.embodiment == batch.embodiment[0]).all())

    def targets(self, batch: Batch) -> Mapping[str, Tensor]:
        """The state loss is a mean over the state's dimensions of all robots."""
        valid = self.tables.get_buffer("state_valid")[batch.embodiment]
        return {"state": valid.sum()} if self.data.proprio_dim else {}

    @property
    def parts(self) -> PartTable:
        """The rows of its parameter table."""
        return PARTS

    @property
    def loss_weights(self) -> Mapping[str, float]:
        """The losses `forward` returns, and their weights in the total (spec 1.7)."""
        weights = {"features": 1.0, "kl": self.config.beta}
        return weights | ({"state": self.config.state_weight} if self.data.proprio_dim else {})

    def embodiment(self, names: Sequence[str]) -> Int[Tensor, " b"]:
        """Rows of the normaliser. BadInput for a robot it was not trained for, or that has no row in the tables."""
        self.robots.expect(names)
        return super().embodiment(names)

    def parameter_groups(self) -> list[Group]:
        """All alike, but biases never decay: those of the robots' tables have two dimensions, as matrices have."""
        trained = dict(self.named_parameters())
        biases = {name: p for name, p in trained.items() if name.endswith("bias")}
        return [
            Group({name: p for name, p in trained.items() if name not in biases}),
            Group(biases, decay=0.0),
        ]

    def forward(self, batch: Batch, draws: Draws) -> dict[str, Float[Tensor, ""]]:
        """Unweighted losses by name."""
        features = batch.inputs["features"]
        code = self.infer(features[:, 0])
        z = code.sample(draws.normal(code.mu))
        now, later = features[:, -1].unbind(1)
        losses: Mapping[str, Callable[[], Tensor]] = {
            "features": lambda: FEATURE_LOSSES[self.config.feature_loss](self.world(now, z), later),
            "kl": lambda: code.kl().sum(1).mean(),  # summed over its dimensions
            "state": lambda: self.state_loss(z, batch),
        }
        return {name: losses[name]() for name in self.loss_weights}

    def infer(self, pair: Float[Tensor, "b 2 s d"]) -> Code:
        """The latent action between two frames."""
        code: Code = self.bottleneck(self.inverse(pair))
        return code

    def state_loss(self, z: Float[Tensor, "b e"], batch: Batch) -> Float[Tensor, ""]:
        """Squared error of the change of the state, in unit range, of robots alone."""
        state = self.normalizer.to_unit("proprio", batch.inputs["frame_proprio"], batch.embodiment)
        now, later = F.pad(state, (0, self.config.state_dim - state.shape[-1])).unbind(1)
        change = self.state_head(z, now, self.robots(batch.embodiment))
        valid = self.tables.get_buffer("state_valid")[batch.embodiment]
        return squared_error(change, later - now, valid)


# Rows of the parameter table (spec 0).
PARTS: PartTable = (
    ("inverse-dynamics encoder", lambda name: name.startswith("inverse.")),
    ("bottleneck", lambda name: name.startswith("bottleneck.")),
    ("latent world model", lambda name: name.startswith("world.")),
    ("state head", lambda name: name.startswith("state_head.")),
)


def expect_pairs(config: LaWAMWorldConfig, data: DataSpec) -> None:
    """BadInput where the data does not give what stage 1 learns from."""
    if len(data.frame_times) != 2:
        raise BadInput(
            f"data.frame_times: stage 1 learns from two frames, now and at the horizon, got {data.frame_times}; give "
            "(0, seconds)"
        )
    if data.proprio_dim and not data.frame_proprio:
        raise BadInput(
            "data.frame_proprio: the state head learns the state's change between the two frames, expected True; or "
            "data.proprio_dim 0, to train without it"
        )
    if data.proprio_dim > config.state_dim:
        raise BadInput(
            f"policy.state_dim: {config.state_dim} numbers of state, the data has data.proprio_dim {data.proprio_dim}; "
            "give at least as many"
        )


def _state_valid(
    config: LaWAMWorldConfig, normalizer: Normalizer, robots: RobotRows
) -> Bool[Tensor, "robots {config.state_dim}"]:
    """By row of the normaliser: which numbers of the state are the robot's own; none of human video."""
    own = normalizer.dimensions("proprio")
    human = robots(torch.arange(len(own), device="cpu")) == HUMAN
    return F.pad(own, (0, config.state_dim - own.shape[1])) & ~human[:, None]
