"""Your own policy: behaviour cloning by a small CNN, as a plug-in.

    pip install --no-deps examples/own_policy
    wamkit train metaworld3_cloning --dataset demo/dataset --out runs/cloning --train.steps 300

A policy is three classes. The config is saved with every run and builds the other two; the encoder is the frozen half,
whose results may be cached; the network is the half that learns. `pyproject.toml` names the config, and the recipes.
This module must not import wamkit.config, which imports it; recipes do (own_recipes.py).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from wamkit.data.canvas import canvas_size, tile
from wamkit.data.normalize import Normalizer
from wamkit.draws import Draws
from wamkit.policies.base import FrozenEncoder, PolicyConfig, PolicyModule
from wamkit.tree import Tree
from wamkit.types import Batch, DataSpec, Preprocessing, Query


@dataclass(frozen=True)
class CloningConfig(PolicyConfig):
    """channels: of the last two convolutions. width: of the features.

    A field is a flag of the command line (`--policy.width 512`) and a line of `run.json`.
    """

    channels: int = 64
    width: int = 256
    kind: Literal["cloning"] = "cloning"

    def encoder(self, data: DataSpec, preprocessing: Preprocessing = "training") -> Canvas:
        """The frozen half. One with weights reads them here."""
        return Canvas(data, preprocessing)

    def example_inputs(self, data: DataSpec, batch: int) -> Tree:
        """Zeros in the shapes of what the encoder returns: `wamkit train --plan` counts memory with them."""
        return {"canvas": torch.zeros(batch, 3, *canvas_size(data))}

    def build(self, data: DataSpec, normalizer: Normalizer) -> Cloning:
        """The half that learns, with random weights."""
        return Cloning(self, data, normalizer)


class Canvas(FrozenEncoder):
    """All views tiled on one canvas. Training and acting call the same encoder: acting, with one frame."""

    def __init__(self, data: DataSpec, preprocessing: Preprocessing) -> None:
        self.data, self.preprocessing = data, preprocessing

    @property
    def fingerprint(self) -> Mapping[str, str]:
        """Everything that the results depend on, by name: a latent cache of another fingerprint is refused."""
        data = self.data
        size = f"{data.view_height}x{data.view_width}"
        return {"canvas": f"{data.canvas} of {', '.join(data.views)} at {size}, now"}

    def frames(self, prepared: Tree) -> Tree:
        """Views uint8 [b t h w 3] -> "canvas" [b 3 H W] of the present frame, in [-1, 1]."""
        now = {view: frames[:, :1].to(self.device) for view, frames in prepared.items()}
        return {"canvas": tile(now, self.data, self.preprocessing)[:, :, 0]}


class Cloning(PolicyModule):
    """Image and proprio -> chunk. The normalizer is the policy's own: what it takes and returns is physical."""

    loss_weights: ClassVar[Mapping[str, float]] = {"action": 1.0}

    def __init__(self, config: CloningConfig, data: DataSpec, normalizer: Normalizer) -> None:
        super().__init__(data, normalizer)
        half, full = config.channels // 2, config.channels
        height, width = canvas_size(data)
        features = full * -(-height // 8) * -(-width // 8)
        self.image = nn.Sequential(
            *(nn.Conv2d(3, half, 5, stride=2, padding=2), nn.GELU()),
            *(nn.Conv2d(half, full, 5, stride=2, padding=2), nn.GELU()),
            *(nn.Conv2d(full, full, 5, stride=2, padding=2), nn.GELU()),
            *(nn.Flatten(), nn.Linear(features, config.width), nn.GELU()),
        )
        self.chunk = nn.Linear(config.width + data.proprio_dim, data.horizon * data.action_dim)

    def predict(self, inputs: Tree, embodiment: Tensor) -> Tensor:
        """The chunk in unit range, [b k a]. inputs: what the encoder returned, and "proprio" [b p]."""
        proprio = self.normalizer.to_unit("proprio", inputs["proprio"], embodiment)
        features = torch.cat([self.image(inputs["canvas"]), proprio], dim=1)
        return self.chunk(features).unflatten(1, (self.data.horizon, self.data.action_dim))

    def forward(self, batch: Batch, draws: Draws) -> dict[str, Tensor]:
        """Unweighted losses by name. All randomness comes from `draws`; only `valid` actions are targets.

        `wamkit train --plan` runs it on the meta device, so no shape may depend on values: `error[batch.valid]` would.
        """
        target = self.normalizer.to_unit("action", batch.actions, batch.embodiment)
        error = F.mse_loss(self.predict(batch.inputs, batch.embodiment), target, reduction="none")
        return {"action": (error * batch.valid).sum() / batch.valid.sum()}

    def act(self, query: Query) -> Tensor:
        """Chunks [b k a] in physical units."""
        return self.normalizer.to_physical(
            "action", self.predict(query.inputs, query.embodiment), query.embodiment
        )
