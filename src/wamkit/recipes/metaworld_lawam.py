"""Small LaWAM of the demo's three tasks: stage 1 (the latent world model), then stage 2 (the policy on it).

Claim: at least 90 % over the three demo tasks, collected, trained and measured in under 20 minutes on two CPU cores.
Command: `wamkit demo --policy lawam`. Results: docs/results.md.
"""

from __future__ import annotations

from dataclasses import replace

from wamkit.config import Normalization, Run
from wamkit.eval.evaluate import EvalConfig
from wamkit.recipes.metaworld import ACTIONS, DATA
from wamkit.recipes.presets import tiny_lawam, tiny_lawam_world, tiny_training

# The frame that is predicted is the one at the chunk's last action, as published (spec 2.6).
PAIR = replace(
    DATA,
    canvas="separate",
    frame_times=(0.0, 0.1875),
    past_end="supervised",
    proprio_dim=0,
)
WORLD = replace(PAIR, proprio_dim=DATA.proprio_dim, frame_proprio=True)


def metaworld3_lawam_world() -> Run:
    """Stage 1: what changes between two frames, as a latent action, and the later frame's features from it."""
    return Run(
        recipe="metaworld3_lawam_world",
        suite="",
        policy=tiny_lawam_world(WORLD),
        data=WORLD,
        actions=ACTIONS,
        normalization=Normalization(),
        train=tiny_training(600, batch_size=32, learning_rate=1e-3),
    )


def metaworld3_lawam() -> Run:
    """Stage 2: prior, subgoal and action expert; policy.world names the run directory of stage 1."""
    return Run(
        recipe="metaworld3_lawam",
        suite="metaworld3",
        policy=tiny_lawam(PAIR, world="runs/metaworld3_lawam_world"),
        data=PAIR,
        actions=ACTIONS,
        normalization=Normalization(),
        train=tiny_training(2400, batch_size=16, learning_rate=2e-3, warmup_steps=100),
        eval=EvalConfig(replan_steps=8),
    )
