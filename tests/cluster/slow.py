"""Toys and a waiting robot that take their time, so that something can happen meanwhile."""

from __future__ import annotations

import time
from dataclasses import dataclass, replace
from pathlib import Path

from wamkit_client.envs.base import InitialState, Task

from tests.client.toy import Toy, ToyConfig, toy_suite
from tests.client.waiting import Waiting, WaitingConfig, waiting_suite
from wamkit.stages.collect import CollectConfig, collect
from wamkit.stages.simulators import simulators

SECONDS = 0.4


@dataclass(frozen=True)
class SlowConfig(ToyConfig):
    def make(self, task: Task) -> Toy:
        return SlowToy(self, task)


class SlowToy(Toy):
    def reset(self, seed: int) -> InitialState:
        time.sleep(SECONDS)
        return super().reset(seed)


class SlowWaiting(Waiting):
    def reset(self, seed: int) -> InitialState:
        time.sleep(2 * SECONDS)
        return super().reset(seed)


def make() -> SlowWaiting:
    """ "tests.cluster.slow:make"."""
    return SlowWaiting(waiting_suite("waiting").tasks[0], WaitingConfig().embodiment)


SUITE = replace(toy_suite("reach", "refuse"), env=SlowConfig())
CONFIG = CollectConfig(episodes=8, workers=3, steps_after_success=3)


def main(folder: str, address: str) -> None:
    """The same collection as a command, for processes that are killed."""
    collect(SUITE, Path(folder), CONFIG, simulators(address))
