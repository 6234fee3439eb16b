"""Your recordings as a LeRobot dataset, and a small Light-WAM trained on them.

    python examples/own_dataset.py runs/table        dataset, latent cache and run directory, in a few minutes
    python examples/own_dataset.py runs/table --episodes 3 --steps 3        to see that it works

`record` is yours to replace: arrays of one episode after the other, from wherever they come.
"""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from own_robot import SIZE, Table

from wamkit.config import Run
from wamkit.data.actions import ActionSpace
from wamkit.data.check import check
from wamkit.data.lerobot.writer import Writer
from wamkit.eval.evaluate import EvalConfig
from wamkit.policies.light_wam.policy import StepWeights
from wamkit.recipes import recipe
from wamkit.stages.run import encode, train
from wamkit.types import DataSpec

FEATURES = {
    "action": {"dtype": "float32", "shape": [2], "names": ["dx", "dy"]},
    "observation.state": {"dtype": "float32", "shape": [2], "names": ["x", "y"]},
    "observation.images.top": {"dtype": "video", "shape": [SIZE, SIZE, 3]},
}
DATA = DataSpec(
    views=("top",),
    canvas="single",
    view_height=SIZE,
    view_width=SIZE,
    hz=10.0,
    frame_times=(0.0, 0.1, 0.2, 0.3, 0.4),  # now, and the future frames that the policy learns to imagine
    chunk_seconds=0.8,
    proprio_dim=2,
    action_dim=2,
)


def record(writer: Writer, seed: int) -> None:
    """One episode of t steps: pictures [t, h, w, 3], states [t, p], and the actions [t, a] taken there."""
    robot = Table()
    robot.reset(seed)
    seen, actions = [robot.observe()], [robot.expert_action()]
    while not robot.step(actions[-1]).success:
        seen.append(robot.observe())
        actions.append(robot.expert_action())
    writer.add_episode(
        columns={"action": np.stack(actions), "observation.state": np.stack([o.proprio for o in seen])},
        videos={"top": np.stack([o.images["top"] for o in seen])},
        task=robot.task.instruction,
    )


def table_run(steps: int) -> Run:
    """The demo's recipe with this robot's cameras, numbers and clock."""
    demo = recipe("metaworld3")
    return replace(
        demo,
        recipe="table",
        suite="table",
        data=DATA,
        actions=ActionSpace(names=("dx", "dy"), kinds=("delta", "delta")),
        policy=replace(demo.policy, step_weights=StepWeights(prefix=8)),
        train=replace(demo.train, steps=steps, warmup_steps=min(50, steps)),
        eval=EvalConfig(replan_steps=4),
    )


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("out", type=Path)
    parser.add_argument("--episodes", type=int, default=300)
    parser.add_argument("--steps", type=int, default=400)
    args = parser.parse_args()
    dataset, cache, run = args.out / "dataset", args.out / "cache", table_run(args.steps)
    if not dataset.exists():
        # Table.embodiment becomes the dataset's robot_type, the key of the policy's normaliser.
        writer = Writer.create(dataset, DATA.hz, Table.embodiment, FEATURES)
        for seed in range(args.episodes):
            record(writer, seed)
        writer.finalize()
    print(*check(dataset) or ["no problem found"], sep="\n")
    encode(run, [dataset], cache, torch.device("cpu"))
    train(run, [dataset], cache, args.out, torch.device("cpu"))
    print(f"now: python examples/own_robot.py {args.out}")
