"""The published systems on RoboTwin 2.0, each one run on fifty tasks: Light-WAM (arXiv 2606.08242; spec 3-5) and
Fast-WAM (arXiv 2603.16666; spec 4-5).

Data: LeRobot v2.x with cameras `cam_high`, `cam_left_wrist`, `cam_right_wrist`, 14 absolute joint targets.
"""

from __future__ import annotations

from wamkit.config import Normalization, Run
from wamkit.data.actions import ActionSpace
from wamkit.eval.evaluate import EvalConfig
from wamkit.policies.fast_wam.policy import FastWAMConfig
from wamkit.policies.light_wam.policy import LightWAMConfig, StepWeights
from wamkit.train.loop import TrainConfig
from wamkit.types import DataSpec

HZ = 50.0
ARMS = ("left", "right")
JOINTS = (*(f"joint{i}" for i in range(6)), "gripper")
ACTIONS = ActionSpace(
    names=tuple(f"{arm}_{joint}" for arm in ARMS for joint in JOINTS),
    kinds=(("absolute",) * 6 + ("gripper",)) * 2,
)
DATA = DataSpec(
    views=("cam_high", "cam_left_wrist", "cam_right_wrist"),
    canvas="robotwin",
    view_height=240,
    view_width=320,
    hz=HZ,
    frame_times=tuple(4 * i / HZ for i in range(9)),
    chunk_seconds=32 / HZ,
    proprio_dim=14,
    action_dim=14,
    held_out=0.01,  # what the released runs validated on
)


def robotwin() -> Run:
    """Published: 76.4 % clean, 76.3 % randomised (460,000 of 500,000 steps)."""
    return Run(
        recipe="robotwin",
        suite="robotwin_clean",
        policy=LightWAMConfig(step_weights=StepWeights(prefix=24), time_precision="bfloat16"),
        data=DATA,
        actions=ACTIONS,
        normalization=Normalization("z_score", "z_score", statistics="published_windows"),
        # Four GPUs, sixteen samples each, two parts to an optimizer step.
        train=TrainConfig(
            steps=500_000,
            batch_size=128,
            accumulation=2,
            learning_rate=1e-4,
            decayed="all",
            clip_norm="none",
            precision="bf16",
        ),
        eval=EvalConfig(replan_steps=24),
    )


def robotwin_fast_wam() -> Run:
    """Published: 91.9 % clean, 91.8 % randomised."""
    steps = 30_000
    return Run(
        recipe="robotwin_fast_wam",
        suite="robotwin_clean",
        policy=FastWAMConfig(time_precision="bfloat16", noise="published"),
        data=DATA,
        actions=ACTIONS,
        normalization=Normalization("z_score", "z_score", statistics="published_windows"),
        # One decay group and no clipping, as on LIBERO.
        train=TrainConfig(
            steps=steps,
            batch_size=1024,
            learning_rate=1e-4,
            warmup_steps=steps // 20,
            decayed="all",
            clip_norm="none",
            warmup_start=1 / (steps // 20),
            precision="bf16",
        ),
        eval=EvalConfig(replan_steps=24, preprocessing="published"),
    )
