"""The smallest Trainable that has everything a real one has, and clips for it; as a program, a training run.

python -m tests.train.tiny RUN_DIR STEP     interrupted (Ctrl-C) in that step; 0: in none
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from wamkit.data.clips import ClipSample
from wamkit.data.samples import Fresh
from wamkit.draws import Draws
from wamkit.train.loop import TrainConfig, train
from wamkit.tree import Tree
from wamkit.types import Batch, Clip, Group

CPU = torch.device("cpu")
TASKS = ("open the drawer", "press the button", "close the window")
CONFIG = TrainConfig(
    steps=40,
    batch_size=4,
    learning_rate=3e-3,
    warmup_steps=5,
    log_every=1,
    save_every=8,
    average_decay=0.9,
)


@dataclass(frozen=True)
class TinyClips:
    """`samples` clips of three frames and two views; consecutive samples are of one episode of ten steps."""

    samples: int

    def __len__(self) -> int:
        return self.samples

    def sample(self, i: int) -> ClipSample:
        random = np.random.default_rng(i)
        views = {
            name: torch.from_numpy(random.integers(0, 256, (1, 3, 16, 16, 3), np.uint8))
            for name in ("front", "wrist")
        }
        clip = Clip(
            views=views,
            proprio=torch.from_numpy(random.normal(size=(1, 4)).astype(np.float32)),
            instructions=(TASKS[i // 10 % len(TASKS)],),
            embodiments=(("arm", "hand")[i // 10 % 2],),
        )
        return ClipSample(
            clip=clip,
            actions=torch.from_numpy(random.normal(size=(1, 8, 2)).astype(np.float32)),
            action_is_pad=torch.tensor([[i % 10 + k > 9 for k in range(8)]]),
            valid=torch.tensor([[i % 10 + k <= 9 for k in range(8)]]),
            frame_is_pad=torch.tensor([[i % 10 + 3 * t > 9 for t in range(3)]]),
            hz=10.0,
            id=f"{i // 10}:{i % 10}",
        )


class TinyEncoder:
    """Two views side by side, pooled to a few numbers; the length of an instruction."""

    augments = False
    fingerprint = {"codec": "tiny"}  # noqa: RUF012

    @staticmethod
    def prepare(views: Tree, generator: torch.Generator) -> Tree:
        return views

    def frames(self, prepared: Tree) -> Tree:
        frames = torch.cat([view.float() / 127.5 - 1 for view in prepared.values()], dim=-2)
        b, t = frames.shape[:2]
        pooled = F.avg_pool2d(frames.flatten(0, 1).permute(0, 3, 1, 2), (4, 8))
        latents = pooled.unflatten(0, (b, t)).transpose(1, 2).to(torch.bfloat16)
        return {"present": latents[:, :, :1], "future": latents[:, :, 1:]}

    def text(self, instructions: Sequence[str]) -> Tree:
        return {"context": torch.stack([torch.full((6, 5), float(len(text))) for text in instructions])}

    def to(self, device: torch.device) -> TinyEncoder:
        return self


class TinyPolicy(nn.Module):
    """Frozen and trained parts, a norm, query tokens, a buffer that training changes, noise of its own."""

    loss_weights = {"video": 0.5, "action": 2.0}  # noqa: RUF012
    parts = (("all", lambda name: True),)

    def __init__(self, seed: int = 0) -> None:
        super().__init__()
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            self.backbone = nn.Linear(48, 32).requires_grad_(False)
            self.norm = nn.LayerNorm(32)
            self.query_tokens = nn.Parameter(torch.randn(3, 32))
            self.video_head = nn.Linear(32, 48)
            self.action_head = nn.Linear(36, 16)
        self.steps_seen: Tensor
        self.register_buffer("steps_seen", torch.zeros((), dtype=torch.int64))

    def separable(self, batch: Batch) -> bool:
        return False  # it counts its calls

    def targets(self, batch: Batch) -> dict[str, Tensor]:
        return {"action": batch.valid[..., 0].sum()}

    def embodiment(self, names: Sequence[str]) -> Tensor:
        return torch.tensor([("arm", "hand").index(name) for name in names])

    def parameter_groups(self) -> list[Group]:
        return [Group({name: p for name, p in self.named_parameters() if p.requires_grad})]

    def forward(self, batch: Batch, draws: Draws) -> dict[str, Tensor]:
        present, future = batch.inputs["present"].float().flatten(1), batch.inputs["future"].float()
        features = self.norm(self.backbone(present + 0.1 * draws.normal(present))) + self.query_tokens.mean(0)
        if self.training:
            self.steps_seen += 1
        video = self.video_head(features) - future.mean(2).flatten(1)
        actions = self.action_head(torch.cat([features, batch.inputs["proprio"]], 1)).unflatten(1, (8, 2))
        valid = batch.valid[..., 0]
        action = ((actions - batch.actions).square().mean(-1) * valid).sum() / valid.sum()
        return {"video": video.float().square().mean(), "action": action.float()}


def fresh(samples: int) -> Fresh:
    """Tiny samples that are encoded when they are asked for."""
    return Fresh(TinyClips(samples), TinyEncoder())


class Interrupted(TinyPolicy):
    """Its process is sent the signal during that step."""

    def __init__(self, step: int, number: signal.Signals) -> None:
        super().__init__()
        self.step, self.number = step, number

    def forward(self, batch: Batch, draws: Draws) -> dict[str, Tensor]:
        losses = super().forward(batch, draws)
        if self.steps_seen == self.step:
            os.kill(os.getpid(), self.number)
        return losses


def main(run_dir: Path, step: int) -> None:
    torch.set_num_threads(1)
    train(Interrupted(step, signal.SIGINT), fresh(30), CONFIG, run_dir, CPU)


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]))
