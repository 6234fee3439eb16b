"""Does learning to imagine help to act? Light-WAM and Fast-WAM from few demonstrations, with video and without.

Each is trained in three ways: with video; without, in as many steps; without, in as much time, which is more steps.
They are compared from 5 demonstrations of each task to 40 (`--data.only.episodes`), where camera, light and colours are
as demonstrated and where they are not. Commands and results: docs/results.md.
"""

from __future__ import annotations

from dataclasses import replace

from wamkit.config import Run
from wamkit.recipes.metaworld import (
    metaworld3,
    metaworld3_fast_wam,
    metaworld3_fast_wam_no_video,
    metaworld3_no_video,
)

STEPS = 1000
LIGHT_WAM_AS_LONG, FAST_WAM_AS_LONG = 1750, 1500
"""Steps without video that take as long as STEPS with it: 0.165 and 0.293 s a step, 0.222 and 0.340 s, on one core."""


def metaworld3_few() -> Run:
    """Light-WAM, with video."""
    return _named("metaworld3_few", metaworld3())


def metaworld3_few_no_video() -> Run:
    """Without, in as many steps."""
    return _named("metaworld3_few_no_video", metaworld3_no_video())


def metaworld3_few_no_video_longer() -> Run:
    """Without, in as much time."""
    return _named("metaworld3_few_no_video_longer", metaworld3_no_video(), LIGHT_WAM_AS_LONG)


def metaworld3_few_fast_wam() -> Run:
    """Fast-WAM, with video."""
    return _named("metaworld3_few_fast_wam", metaworld3_fast_wam())


def metaworld3_few_fast_wam_no_video() -> Run:
    """Without, in as many steps."""
    return _named("metaworld3_few_fast_wam_no_video", metaworld3_fast_wam_no_video())


def metaworld3_few_fast_wam_no_video_longer() -> Run:
    """Without, in as much time."""
    return _named("metaworld3_few_fast_wam_no_video_longer", metaworld3_fast_wam_no_video(), FAST_WAM_AS_LONG)


def _named(name: str, run: Run, steps: int = STEPS) -> Run:
    return replace(run, recipe=name, train=replace(run.train, steps=steps))
