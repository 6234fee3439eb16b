"""A stage 1 of LaWAM small enough for tests, and a run that fits tiny datasets."""

from __future__ import annotations

from dataclasses import replace

import torch

from tests.policies.tiny_policy import SPEC, shaken, tiny_normalizer
from tests.tiny_dataset import RUN
from wamkit.config import Run
from wamkit.policies.lawam.augment import NoAugmentation
from wamkit.policies.lawam.features import BlockFeaturesConfig
from wamkit.policies.lawam.latent_action import LatentSize
from wamkit.policies.lawam.world import LaWAMWorld, LaWAMWorldConfig
from wamkit.train.loop import TrainConfig

PAIRS = replace(SPEC, canvas="separate", frame_times=(0.0, 0.4), frame_proprio=True)
CONFIG = LaWAMWorldConfig(
    features=BlockFeaturesConfig(coefficients=12),
    latent=LatentSize(
        width=16, heads=2, ffn=24, inverse_layers=2, world_layers=2, code=4, positions="concatenated"
    ),
    state_dim=4,
    robot_rows=3,
    augmentation=NoAugmentation(),
)
PAIR_RUN: Run = replace(
    RUN,
    recipe="tiny_world",
    policy=CONFIG,
    data=PAIRS,
    train=TrainConfig(steps=6, batch_size=4, warmup_steps=1),
)


def tiny_world(config: LaWAMWorldConfig = CONFIG) -> LaWAMWorld:
    """Random weights, so that every path is visible in the output."""
    torch.manual_seed(0)
    return shaken(LaWAMWorld(config, PAIRS, tiny_normalizer()))
