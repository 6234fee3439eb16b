"""What `wamkit init` knows of each policy in each size: how large its images are, how long its chunk, how long it is
trained. Rows of data; what a robot's dataset makes of them is stages/proposal.py.

Expressions are written into the recipe file as they are, with {words}, {executed}, {steps} ... filled in; the functions
in them are those of recipes/presets.py.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace

CANVASES = {1: "single", 2: "horizontal", 3: "robotwin"}
"""How views are tiled, by their number (data/canvas.py). A canvas of more is too large to be worth it."""


@dataclass(frozen=True)
class Scale:
    """A policy in one size.

    title: in words. policy, training: expressions. steps: of training for a dataset of `samples` samples; shares: of
        them, for the smallest and the largest dataset.
    stage1: the run that is trained before, as an expression, for `stage1_steps`; "": there is none.
    gpu: whether it takes a GPU. augmentation: of training images, as an expression; "": none.
    heights: pixels of a view, by canvas; the width follows its camera and is a multiple of `multiple`. square: it is as
        high as wide, whatever the camera.
    frames: video frames after the present, 0.2 s and at most `stride` control steps apart; 0: it learns from pairs of
        frames, the later one that of the chunk's last action, and takes each view by itself, without proprio.
    seconds: of a chunk, of at least actions[0] and at most actions[1] actions.
    executed: share of a chunk that is executed before the policy is asked again.
    """

    title: str
    policy: str
    training: str
    steps: int
    samples: int
    shares: tuple[float, float]
    heights: Mapping[str, int]
    multiple: int
    frames: int
    stride: int
    seconds: float
    actions: tuple[int, int]
    executed: float
    square: bool = False
    gpu: bool = False
    augmentation: str = ""
    stage1: str = ""
    stage1_steps: int = 0

    @property
    def presets(self) -> list[str]:
        """The functions of recipes/presets.py that the expressions call."""
        called = re.findall(r"(\w+)\(", f"{self.policy} {self.training} {self.stage1}")
        return sorted({name for name in called if name != "recipe"})

    @property
    def pair(self) -> bool:
        """Whether it learns from pairs of frames."""
        return self.frames == 0


TINY = Scale(
    title="small Light-WAM",
    policy="tiny_light_wam(DATA, words={words})",
    training="tiny_training({steps}, 16, learning_rate=8.5e-4, warmup_steps=100)",
    steps=2100,
    samples=10_000,
    shares=(1.0, 4.0),
    heights={"single": 64, "horizontal": 64, "robotwin": 60},
    multiple=16,
    frames=4,
    stride=100,
    seconds=0.8,
    actions=(8, 16),
    executed=0.5,
)
FULL = replace(
    TINY,
    title="Light-WAM",
    policy="full_light_wam(executed={executed})",
    training="full_training(steps={steps}, batch_size=64, accumulation={parts})",
    steps=60_000,
    samples=50_000,
    shares=(0.2, 3.0),
    heights={"single": 224, "horizontal": 224, "robotwin": 240},
    frames=8,
    stride=4,
    seconds=1.6,
    actions=(8, 32),
    executed=1 / 3,
    gpu=True,
    augmentation="Augmentation(crop=0.9, brightness=0.2, contrast=0.2, saturation=0.2)",
)
SCALES = {
    ("light_wam", "tiny"): TINY,
    ("light_wam", "full"): FULL,
    ("fast_wam", "tiny"): replace(
        TINY,
        title="small Fast-WAM",
        policy="tiny_fast_wam(words={words})",
    ),
    ("fast_wam", "full"): replace(
        FULL,
        title="Fast-WAM",
        policy="full_fast_wam()",
        training="full_training(steps={steps}, batch_size=128, accumulation={parts})",
        steps=20_000,
        samples=270_000,
        multiple=32,
    ),
    ("lawam", "tiny"): replace(
        TINY,
        title="small LaWAM",
        policy="tiny_lawam(DATA, world={world}, words={words})",
        training="tiny_training({steps}, batch_size=16, learning_rate=2e-3, warmup_steps=100)",
        steps=2400,
        heights={"separate": 64},
        frames=0,
        stage1="tiny_lawam_stage1(recipe(), proprio_dim={proprio}, steps={steps})",
        stage1_steps=600,
    ),
    ("lawam", "full"): replace(
        FULL,
        title="LaWAM",
        policy="full_lawam(world={world})",
        training="lawam_training(steps={steps}, batch_size=256, accumulation={parts})",
        steps=25_000,
        samples=270_000,
        heights={"separate": 256},
        multiple=32,
        square=True,
        frames=0,
        seconds=1.2,
        actions=(8, 36),
        executed=1.0,
        stage1="full_lawam_stage1(recipe(), {proprio}, steps={steps}, accumulation={parts})",
        stage1_steps=100_000,
    ),
}
"""By policy and size."""
POLICIES = tuple(dict.fromkeys(policy for policy, _ in SCALES))
SIZES = tuple(dict.fromkeys(size for _, size in SCALES))
