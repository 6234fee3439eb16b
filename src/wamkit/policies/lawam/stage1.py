"""What a finished run of stage 1 gives: the world model that stage 2 starts from, its teacher, and both together as a
world model to look into (types.WorldModel).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import torch
from jaxtyping import Float, UInt8
from torch import Tensor, nn
from wamkit_client.types import BadInput

from wamkit.io.files import sha256
from wamkit.io.hub import local
from wamkit.io.records import read_record
from wamkit.io.tensors import load_strict
from wamkit.io.weights import WEIGHTS, run_weights
from wamkit.policies.lawam.features import Features, FeaturesConfig
from wamkit.policies.lawam.images import squeezed
from wamkit.policies.lawam.latent_action import LatentSize, Teacher
from wamkit.policies.lawam.world_model import LatentWorldModel
from wamkit.types import DataSpec

RUN_FILE = "run.json"


@dataclass(frozen=True)
class Stage1:
    """A finished run of stage 1 in `directory`, read where it is needed, and what it must be like."""

    directory: Path
    features: FeaturesConfig
    latent: LatentSize
    grid: tuple[int, int]

    @cached_property
    def teacher(self) -> Teacher:
        """On the CPU, in float32. Raises BadInput as `fill`."""
        with torch.device("meta"):
            teacher = Teacher(self.latent, self.features.dim, self.grid)
        self.fill({"inverse": teacher.inverse, "bottleneck": teacher.bottleneck})
        return teacher.float()

    @property
    def fingerprint(self) -> str:
        """Names its weights."""
        path = local(self.directory) / WEIGHTS
        if not path.is_file():
            raise BadInput(f"{path}: missing; policy.world names the finished run of stage 1 (docs/train.md)")
        return f"{sha256(path)[:16]}:{self.latent}"

    def fill(self, modules: Mapping[str, nn.Module]) -> None:
        """As `fill_parts`. BadInput where the directory is no stage 1, or has other features or another structure."""
        remedy = "name a run directory that `wamkit train` wrote for a policy of kind lawam_world"
        directory = local(self.directory)
        run = read_record(directory / RUN_FILE, Stage1Run, remedy)
        size = run.data.view_height, run.data.view_width
        pairs = {
            "features": (_structure(run.policy.features), _structure(self.features)),
            "latent sizes": (asdict(run.policy.latent), asdict(self.latent)),
            "grid of patches": (run.policy.features.grid(*size), self.grid),
        }
        for name, (found, expected) in pairs.items():
            if found != expected:
                raise BadInput(
                    f"{self.directory}: {name}: expected {expected}, got {found}; give this policy those of its stage "
                    "1, or name another run directory of stage 1"
                )
        fill_parts(directory, modules)


def fill_parts(directory: Path, modules: Mapping[str, nn.Module]) -> None:
    """Fill parts of a network, by name, from the weights of its run directory. BadInput where they do not fit."""
    weights = run_weights(directory)
    for part, module in modules.items():
        own = {name.removeprefix(f"{part}."): x for name, x in weights.items() if name.startswith(f"{part}.")}
        load_strict(module, own, f"{directory / WEIGHTS}, {part}")


@dataclass(frozen=True)
class Stage1Run:
    """What stage 2 reads of a `run.json` (wamkit/config.py)."""

    policy: Stage1Policy
    data: DataSpec


@dataclass(frozen=True)
class Stage1Policy:
    """What stage 2 must have in common with its stage 1."""

    features: FeaturesConfig
    latent: LatentSize
    kind: Literal["lawam_world"]


def _structure(features: FeaturesConfig) -> dict[str, Any]:
    """What features are, wherever their weights lie."""
    return {name: value for name, value in asdict(features).items() if name != "path"}


@dataclass(frozen=True)
class FrozenWorld:
    """A trained latent world model with everything that it is used with: a types.WorldModel."""

    features_of: Features
    teacher: Teacher
    world: LatentWorldModel
    data: DataSpec

    @property
    def grid(self) -> tuple[int, int]:
        """Rows and columns of patches."""
        return self.world.grid

    @property
    def view(self) -> str:
        """The first camera."""
        return self.data.views[0]

    @property
    def seconds(self) -> float:
        """From a frame to the later one of a pair."""
        return self.data.frame_times[-1]

    def features(self, frames: UInt8[Tensor, "b _ _ 3"]) -> Float[Tensor, "b s d"]:
        """Of images of the camera, cut and squeezed as in training."""
        device = self.world.input.weight.device
        return self.features_of(squeezed(frames.to(device), self.data.view_height, self.data.view_width))

    def infer(self, now: Float[Tensor, "b s d"], later: Float[Tensor, "b s d"]) -> Float[Tensor, "b e"]:
        """The mean latent action between two moments."""
        code: Tensor = self.teacher(torch.stack([now, later], dim=1))
        return code

    def information(self, now: Float[Tensor, "b s d"], later: Float[Tensor, "b s d"]) -> Float[Tensor, "b e"]:
        """Divergence of the latent action from its prior, per dimension, in nats (spec 1.3)."""
        return self.teacher.distribution(torch.stack([now, later], dim=1)).kl()

    @torch.no_grad()
    def step(self, now: Float[Tensor, "b s d"], code: Float[Tensor, "b e"]) -> Float[Tensor, "b s d"]:
        """The features at the horizon."""
        later: Tensor = self.world(now, code)
        return later


def frozen_world(stage1: Stage1, directory: Path, data: DataSpec, device: torch.device) -> FrozenWorld:
    """The latent world model of a run of either stage, and the teacher of stage 1. BadInput naming a missing file."""
    teacher, features = stage1.teacher, stage1.features
    with torch.device("meta"):
        world = LatentWorldModel(stage1.latent, features.dim, stage1.grid)
    fill_parts(directory, {"world": world})
    loaded = features.load()
    loaded.to(device)
    return FrozenWorld(loaded, teacher.to(device), world.to(device).requires_grad_(False), data)
