"""Small LeRobot datasets of a square that moves over a gradient, and a run that fits them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from tests.policies.tiny_policy import SPEC, tiny_config
from wamkit.config import Run
from wamkit.data.actions import ActionSpace
from wamkit.data.lerobot.writer import Writer
from wamkit.eval.evaluate import EvalConfig
from wamkit.train.loop import TrainConfig
from wamkit.types import DataSpec

RUN = Run(
    recipe="tiny",
    suite="metaworld3",
    policy=replace(
        tiny_config(), text=replace(tiny_config().text, length=8), video_pool=2, objective="cotrain"
    ),
    data=SPEC,
    actions=ActionSpace(("x", "grip"), ("delta", "gripper")),
    train=TrainConfig(steps=2, batch_size=4, warmup_steps=1),
    eval=EvalConfig(),
)


def write(
    root: Path,
    lengths: Sequence[int],
    *,
    seed: int = 0,
    robot: str = "robot",
    last_look: bool = False,
    spec: DataSpec = SPEC,
    size: int = 32,
) -> Path:
    """A dataset with an episode of each length, as `spec` asks for it; its folder.

    last_look: the last step of each was recorded after its last action. size: pixels of the images.
    """
    video = {"dtype": "video", "shape": [size, size, 3]}
    features: dict[str, Any] = {f"observation.images.{view}": video for view in spec.views}
    dims = {"action": spec.action_dim, "observation.state": spec.proprio_dim}
    dims = {name: dim for name, dim in dims.items() if dim}
    features |= {name: {"dtype": "float32", "shape": [dim], "names": None} for name, dim in dims.items()}
    writer = Writer.create(root, spec.hz, robot, features)
    rng = np.random.default_rng(seed)
    for episode, length in enumerate(lengths):
        columns = {name: rng.normal(size=(length, dim)).astype(np.float32) for name, dim in dims.items()}
        views = {view: _moving(rng, length, size) for view in spec.views}
        extra = {"action_steps": length - 1} if last_look else {}
        writer.add_episode(columns, views, f"push the square {episode % 2}", extra)
    writer.finalize()
    return root


def _moving(rng: np.random.Generator, length: int, size: int) -> np.ndarray:
    ramp = np.linspace(0, 255, size)[None, :, None] * rng.uniform(0.3, 1, (3,))
    frames = np.broadcast_to(ramp, (length, size, size, 3)).astype(np.uint8).copy()
    for step in range(length):
        place = 4 + (3 * step) % 20
        frames[step, place : place + 8, 6:18] = rng.integers(0, 256, 3)
    return frames
