"""Write the dataset of a robot with the real LeRobot (run by build.py in its environment).

    python write_robot.py TARGET NAME        NAME: a row of robots.py

Four episodes of an arm with six joints and a gripper, which moves between random postures.
"""

import sys
from pathlib import Path

import numpy as np
import shim  # noqa: F401  (before lerobot)
from lerobot.datasets.lerobot_dataset import LeRobotDataset
from robots import FRESH, OLD

EPISODES, HEIGHT, WIDTH, JOINTS = 4, 48, 64, 6
TASKS = ("pick up the cup", "open the drawer")


def movement(seed, hz):
    """Joint angles [n + 1, 6] in radians, a gripper's commands [n] and its opening [n + 1]."""
    rng, n = np.random.default_rng(seed), max(24, hz)
    time = np.linspace(0, 1, n + 1)[:, None]
    begin, end = rng.uniform(-1.5, 1.5, (2, JOINTS))
    ease = (1 - np.cos(np.pi * time)) / 2
    angles = begin + (end - begin) * ease + 0.05 * np.sin(6 * time + np.arange(JOINTS))
    command = (np.arange(n) > n // 2).astype(float)
    opening = np.concatenate([[0.0], np.cumsum(command - 0.5).clip(-1, 1) / 2 + 0.5])
    return angles, command, opening


def image(camera, angles):
    """A dot that moves with two joints over a slow gradient."""
    y, x = np.mgrid[0:HEIGHT, 0:WIDTH]
    picture = np.stack([2 * x + 20 * camera, 3 * y, 0 * x + 60 * camera], axis=-1)
    column, row = WIDTH * (0.5 + angles[camera] / 5), HEIGHT * (0.5 + angles[camera + 1] / 5)
    picture[(x - column) ** 2 + (y - row) ** 2 < 30] = (250, 40, 40)
    return picture.astype(np.uint8)


def main():
    target, robot = Path(sys.argv[1]), FRESH[sys.argv[2]]
    names = [f"joint_{i}" for i in range(JOINTS)] + ["gripper"]
    state, action = robot.columns
    vector = {"dtype": "float32", "shape": (JOINTS + 1,)}
    camera = {"dtype": robot.storage, "shape": (HEIGHT, WIDTH, 3), "names": ["height", "width", "channel"]}
    features = {
        # openpi's own conversions name the column, not its dimensions
        state: vector | {"names": names if robot.style == "lerobot" else [state]},
        action: vector | {"names": names if robot.style == "lerobot" else [action]},
        **dict.fromkeys(robot.camera_keys, camera),
    }
    dataset = LeRobotDataset.create(
        "wamkit/robot",
        fps=robot.hz,
        features=features,
        root=target,
        robot_type="testarm",
        use_videos=robot.storage == "video",
    )
    for episode in range(EPISODES):
        angles, command, opening = movement(episode, robot.hz)
        for step, now in enumerate(angles[:-1]):
            then = angles[step + 1]
            frame = {
                state: np.append(now, opening[step]).astype(np.float32),
                action: np.append(then - now if robot.kind == "delta" else then, command[step]).astype(
                    np.float32
                ),
                **{key: image(i, now) for i, key in enumerate(robot.camera_keys)},
            }
            task = TASKS[episode % 2]
            if robot.version == OLD:
                dataset.add_frame(frame, task=task)
            else:
                dataset.add_frame(frame | {"task": task})
        dataset.save_episode()
    if robot.version != OLD:
        dataset.finalize()


if __name__ == "__main__":
    main()
