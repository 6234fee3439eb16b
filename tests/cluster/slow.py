"""Work that takes its time, so that something can happen meanwhile, as commands for processes that are killed."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from tests.client.toy import toy_suite
from tests.cluster.slow_robot import SlowConfig
from wamkit.recipes import recipe
from wamkit.stages.collect import CollectConfig, collect
from wamkit.stages.compare import compare
from wamkit.stages.rows import Comparison
from wamkit.stages.simulators import simulators

SUITE = replace(toy_suite("reach", "refuse"), env=SlowConfig())
CONFIG = CollectConfig(episodes=8, workers=3, steps_after_success=3)


def main(folder: str, address: str) -> None:
    """The collection."""
    collect(SUITE, Path(folder), CONFIG, simulators(address))


def compared(folder: Path, out: str, address: str) -> Comparison | None:
    """A comparison of one recipe on `folder`/data, in a folder there; None where it is not finished."""
    run = recipe("metaworld3")
    train = replace(run.train, steps=8, warmup_steps=2, batch_size=4, save_every=4)
    own = replace(
        run, suite="tests.cluster.slow_robot:make", train=train, eval=replace(run.eval, processes=1)
    )
    place = folder / out
    asked = Comparison((own,), (0,), (folder / "data",), place / "cache", place / "out", 2)
    return asked if compare(asked, "as told", address) else None
