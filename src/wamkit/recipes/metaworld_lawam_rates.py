"""Small LaWAM trained on the demo's demonstrations at 80, 40 and 20 Hz together (LaWAM paper 4.4, spec 6.7).

The copies are made by `wamkit data downsample`; every rate is a robot of its own. Its arms are values of this recipe:
`--policy.time-code none` or `index`, `--normalization.robots shared`. Commands: docs/evaluate.md.
"""

from __future__ import annotations

from dataclasses import replace
from typing import cast

from wamkit.config import Run, Source
from wamkit.policies.lawam.policy import LaWAMConfig
from wamkit.recipes.metaworld_lawam import metaworld3_lawam
from wamkit.types import DataSpec

ROBOT = "metaworld_sawyer"
LOWER = (40.0, 20.0)


def metaworld3_lawam_rates() -> Run:
    """One policy for three control rates; each rate's samples are seen as often as it has steps."""
    run = metaworld3_lawam()
    names = {run.data.hz: ROBOT} | {hz: f"{ROBOT}-{hz:g}hz" for hz in LOWER}
    sources = tuple(
        Source(f"{hz:g}hz", _at(run.data, hz), run.actions, robot=robot) for hz, robot in names.items()
    )
    # It is one robot: with matrices of its own, a rate could be told without the time code.
    rows = tuple((robot, 1) for robot in names.values())
    policy = replace(cast(LaWAMConfig, run.policy), robots=rows)
    return replace(run, recipe="metaworld3_lawam_rates", policy=policy, sources=sources)


def _at(data: DataSpec, hz: float) -> DataSpec:
    """The same seconds; the later frame is that of the last action."""
    return replace(data, hz=hz, frame_times=(0.0, data.chunk_seconds - 1 / hz))
