"""LaWAM as published (arXiv 2606.15768; numbers of the released code, LaWAM spec 1.8, 1.9, 2.8, 2.9): stage 1, the
latent world model; the pretraining of stage 2, the policy; and its fine-tuning on LIBERO and RoboTwin 2.0.

The published mixtures of the first two (robots, and people for stage 1) have no published weights. Their recipes are of
one robot, with LIBERO's cameras and numbers; mixtures are sources of a Run (docs/train.md).
"""

from __future__ import annotations

from dataclasses import replace

from wamkit.config import Normalization, Run
from wamkit.data.actions import ActionSpace
from wamkit.eval.evaluate import EvalConfig
from wamkit.policies.lawam.begin import FromRun
from wamkit.policies.lawam.latent_action import SIZES
from wamkit.policies.lawam.policy import LaWAMConfig, LearningRates
from wamkit.policies.lawam.world import LaWAMWorldConfig
from wamkit.recipes.libero import ACTIONS as LIBERO_ACTIONS
from wamkit.recipes.robotwin import ARMS
from wamkit.recipes.robotwin import DATA as ROBOTWIN
from wamkit.train.loop import TrainConfig
from wamkit.types import DataSpec

HZ, ROBOTWIN_HZ = 20.0, 30.0
# Every view by itself; no proprio; an episode's last actions count past its end. The frame that is predicted is the one
# at a chunk's last action, not at its end.
LIBERO_DATA = DataSpec(
    views=("image", "wrist_image"),
    canvas="separate",
    view_height=256,
    view_width=256,
    hz=HZ,
    frame_times=(0.0, 7 / HZ),
    chunk_seconds=8 / HZ,
    proprio_dim=0,
    action_dim=7,
    past_end="supervised",
)
PRETRAIN_DATA = replace(LIBERO_DATA, frame_times=(0.0, 23 / HZ), chunk_seconds=24 / HZ)
ROBOTWIN_DATA = replace(
    LIBERO_DATA,
    views=ROBOTWIN.views,
    hz=ROBOTWIN_HZ,
    frame_times=(0.0, 35 / ROBOTWIN_HZ),
    chunk_seconds=36 / ROBOTWIN_HZ,
    action_dim=16,
)
# Stage 1 learns from the cameras that stand still, and from no actions: a chunk of one is read and not used. 1.6 s is
# of the shipped recipe; the paper says 1.2 s, and 0.4 s for people.
WORLD_DATA = replace(
    LIBERO_DATA,
    views=("image",),
    frame_times=(0.0, 1.6),
    chunk_seconds=1 / HZ,
    proprio_dim=8,
    frame_proprio=True,
    past_end="masked",
)
# The published data counts the gripper's command the other way round: above 0.5 closes.
ACTIONS = ActionSpace(
    names=(*LIBERO_ACTIONS.names[:-1], "gripper_closing"),
    kinds=(*("delta",) * 3, *("rotation",) * 3, "gripper"),
)
HANDS = ActionSpace(
    names=tuple(
        f"{arm}_{part}" for arm in ARMS for part in ("x", "y", "z", "qw", "qx", "qy", "qz", "gripper")
    ),
    kinds=(*("absolute",) * 3, *("quaternion",) * 4, "gripper") * 2,
)
# The rows of the released tables; a robot of another name needs one: --policy.robots
PANDA, ALOHA = (("panda", 25),), (("aloha-agilex", 1),)
POLICY = LaWAMConfig(prior_precision="bfloat16", clip_actions=True)
# AdamW for both stages, warmed up from nothing.
STAGE1 = TrainConfig(
    steps=100_000,
    batch_size=1024,  # 16 GPUs, 64 samples each
    learning_rate=3e-4,
    warmup_steps=10_000,
    warmup_start=0.0,
    schedule="constant",
    betas=(0.9, 0.999),
    precision="bf16",
)
STAGE2 = TrainConfig(
    steps=25_000,
    batch_size=256,  # eight GPUs, 32 samples each
    seed=2026,
    learning_rate=1e-4,
    warmup_steps=1500,
    warmup_start=0.0,
    final_fraction=0.005,
    weight_decay=1e-8,
    decayed="all",
    precision="bf16",
)


def lawam_world() -> Run:
    """Stage 1, the large model. The published code draws one augmentation for a whole batch, here each sample has its
    own."""
    return Run(
        recipe="lawam_world",
        suite="",
        policy=LaWAMWorldConfig(),
        data=WORLD_DATA,
        actions=ACTIONS,
        train=STAGE1,
        eval=EvalConfig(replan_steps=1),
    )


def lawam_world_base() -> Run:
    """Stage 1 in the code's small size, which one GPU trains; no weights were released."""
    return replace(
        lawam_world(),
        recipe="lawam_world_base",
        policy=LaWAMWorldConfig(
            latent=replace(SIZES["base"], positions="overlapped"), feature_loss="squared"
        ),
        train=replace(STAGE1, batch_size=64, learning_rate=1e-4, warmup_steps=2000),
    )


def lawam_pretrain() -> Run:
    """Stage 2 on many robots, before any benchmark. The published warm-up is not known."""
    return Run(
        recipe="lawam_pretrain",
        suite="",
        policy=replace(
            POLICY,
            robots=PANDA,
            learning_rates=LearningRates(expert=1.0, world=0.3, prior=0.3, rest=0.3),
        ),
        data=PRETRAIN_DATA,
        actions=ACTIONS,
        normalization=Normalization("min_max", "min_max", gripper="binary"),
        train=replace(STAGE2, steps=200_000, batch_size=1024, warmup_steps=2000),
        eval=EvalConfig(replan_steps=24, precision="bf16"),
    )


def libero_lawam() -> Run:
    """Published: Spatial 99.4, Object 99.6, Goal 98.4, Long 97.0; mean 98.6 %."""
    return Run(
        recipe="libero_lawam",
        suite="libero_lawam",
        policy=replace(POLICY, begin=FromRun(), robots=PANDA),
        data=LIBERO_DATA,
        actions=ACTIONS,
        normalization=Normalization("min_max", "min_max", gripper="binary"),
        train=STAGE2,
        eval=EvalConfig(replan_steps=8, precision="bf16"),
    )


def robotwin_lawam() -> Run:
    """Published: 92.64 % clean, 89.80 % randomised."""
    return Run(
        recipe="robotwin_lawam",
        suite="robotwin_clean_lawam",
        policy=replace(
            POLICY,
            begin=FromRun(),
            robots=ALOHA,
            learning_rates=LearningRates(world=3.0),
        ),
        data=ROBOTWIN_DATA,
        actions=HANDS,
        normalization=Normalization("min_max", "min_max", gripper="inverted_min_max"),
        # The paper's 64 GPUs; the code's 16 samples on a GPU, in two parts to an optimizer step, make as many on 32.
        train=replace(STAGE2, steps=100_000, batch_size=1024, accumulation=2, warmup_steps=2000),
        eval=EvalConfig(replan_steps=36, precision="bf16"),
    )
