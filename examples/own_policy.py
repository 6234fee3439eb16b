"""Your own policy with the loop, the data and the robots of this toolkit: behaviour cloning by a small CNN.

    python examples/own_policy.py runs/table/dataset runs/cloning        needs the dataset of own_dataset.py

The loop asks for three attributes and two methods (wamkit/types.py: Trainable), acting for two more (Policy):
`encode` is the frozen half, whose result can be cached; the call is the learned half and returns losses.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from own_dataset import DATA, table_run
from own_robot import evaluate
from torch import Tensor, nn

from wamkit.data.canvas import tile
from wamkit.data.clips import Clips
from wamkit.data.lerobot.dataset import Dataset
from wamkit.data.loader import Fresh
from wamkit.data.normalize import Normalizer
from wamkit.infer.engine import Engine
from wamkit.stages.run import fit_normalizer
from wamkit.train.loop import TrainConfig, train
from wamkit.types import Actor, Batch, Clip, DataSpec


@dataclass(frozen=True)
class Seen:
    """What `encode` returns: the canvas now [b, 3, h, w] in [-1, 1], proprio [b, p] in physical units."""

    canvas: Tensor
    proprio: Tensor


class Cloning(nn.Module):
    """Picture and proprio -> chunk in unit range. The normaliser is the policy's own."""

    inputs_type = Seen
    loss_weights = {"action": 1.0}  # noqa: RUF012 - as the protocol has it

    def __init__(self, data: DataSpec, normalizer: Normalizer) -> None:
        super().__init__()
        self.data, self.normalizer = data, normalizer
        convolutions = [nn.Conv2d(3, 32, 5, 2), nn.GELU(), nn.Conv2d(32, 64, 5, 2), nn.GELU()]
        self.picture = nn.Sequential(*convolutions, nn.Flatten(), nn.LazyLinear(256), nn.GELU())
        self.chunk = nn.Linear(256 + data.proprio_dim, data.horizon * data.action_dim)

    def encode(self, clip: Clip) -> Seen:
        """Nothing is frozen here but the tiling of the views."""
        return Seen(tile(clip.views, self.data)[:, :, 0], clip.proprio)

    def predict(self, seen: Seen, embodiments: tuple[str, ...]) -> Tensor:
        """The chunk in unit range, [b, k, a]."""
        proprio = self.normalizer.to_unit("proprio", seen.proprio, embodiments)
        features = torch.cat([self.picture(seen.canvas), proprio], dim=1)
        return self.chunk(features).unflatten(1, (-1, self.data.action_dim))

    def forward(self, batch: Batch, generator: torch.Generator) -> dict[str, Tensor]:
        """Unweighted losses by name; steps after the episode's end (`action_is_pad`) count nothing."""
        target = self.normalizer.to_unit("action", batch.actions, batch.embodiments)
        error = F.mse_loss(self.predict(batch.inputs, batch.embodiments), target, reduction="none")
        return {"action": error[~batch.action_is_pad].mean()}

    def act(
        self, inputs: Seen, embodiments: tuple[str, ...], generators: Sequence[torch.Generator]
    ) -> Tensor:
        """Physical units, [b, k, a]."""
        return self.normalizer.to_physical("action", self.predict(inputs, embodiments), embodiments)

    def actor(self) -> Actor:
        """Nothing to prepare: acting is `act` itself."""
        return self.act


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("dataset", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--steps", type=int, default=400)
    args = parser.parse_args()
    cpu, dataset, run = torch.device("cpu"), Dataset.open(args.dataset), table_run(args.steps)
    policy = Cloning(DATA, fit_normalizer(run, dataset))
    source = Fresh(Clips(dataset, DATA, run.actions), policy, cpu)
    policy(source.batch([0]), torch.Generator())  # tells the lazy layer its width
    config = TrainConfig(
        steps=args.steps, batch_size=32, learning_rate=1e-3, warmup_steps=min(20, args.steps)
    )
    train(policy, source, config, args.out, cpu)
    evaluate(Engine(policy.eval(), cpu))
