"""Policies in two sizes for any robot: tiny ones train from nothing on two CPU cores, full ones start from released
weights and need a GPU. The small recipes are built of the tiny ones, and `wamkit init` writes recipes of either.

Where a policy's networks depend on the data, `data` says how; every other value is the same for all robots.
"""

from __future__ import annotations

from dataclasses import replace

from wamkit.policies.fast_wam.policy import FastWAMConfig, FromVideoModel
from wamkit.policies.fast_wam.policy import FromScratch as NoVideoModel
from wamkit.policies.lawam.action_expert import TINY as TINY_EXPERT
from wamkit.policies.lawam.augment import NoAugmentation
from wamkit.policies.lawam.features import BlockFeaturesConfig
from wamkit.policies.lawam.latent_action import SIZES as LATENTS
from wamkit.policies.lawam.policy import LaWAMConfig
from wamkit.policies.lawam.prior import TINY as TINY_PRIOR
from wamkit.policies.lawam.prior import FromScratch
from wamkit.policies.lawam.prompt import HashedPromptConfig
from wamkit.policies.lawam.world import LaWAMWorldConfig
from wamkit.policies.light_wam.policy import FullTuning, LightWAMConfig, StepWeights
from wamkit.policies.light_wam.state_fusion import StateFusionConfig
from wamkit.types import DataSpec
from wamkit.wan.dit import SIZES, Adapters
from wamkit.wan.encoders import BlockCodecConfig, HashedTextConfig

TINY_FEATURES = BlockFeaturesConfig(coefficients=27, merge=2)
ONE_ROBOT = 2
"""Rows of LaWAM's tables: human video, and the robot."""


def tiny_light_wam(data: DataSpec, words: int = 16) -> LightWAMConfig:
    """Everything is trained, and every action of a chunk is a target. words: of the longest instruction, and one
    more."""
    return LightWAMConfig(
        codec=BlockCodecConfig(),
        text=HashedTextConfig(width=64, length=words),
        size=SIZES["tiny"],
        tuning=FullTuning(),
        adapters=Adapters(layers=(1, 3, 5), dim=64),
        expert=StateFusionConfig(
            queries=8, heads=4, level_dim=256, trunk_dim=512, trunk_blocks=1, step_dim=64, query_std=1.0
        ),
        video_pool=1,
        objective="cotrain_one_pass",
        video_weight=0.3,
        step_weights=StepWeights(prefix=data.horizon),
    )


def full_light_wam(executed: int) -> LightWAMConfig:
    """Wan2.1-1.3B, frozen but for low-rank additions; docs/weights.md. executed: eval.replan_steps, all of them
    targets."""
    return LightWAMConfig(step_weights=StepWeights(prefix=executed))


def tiny_fast_wam(words: int = 16) -> FastWAMConfig:
    """As `tiny_light_wam`, with an action model of the video model's depth."""
    return FastWAMConfig(
        codec=BlockCodecConfig(),
        text=HashedTextConfig(width=64, length=words),
        size=SIZES["tiny"],
        action_width=128,
        action_ffn=512,
        start=NoVideoModel(),
        video_weight=0.3,
    )


def full_fast_wam() -> FastWAMConfig:
    """Wan2.2-TI2V-5B, all of which is trained; docs/weights.md."""
    return FastWAMConfig(start=FromVideoModel(action="corrected"))


def tiny_lawam_world(data: DataSpec) -> LaWAMWorldConfig:
    """Stage 1 of `tiny_lawam`."""
    return LaWAMWorldConfig(
        features=TINY_FEATURES,
        latent=LATENTS["tiny"],
        state_dim=max(data.proprio_dim, 1),
        robot_rows=ONE_ROBOT,
        augmentation=NoAugmentation(),
    )


def tiny_lawam(data: DataSpec, world: str, prompt: int = 64) -> LaWAMConfig:
    """world: the run directory of its stage 1. prompt: tokens of the longest, images included."""
    return LaWAMConfig(
        world=world,
        features=TINY_FEATURES,
        latent=LATENTS["tiny"],
        prompt=HashedPromptConfig(length=prompt),
        prior=TINY_PRIOR,
        start=FromScratch(),
        expert=replace(TINY_EXPERT, action_dim=data.action_dim),
        robot_rows=ONE_ROBOT,
    )


def full_lawam_world(data: DataSpec) -> LaWAMWorldConfig:
    """Stage 1 of `full_lawam`, in the size that one GPU trains, on features of DINOv3; docs/weights.md."""
    return LaWAMWorldConfig(
        latent=LATENTS["base"],
        feature_loss="squared",
        state_dim=max(data.proprio_dim, 1),
        robot_rows=ONE_ROBOT,
    )


def full_lawam(world: str) -> LaWAMConfig:
    """Qwen3-VL-2B as prior, on a stage 1 of one's own; docs/weights.md. world: its run directory."""
    return LaWAMConfig(world=world, latent=LATENTS["base"], robot_rows=ONE_ROBOT, clip_actions=True)
