"""Read a dataset with the real LeRobot and save every item (run in the oracle environment).

    python read_items.py DATASET OUT.npz

OUT.npz: one array per numeric column, `task` as texts, cameras as uint8 [n, h, w, 3], `stats/<feature>/<name>`.
"""

import sys
from pathlib import Path

import numpy as np
import shim  # noqa: F401  (before lerobot)
from lerobot.datasets.lerobot_dataset import LeRobotDataset


def main() -> None:
    dataset = LeRobotDataset("wamkit/oracle", root=Path(sys.argv[1]), video_backend="torchcodec")
    items = [dataset[i] for i in range(len(dataset))]
    arrays = {"task": np.array([item["task"] for item in items])}
    for name in items[0]:
        if name == "task":
            continue
        stacked = np.stack([item[name].numpy() for item in items])
        if name in dataset.meta.camera_keys:
            stacked = (stacked * 255).round().astype(np.uint8).transpose(0, 2, 3, 1)
        arrays[name] = stacked
    for name, statistics in dataset.meta.stats.items():
        arrays |= {f"stats/{name}/{statistic}": np.asarray(v) for statistic, v in statistics.items()}
    np.savez_compressed(sys.argv[2], **arrays)
    print(
        f"{len(items)} items, {dataset.num_episodes} episodes, tasks {sorted(set(arrays['task'].tolist()))}"
    )


if __name__ == "__main__":
    main()
