"""The smallest Trainable that has everything a real one has, and clips for it; as a program, a training run.

python -m tests.train.tiny RUN_DIR [SECONDS_PER_STEP]
"""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from wamkit.data.clips import ClipSample
from wamkit.data.loader import Fresh, Source
from wamkit.train.loop import TrainConfig, train
from wamkit.types import Batch, Clip, Inputs

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
            frame_is_pad=torch.tensor([[i % 10 + 3 * t > 9 for t in range(3)]]),
            id=f"{i // 10}:{i % 10}",
        )


class TinyPolicy(nn.Module):
    """Frozen and trained parts, a norm, query tokens, a buffer that training changes, noise from the generator."""

    loss_weights = {"video": 0.5, "action": 2.0}  # noqa: RUF012
    inputs_type = Inputs

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

    def encode(self, clip: Clip) -> Inputs:
        frames = torch.cat([view.float() / 127.5 - 1 for view in clip.views.values()], dim=-2)
        b, t = frames.shape[:2]
        pooled = F.avg_pool2d(frames.flatten(0, 1).permute(0, 3, 1, 2), (4, 8))
        latents = pooled.unflatten(0, (b, t)).transpose(1, 2).to(torch.bfloat16)
        context = torch.stack([torch.full((6, 5), float(len(text))) for text in clip.instructions])
        return Inputs(latents[:, :, :1], latents[:, :, 1:], context, clip.proprio)

    def forward(self, batch: Batch, generator: torch.Generator) -> dict[str, Tensor]:
        present, future = batch.inputs.present.float().flatten(1), batch.inputs.future.float()
        noise = torch.randn(present.shape, generator=generator, device=present.device)
        features = self.norm(self.backbone(present + 0.1 * noise)) + self.query_tokens.mean(0)
        if self.training:
            self.steps_seen += 1
        video = self.video_head(features) - future.mean(2).flatten(1)
        actions = self.action_head(torch.cat([features, batch.inputs.proprio], 1)).unflatten(1, (8, 2))
        valid = ~batch.action_is_pad
        action = ((actions - batch.actions).square().mean(-1) * valid).sum() / valid.sum()
        return {"video": video.float().square().mean(), "action": action.float()}


@dataclass(frozen=True)
class Slow:
    """A source that takes its time, so that a test can interrupt a run."""

    source: Source
    seconds: float

    def __len__(self) -> int:
        return len(self.source)

    def batch(self, indices: Sequence[int]) -> Batch:
        time.sleep(self.seconds)
        return self.source.batch(indices)


def main(run_dir: Path, seconds: float) -> None:
    torch.set_num_threads(1)
    policy = TinyPolicy()
    train(policy, Slow(Fresh(TinyClips(30), policy, CPU), seconds), CONFIG, run_dir, CPU)


if __name__ == "__main__":
    main(Path(sys.argv[1]), float(sys.argv[2]))
