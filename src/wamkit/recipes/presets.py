"""Policies in two sizes for any robot: tiny ones train from nothing on two CPU cores, full ones start from released
weights and need a GPU. The small recipes are built of the tiny ones, and `wamkit init` writes recipes of either.

Where networks depend on the data, `data` says how; every other value is the same for all robots. Then how each is
trained: tiny ones as the demo's, full ones as published and put right (recipes/ours.py).
"""

from __future__ import annotations

from dataclasses import replace

from wamkit.config import Run
from wamkit.flow import Shift
from wamkit.policies.fast_wam.policy import FastWAMConfig, FromVideoModel
from wamkit.policies.fast_wam.policy import FromScratch as NoVideoModel
from wamkit.policies.lawam.action_expert import TINY as TINY_EXPERT
from wamkit.policies.lawam.augment import NoAugmentation
from wamkit.policies.lawam.features import BlockFeaturesConfig
from wamkit.policies.lawam.latent_action import SIZES as LATENTS
from wamkit.policies.lawam.policy import LaWAMConfig
from wamkit.policies.lawam.prior import TINY as TINY_PRIOR
from wamkit.policies.lawam.prior import FromScratch
from wamkit.policies.lawam.prompt import QUERIES, HashedPromptConfig
from wamkit.policies.lawam.world import LaWAMWorldConfig
from wamkit.policies.light_wam.policy import FullTuning, LightWAMConfig, StepWeights
from wamkit.policies.light_wam.state_fusion import StateFusionConfig
from wamkit.train.loop import TrainConfig
from wamkit.types import UNCHANGED, DataSpec
from wamkit.wan.dit import SIZES, Adapters
from wamkit.wan.encoders import BlockCodecConfig, HashedTextConfig, channels

TINY_FEATURES = BlockFeaturesConfig(coefficients=27, merge=2)
ONE_ROBOT = 2
"""Rows of LaWAM's tables: human video, and the robot."""


def tiny_light_wam(data: DataSpec, words: int = 16) -> LightWAMConfig:
    """Everything is trained, and every action of a chunk is a target. words: of the longest instruction, and one
    more.

    Later frames begin with the present, and clean latents are predicted: a velocity holds the noise of every token,
    which a narrow network has to carry through (docs/log.md).
    """
    return LightWAMConfig(
        codec=BlockCodecConfig(),
        text=HashedTextConfig(width=64, length=words),
        size=replace(SIZES["tiny"], present_skip=True),
        tuning=FullTuning(),
        adapters=Adapters(layers=(1, 3, 5), dim=64),
        expert=StateFusionConfig(
            queries=8, heads=4, level_dim=256, trunk_dim=512, trunk_blocks=1, step_dim=64, query_std=1.0
        ),
        video_pool=1,
        objective="cotrain_one_pass",
        video_weight=0.3,
        video_predicts="clean",
        step_weights=StepWeights(prefix=data.horizon),
    )


def keeping_all(policy: LightWAMConfig) -> LightWAMConfig:
    """A `tiny_light_wam` with a codec that keeps all of the present: for tasks that small things decide."""
    codec = BlockCodecConfig(keeps="whole")
    # The video's loss is a mean over seven times as many numbers, most of which hardly change.
    return replace(policy, codec=codec, size=replace(policy.size, channels=channels(codec)), video_weight=1.0)


def reading_proprio(policy: LightWAMConfig, hidden: float = 0.0) -> LightWAMConfig:
    """A `tiny_light_wam` whose expert reads the proprio too; the token that the video model is given is seen vaguely
    (docs/log.md). hidden: share of training samples whose proprio the expert is not given."""
    return replace(policy, expert=replace(policy.expert, reads_proprio=True, proprio_hidden=hidden))


def full_light_wam(executed: int) -> LightWAMConfig:
    """Wan2.1-1.3B, frozen but for low-rank additions; docs/weights.md. executed: eval.replan_steps, all of them
    targets."""
    return LightWAMConfig(step_weights=StepWeights(prefix=executed))


def tiny_fast_wam(words: int = 16) -> FastWAMConfig:
    """As `tiny_light_wam`, with an action model of the video model's depth.

    Chunks have unshifted times and are predicted clean too: the published weight of their loss is zero both at noise,
    where sampling begins, and at data. One step from noise is then the mean of what could be done, which suits
    demonstrations of a deterministic expert better than a sample (docs/results.md).
    """
    return FastWAMConfig(
        codec=BlockCodecConfig(),
        text=HashedTextConfig(width=64, length=words),
        size=replace(SIZES["tiny"], present_skip=True),
        action_width=128,
        action_ffn=512,
        start=NoVideoModel(),
        video_weight=0.3,
        video_predicts="clean",
        action_predicts="clean",
        action_shift=Shift(train=1.0, sample=1.0),
        sample_steps=1,
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


def tiny_lawam(data: DataSpec, world: str, words: int = 16) -> LaWAMConfig:
    """world: the run directory of its stage 1. words: as of `tiny_light_wam`."""
    squares = data.view_height * data.view_width // HashedPromptConfig.pixels**2
    return LaWAMConfig(
        world=world,
        features=TINY_FEATURES,
        latent=LATENTS["tiny"],
        prompt=HashedPromptConfig(length=len(data.views) * squares + words + 2 * QUERIES),
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


def tiny_lawam_stage1(run: Run, proprio_dim: int, steps: int) -> Run:
    """The run before that of a `tiny_lawam`: its first camera, and the proprio of both frames."""
    data = pair_of(run.data, proprio_dim)
    train = tiny_training(steps, batch_size=32, learning_rate=1e-3)
    return _stage1(run, tiny_lawam_world(data), data, train)


def full_lawam_stage1(run: Run, proprio_dim: int, steps: int, accumulation: int = 1) -> Run:
    """The same of a `full_lawam`."""
    data = pair_of(run.data, proprio_dim)
    train = TrainConfig(
        steps=steps,
        batch_size=64,
        accumulation=accumulation,
        learning_rate=1e-4,
        warmup_steps=min(2000, steps // 10),
        warmup_start=0.0,
        schedule="constant",
        betas=(0.9, 0.999),
        precision="bf16",
    )
    return _stage1(run, full_lawam_world(data), data, train)


def _stage1(run: Run, policy: LaWAMWorldConfig, data: DataSpec, train: TrainConfig) -> Run:
    return replace(run, recipe=f"{run.recipe}_world", suite="", policy=policy, data=data, train=train)


def pair_of(data: DataSpec, proprio_dim: int) -> DataSpec:
    """What stage 1 learns from, of what the policy does; it changes images in its own way."""
    gone = data.views[1:]
    columns = {name: column for name, column in data.columns.items() if name not in gone}
    return replace(
        data,
        views=data.views[:1],
        columns=columns,
        proprio_dim=proprio_dim,
        frame_proprio=True,
        augmentation=UNCHANGED,
    )


def tiny_training(
    steps: int, batch_size: int = 48, learning_rate: float = 6e-4, warmup_steps: int = 50
) -> TrainConfig:
    """Of the small recipes."""
    return TrainConfig(
        steps=steps,
        batch_size=batch_size,
        seed=0,
        learning_rate=learning_rate,
        warmup_steps=warmup_steps,
        average_decay=0.99,
        save_every=200,
    )


def full_training(steps: int, batch_size: int, accumulation: int = 1) -> TrainConfig:
    """Of Light-WAM and Fast-WAM at full size. accumulation: parts of a batch, for memory."""
    return TrainConfig(
        steps=steps,
        batch_size=batch_size,
        accumulation=accumulation,
        warmup_steps=min(1000, steps // 10),
        precision="bf16",
    )


def lawam_training(steps: int, batch_size: int, accumulation: int = 1) -> TrainConfig:
    """Of LaWAM at full size."""
    return TrainConfig(
        steps=steps,
        batch_size=batch_size,
        accumulation=accumulation,
        warmup_steps=min(1500, steps // 10),
        warmup_start=0.0,
        final_fraction=0.005,
        weight_decay=1e-8,
        decayed="all",
        precision="bf16",
    )
