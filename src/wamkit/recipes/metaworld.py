"""Small Light-WAMs and Fast-WAMs trained from nothing but demonstrations of scripted experts in Meta-World.

Claim: at least 90 % over the three demo tasks on initial states that were never demonstrated.
Time: 460 core-seconds of training, on two cores. Command: `wamkit demo`. Results: docs/results.md.
"""

from __future__ import annotations

from dataclasses import replace

from wamkit.config import Normalization, Run
from wamkit.data.actions import ActionSpace
from wamkit.eval.evaluate import EvalConfig
from wamkit.policies.fast_wam.policy import FastWAMConfig
from wamkit.policies.light_wam.policy import LightWAMConfig
from wamkit.recipes.presets import keeping_all, tiny_fast_wam, tiny_light_wam, tiny_training
from wamkit.train.loop import TrainConfig
from wamkit.types import DataSpec
from wamkit.wan.dit import Adapters

# Meta-World's nominal 80 Hz. Four future frames 0.1 s apart are one group of the codec; half of a chunk is executed.
DATA = DataSpec(
    views=("corner2", "gripperPOV"),
    canvas="horizontal",
    view_height=64,
    view_width=64,
    hz=80.0,
    frame_times=(0.0, 0.1, 0.2, 0.3, 0.4),
    chunk_seconds=0.2,
    proprio_dim=4,
    action_dim=4,
)
ACTIONS = ActionSpace(names=("dx", "dy", "dz", "gripper"), kinds=("delta", "delta", "delta", "gripper"))

POLICY = tiny_light_wam(DATA)
SEES_GOALS = keeping_all(POLICY)
FAST_WAM = tiny_fast_wam()
IMAGINING = replace(FAST_WAM, sample_steps=2)
"""Of variants whose actions look at the future: after one step from noise they would have seen none of it."""
TRAIN = tiny_training(steps=1700, batch_size=16, learning_rate=9e-4, warmup_steps=100)


def metaworld3() -> Run:
    """The demo: button-press-topdown, drawer-open and window-open with one policy."""
    return Run(
        recipe="metaworld3",
        suite="metaworld3",
        policy=POLICY,
        data=DATA,
        actions=ACTIONS,
        normalization=Normalization(action="min_max", proprio="min_max"),
        train=TRAIN,
        eval=EvalConfig(replan_steps=8),
    )


def metaworld3_no_video() -> Run:
    """The demo without video co-training: the other arm of the controlled comparison."""
    return replace(
        metaworld3(), recipe="metaworld3_no_video", policy=replace(POLICY, objective="action_only")
    )


def metaworld3_fast_wam() -> Run:
    """Fast-WAM in place of Light-WAM: same encoder, canvas, text, proprio, data order and steps."""
    return _fast_wam("metaworld3_fast_wam", "fast")


def metaworld3_fast_wam_joint() -> Run:
    """Actions look at the future that is imagined alongside them."""
    return _fast_wam("metaworld3_fast_wam_joint", "joint", IMAGINING)


def metaworld3_fast_wam_idm() -> Run:
    """The future is imagined first; actions look at the result."""
    return _fast_wam("metaworld3_fast_wam_idm", "idm", IMAGINING)


def metaworld3_fast_wam_no_video() -> Run:
    """Fast-WAM without video co-training."""
    return _fast_wam("metaworld3_fast_wam_no_video", "no_video")


def metaworld3_fast_wam_optional_idm() -> Run:
    """One policy in two modes: the future is imagined first, or nothing is."""
    return _fast_wam("metaworld3_fast_wam_optional_idm", "optional_idm", IMAGINING)


def _fast_wam(name: str, variant: str, policy: FastWAMConfig = FAST_WAM) -> Run:
    return replace(metaworld3(), recipe=name, policy=replace(policy, variant=variant))


def metaworld_mt10() -> Run:
    """MT10: ten tasks, one policy, told apart by the instruction."""
    run = metaworld3()
    return replace(run, recipe="metaworld_mt10", suite="metaworld_mt10", train=replace(TRAIN, steps=9000))


def metaworld_mt10_topview() -> Run:
    """MT10 of images that show the goals: two more cameras, and a codec that keeps all of the present.

    Aim, not reached yet: at least 85 % of 50 trials per task; 316 of 500 so far (docs/log.md has what from). Time: 66
    minutes on two cores, torchrun --nproc-per-node 2. Reach needs 600 demonstrations with noise that lasts (collect
    --noise 0.5 --noise-seconds 0.25); 60,000 samples have 18 GB of latents.
    """
    train = tiny_training(steps=11_000, batch_size=16, learning_rate=9e-4, warmup_steps=200)
    return _topview("metaworld_mt10_topview", SEES_GOALS, train)


def metaworld_mt50_topview() -> Run:
    """MT50 of the same images: twice as wide, and deeper; 50 demonstrations of each task. For a GPU.

    Aim, not measured: above the 57.3 % of SmolVLA (0.45 B), the mean of four rates, those of the suite's groups (easy,
    medium, hard, very hard) with 10 trials of each task.
    """
    size = replace(SEES_GOALS.size, width=256, ffn=1024, heads=8, layers=8)
    policy = replace(SEES_GOALS, size=size, adapters=Adapters(layers=(2, 4, 7), dim=128))
    return _topview("metaworld_mt50_topview", policy, tiny_training(60_000, batch_size=64, warmup_steps=500))


def _topview(name: str, policy: LightWAMConfig, train: TrainConfig) -> Run:
    data = replace(DATA, views=("corner2", "topview", "behindGripper"), sample_every=4)
    train = replace(train, average_decay=0.999, save_every=1000)
    return replace(metaworld3(), recipe=name, suite=name, data=data, policy=policy, train=train)


def smoke(run: Run) -> Run:
    """A demo in seconds: every stage and artefact, a policy that has learned nothing."""
    train = replace(run.train, steps=12, batch_size=8, warmup_steps=4, save_every=6, log_every=4)
    return replace(run, suite="metaworld3_smoke", train=train)
