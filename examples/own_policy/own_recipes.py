"""The plug-in's recipes: functions that return a frozen Run."""

from __future__ import annotations

from dataclasses import replace

from own_policy import CloningConfig

from wamkit.config import Run
from wamkit.data.actions import ActionSpace
from wamkit.eval.evaluate import EvalConfig
from wamkit.recipes import recipe
from wamkit.train.loop import TrainConfig
from wamkit.types import DataSpec

JOINTS = ("shoulder_pan", "shoulder_lift", "elbow_flex", "wrist_flex", "wrist_roll", "gripper")
TRAIN = TrainConfig(steps=400, batch_size=32, learning_rate=1e-3, warmup_steps=20)


def metaworld3_cloning() -> Run:
    """The demo's three tasks. The policy is not told which: it has to see it."""
    demo = recipe("metaworld3")
    now = replace(demo.data, frame_times=(0.0,))  # no future is imagined, so none is read
    return replace(
        demo, recipe="metaworld3_cloning", policy=CloningConfig(), data=now, train=replace(TRAIN, steps=1000)
    )


def arm_cloning() -> Run:
    """The arm of examples/arm, on its demonstrations."""
    return Run(
        recipe="arm_cloning",
        suite="",
        policy=CloningConfig(),
        data=DataSpec(
            views=("image", "wrist_image"),
            canvas="horizontal",
            view_height=64,
            view_width=64,
            hz=15.0,
            frame_times=(0.0,),
            chunk_seconds=0.8,
            proprio_dim=6,
            action_dim=6,
            columns={"action": "actions", "proprio": "state"},
        ),
        actions=ActionSpace(names=JOINTS, kinds=(*["absolute"] * 5, "gripper")),
        train=TRAIN,
        eval=EvalConfig(replan_steps=6),
    )
