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

TRAIN = TrainConfig(steps=400, batch_size=32, learning_rate=1e-3, warmup_steps=20)


def metaworld3_cloning() -> Run:
    """The demo's three tasks. The policy is not told which: it has to see it."""
    demo = recipe("metaworld3")
    now = replace(demo.data, frame_times=(0.0,))  # no future is imagined, so none is read
    return replace(
        demo, recipe="metaworld3_cloning", policy=CloningConfig(), data=now, train=replace(TRAIN, steps=1000)
    )


def table_cloning() -> Run:
    """The robot of own_robot.py, on the dataset of own_dataset.py."""
    return Run(
        recipe="table_cloning",
        suite="",
        policy=CloningConfig(),
        data=DataSpec(
            views=("top",),
            canvas="single",
            view_height=64,
            view_width=64,
            hz=10.0,
            frame_times=(0.0,),
            chunk_seconds=0.8,
            proprio_dim=2,
            action_dim=2,
        ),
        actions=ActionSpace(names=("dx", "dy"), kinds=("delta", "delta")),
        train=TRAIN,
        eval=EvalConfig(replan_steps=4),
    )
