"""A small recording that the data tests write, break and read again: three episodes, two cameras, two tasks."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from wamkit.data.lerobot.writer import Writer

FPS = 10
HEIGHT, WIDTH = 32, 48
LENGTHS = (12, 9, 20)
TASKS = ("push the button", "open the drawer", "push the button")
FEATURES = {
    "action": {"dtype": "float32", "shape": [3], "names": ["x", "y", "grip"]},
    "observation.state": {"dtype": "float32", "shape": [2], "names": ["x", "y"]},
    "next.success": {"dtype": "bool", "shape": [1], "names": None},
    "observation.images.top": {"dtype": "video", "shape": [HEIGHT, WIDTH, 3]},
    "observation.images.wrist": {"dtype": "video", "shape": [HEIGHT, WIDTH, 3]},
}


def columns(episode: int, length: int) -> dict[str, np.ndarray]:
    """The columns of an episode; no dimension is constant over the recording."""
    random = np.random.default_rng(episode)
    return {
        "action": random.normal(size=(length, 3)).astype(np.float32),
        "observation.state": random.normal(size=(length, 2)).astype(np.float32),
        "next.success": np.arange(length) == length - 1,
    }


def pictures(episode: int, length: int, camera: str = "top") -> np.ndarray:
    """Smooth colours that move, so that every frame differs from every other."""
    t, y, x = np.mgrid[0:length, 0:HEIGHT, 0:WIDTH]
    shift = 100 if camera == "wrist" else 0
    channels = [40 + 3 * x + 4 * t, 60 + 3 * y + 30 * episode, 30 + shift + 2 * (x + y) // 2 + 2 * t]
    return np.stack(channels, axis=-1).clip(0, 255).astype(np.uint8)


def add(writer: Writer, episode: int) -> None:
    """Add one episode of the recording."""
    length = LENGTHS[episode % len(LENGTHS)]
    videos = {camera: pictures(episode, length, camera) for camera in ("top", "wrist")}
    task = TASKS[episode % len(TASKS)]
    writer.add_episode(
        columns(episode, length), videos, task, {"initial_state": [0.5, episode], "seed": episode}
    )


def write(root: Path, episodes: int = len(LENGTHS)) -> Path:
    """Write the recording as a dataset."""
    writer = Writer.create(root, FPS, "testbot", FEATURES)
    for episode in range(episodes):
        add(writer, episode)
    writer.finalize()
    return root
