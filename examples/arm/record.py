"""Demonstrations of the arm as a LeRobot dataset (v2.1) with openpi's columns, as a lab may have them already.

    python examples/arm/record.py arm/dataset
    python examples/arm/record.py arm/dataset --episodes 10

Columns: `state` and `actions` (joint angles and targets), `image` and `wrist_image` (PNG in the data files). The files
need pyarrow and Pillow, nothing of wamkit. `Writer` of wamkit.data.lerobot.writer writes v3.0 with videos.
"""

from __future__ import annotations

import argparse
import io
import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from env import HZ, JOINTS, SIZE, TASK, Arm
from PIL import Image

VECTOR = {"dtype": "float32", "shape": [6], "names": list(JOINTS)}
PICTURE = {"dtype": "image", "shape": [SIZE, SIZE, 3], "names": ["height", "width", "channel"]}
NUMBERS = ("frame_index", "episode_index", "index", "task_index")
FEATURES = {
    "image": PICTURE,
    "wrist_image": PICTURE,
    "state": VECTOR,
    "actions": VECTOR,
    "timestamp": {"dtype": "float32", "shape": [1], "names": None},
    **{name: {"dtype": "int64", "shape": [1], "names": None} for name in NUMBERS},
}
DATA = "data/chunk-{episode_chunk:03d}/episode_{episode_index:06d}.parquet"


def demonstration(arm: Arm, seed: int) -> dict[str, list]:
    """One episode, column by column: what was seen at each step, and what the expert did there."""
    arm.reset(seed)
    rng = np.random.default_rng(seed)
    columns: dict[str, list] = {name: [] for name in ("image", "wrist_image", "state", "actions")}
    success = False
    while not success:
        seen, action = arm.observe(), arm.expert_action()
        for name, image in seen.images.items():
            columns[name].append({"bytes": png(image), "path": None})
        columns["state"].append(seen.proprio.tolist())
        columns["actions"].append(action.tolist())
        disturbed = action + rng.normal(0, 0.03, 6) * (1, 1, 1, 1, 1, 0)  # so that recovering is shown, too
        success = arm.step(disturbed).success
    return columns


def png(image: np.ndarray) -> bytes:
    """A compressed image."""
    file = io.BytesIO()
    Image.fromarray(image).save(file, "png")
    return file.getvalue()


def record(root: Path, episodes: int) -> None:
    """Write the dataset."""
    (root / "data/chunk-000").mkdir(parents=True)
    (root / "meta").mkdir()
    arm, lengths, steps = Arm(), [], 0
    for episode in range(episodes):
        columns = demonstration(arm, seed=episode)
        n = len(columns["actions"])
        numbers = (np.arange(n), np.full(n, episode), np.arange(steps, steps + n), np.zeros(n, np.int64))
        columns |= dict(zip(NUMBERS, numbers, strict=True), timestamp=np.arange(n, dtype=np.float32) / HZ)
        pq.write_table(pa.table(columns), root / DATA.format(episode_chunk=0, episode_index=episode))
        lengths.append(n)
        steps += n
    arm.close()
    meta = {"codebase_version": "v2.1", "robot_type": Arm.embodiment, "fps": int(HZ), "features": FEATURES}
    counts = {"total_episodes": episodes, "total_frames": steps, "total_tasks": 1, "total_videos": 0}
    layout = {"total_chunks": 1, "chunks_size": 1000, "splits": {"train": f"0:{episodes}"}, "data_path": DATA}
    (root / "meta/info.json").write_text(json.dumps(meta | counts | layout | {"video_path": None}, indent=2))
    write_lines(root / "meta/tasks.jsonl", [{"task_index": 0, "task": TASK.instruction}])
    rows = [{"episode_index": i, "tasks": [TASK.instruction], "length": n} for i, n in enumerate(lengths)]
    write_lines(root / "meta/episodes.jsonl", rows)
    print(f"{root}: {episodes} episodes, {steps} steps at {HZ:g} Hz")


def write_lines(path: Path, rows: list[dict]) -> None:
    """One JSON object per line."""
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("dataset", type=Path)
    parser.add_argument("--episodes", type=int, default=200)
    args = parser.parse_args()
    if args.dataset.exists():
        parser.error(f"{args.dataset} exists; name a new folder")
    record(args.dataset, args.episodes)
