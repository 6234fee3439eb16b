"""Write a small dataset with the real LeRobot of either version (run by build.py in its environment).

    python write_fixture.py TARGET video|image

Two episodes of 12 and 9 steps at 10 frames per second, two tasks, two cameras, vectors and a scalar column.
"""

import sys
from importlib.metadata import version
from pathlib import Path

import numpy as np
import shim  # noqa: F401  (before lerobot)
from lerobot.datasets.lerobot_dataset import LeRobotDataset

CAMERA = {"shape": (48, 64, 3), "names": ["height", "width", "channel"]}
FEATURES = {
    "action": {"dtype": "float32", "shape": (3,), "names": ["x", "y", "grip"]},
    "observation.state": {"dtype": "float32", "shape": (2,), "names": ["x", "y"]},
    "next.reward": {"dtype": "float32", "shape": (1,), "names": None},
}
LENGTHS = (12, 9)
TASKS = ("push the button", "open the drawer")


def frame(episode: int, step: int) -> dict:
    y, x = np.mgrid[0:48, 0:64]
    top = np.stack([4 * x + 5 * step, 5 * y + 40 * episode, 128 + 0 * x], axis=-1) % 256
    wrist = np.stack([255 - 2 * x, 100 + 10 * step + 0 * x, 3 * y], axis=-1)
    return {
        "action": np.array([step / 10, -episode, step % 2], np.float32),
        "observation.state": np.array([step, episode + 0.5], np.float32),
        "next.reward": np.array([step == LENGTHS[episode] - 1], np.float32),
        "observation.images.top": top.astype(np.uint8),
        "observation.images.wrist": wrist.astype(np.uint8),
    }


def main() -> None:
    target, kind = Path(sys.argv[1]), sys.argv[2]
    cameras = {f"observation.images.{name}": {"dtype": kind, **CAMERA} for name in ("top", "wrist")}
    old = version("lerobot").startswith("0.3")
    dataset = LeRobotDataset.create(
        "wamkit/fixture",
        fps=10,
        features=FEATURES | cameras,
        root=target,
        robot_type="testbot",
        use_videos=kind == "video",
    )
    for episode, (length, task) in enumerate(zip(LENGTHS, TASKS, strict=True)):
        for step in range(length):
            if old:
                dataset.add_frame(frame(episode, step), task=task)
            else:
                dataset.add_frame(frame(episode, step) | {"task": task})
        dataset.save_episode()
    if not old:
        dataset.finalize()


if __name__ == "__main__":
    main()
