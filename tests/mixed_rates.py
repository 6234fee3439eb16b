"""One robot's data at 80, 40 and 20 Hz, mixed as LaWAM's co-training has it (spec 6.7), and stage 1 trained on it.

As a program: trains into the folder `run` of its argument, and kills itself before the fourth step.
"""

from __future__ import annotations

import os
import signal
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from tests import tiny_dataset
from tests.policies import tiny_lawam
from tests.policies.tiny_lawam_world import PAIR_RUN, PAIRS
from wamkit.config import Run, Source
from wamkit.convert.downsample import Downsampling, downsample
from wamkit.policies.lawam.world import LaWAMWorld
from wamkit.stages.run import train
from wamkit.train.loop import TrainConfig
from wamkit.types import DataSpec

CHUNK_SECONDS = 0.4
NATIVE = 80
RATES = (80, 40, 20)
SPACE = tiny_dataset.RUN.actions
CPU = torch.device("cpu")
NO_CACHE = Path()


def at(hz: int) -> DataSpec:
    """The same seconds at a rate; the later frame is that of the last action (spec 2.6)."""
    return replace(
        PAIRS,
        hz=float(hz),
        chunk_seconds=CHUNK_SECONDS,
        frame_times=(0.0, CHUNK_SECONDS - 1 / hz),
        past_end="supervised",
    )


def robot(hz: int) -> str:
    return "robot" if hz == NATIVE else f"robot-{hz}hz"


SOURCES = tuple(
    Source(f"{hz}hz", at(hz), SPACE, weight=2.0 if hz == 20 else 1.0, robot=robot(hz)) for hz in RATES
)
RUN: Run = replace(
    PAIR_RUN,
    recipe="tiny_mixed",
    policy=replace(PAIR_RUN.policy, latent=replace(PAIR_RUN.policy.latent, code=8), robot_rows=5),
    data=at(NATIVE),
    actions=SPACE,
    sources=SOURCES,
    train=TrainConfig(steps=6, batch_size=8, warmup_steps=1, log_every=1, save_every=3),
)


def policy_run(world: Path) -> Run:
    """Stage 2 on a stage 1 of RUN; the copies are the same robot to its tables."""
    policy = replace(
        tiny_lawam.CONFIG,
        world=str(world),
        features=RUN.policy.features,
        latent=RUN.policy.latent,
        expert=replace(tiny_lawam.CONFIG.expert, tokens=32),
        robots=tuple((robot(hz), 1) for hz in RATES),
    )
    without = {"proprio_dim": 0, "frame_proprio": False}
    sources = tuple(replace(source, data=replace(source.data, **without)) for source in SOURCES)
    return replace(
        RUN, recipe="tiny_mixed_policy", policy=policy, data=replace(RUN.data, **without), sources=sources
    )


def datasets(folder: Path) -> list[Path]:
    """The data at each rate."""
    return [folder / f"{hz}" for hz in RATES]


def write(folder: Path) -> None:
    """Records the native data and copies it."""
    native, *copies = datasets(folder)
    tiny_dataset.write(native, (45, 38), spec=at(NATIVE))
    for path, hz in zip(copies, RATES[1:], strict=True):
        downsample(native, path, Downsampling(NATIVE // hz, SPACE))


def main(folder: Path) -> None:
    """Trains, and is killed."""
    calls, forward = [], LaWAMWorld.forward

    def killed(self: LaWAMWorld, *given: Any) -> Any:
        calls.append(1)
        if len(calls) == 5:
            os.kill(os.getpid(), signal.SIGKILL)
        return forward(self, *given)

    LaWAMWorld.forward = killed  # type: ignore[method-assign]
    train(RUN, datasets(folder), NO_CACHE, folder / "run", CPU)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
