"""Small LaWAM of the demo's three tasks: stage 1 (the latent world model), then stage 2 (the policy on it).

Claim: at least 90 % over the three demo tasks, collected, trained and measured in under 20 minutes on two CPU cores.
Command: `wamkit demo --policy lawam`. Results: docs/results.md.
"""

from __future__ import annotations

from dataclasses import replace

from wamkit.config import Normalization, Run
from wamkit.eval.evaluate import EvalConfig
from wamkit.policies.lawam.action_expert import TINY as EXPERT
from wamkit.policies.lawam.augment import NoAugmentation
from wamkit.policies.lawam.features import BlockFeaturesConfig
from wamkit.policies.lawam.latent_action import SIZES
from wamkit.policies.lawam.policy import LaWAMConfig
from wamkit.policies.lawam.prior import TINY, FromScratch
from wamkit.policies.lawam.prompt import HashedPromptConfig
from wamkit.policies.lawam.world import LaWAMWorldConfig
from wamkit.recipes.metaworld import ACTIONS, DATA, TRAIN

# The frame that is predicted is the one at the chunk's last action, as published (spec 2.6).
PAIR = replace(
    DATA,
    canvas="separate",
    frame_times=(0.0, 0.1875),
    past_end="supervised",
    proprio_dim=0,
)
FEATURES = BlockFeaturesConfig(coefficients=27, merge=2)
LATENT = SIZES["tiny"]
PROMPT = HashedPromptConfig()


def metaworld3_lawam_world() -> Run:
    """Stage 1: what changes between two frames, as a latent action, and the later frame's features from it."""
    return Run(
        recipe="metaworld3_lawam_world",
        suite="",
        policy=LaWAMWorldConfig(
            features=FEATURES, latent=LATENT, state_dim=4, robot_rows=2, augmentation=NoAugmentation()
        ),
        data=replace(PAIR, proprio_dim=DATA.proprio_dim, frame_proprio=True),
        actions=ACTIONS,
        normalization=Normalization(),
        train=replace(TRAIN, steps=600, batch_size=32, learning_rate=1e-3),
    )


def metaworld3_lawam() -> Run:
    """Stage 2: prior, subgoal and action expert; policy.world names the run directory of stage 1."""
    return Run(
        recipe="metaworld3_lawam",
        suite="metaworld3",
        policy=LaWAMConfig(
            world="runs/metaworld3_lawam_world",
            features=FEATURES,
            latent=LATENT,
            prompt=PROMPT,
            prior=TINY,
            start=FromScratch(),
            expert=EXPERT,
            robot_rows=2,
        ),
        data=PAIR,
        actions=ACTIONS,
        normalization=Normalization(),
        train=replace(TRAIN, steps=2400, batch_size=16, learning_rate=2e-3, warmup_steps=100),
        eval=EvalConfig(replan_steps=8),
    )
