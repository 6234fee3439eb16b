"""The demo's policies at 20 Hz, the rate of many robots: a delay of 200 ms is then four control steps.

For measuring what latency costs and which executor bears it (docs/results.md). The environment divides each action
among four steps of the simulator; experts act at 20 Hz too. Chunks of 0.8 s, of which 0.2 s are executed.
"""

from __future__ import annotations

from dataclasses import replace
from typing import cast

from wamkit.config import Run
from wamkit.policies.lawam.policy import LaWAMConfig
from wamkit.recipes.metaworld import metaworld3, metaworld3_fast_wam
from wamkit.recipes.metaworld_lawam import metaworld3_lawam, metaworld3_lawam_world

HZ, CHUNK_SECONDS, REPLAN_STEPS = 20.0, 0.8, 4
FUTURE = metaworld3().data.frame_times
PAIR = (0.0, CHUNK_SECONDS - 1 / HZ)  # the later frame is that of the chunk's last action
WORLD = "runs/metaworld3_lawam_world_20hz"


def metaworld3_20hz() -> Run:
    """Small Light-WAM."""
    return _slow(metaworld3(), FUTURE)


def metaworld3_fast_wam_20hz() -> Run:
    """Small Fast-WAM."""
    return _slow(metaworld3_fast_wam(), FUTURE)


def metaworld3_lawam_world_20hz() -> Run:
    """Stage 1 of small LaWAM."""
    return replace(_slow(metaworld3_lawam_world(), PAIR), suite="")


def metaworld3_lawam_20hz() -> Run:
    """Small LaWAM on that world model."""
    run = _slow(metaworld3_lawam(), PAIR)
    return replace(run, policy=replace(cast(LaWAMConfig, run.policy), world=WORLD))


def _slow(run: Run, frame_times: tuple[float, ...]) -> Run:
    """The same at the lower rate."""
    return replace(
        run,
        recipe=f"{run.recipe}_20hz",
        suite="metaworld3_20hz",
        data=replace(run.data, hz=HZ, chunk_seconds=CHUNK_SECONDS, frame_times=frame_times),
        eval=replace(run.eval, replan_steps=REPLAN_STEPS),
    )
