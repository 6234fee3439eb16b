"""Robots that take their time; this imports little, since every simulator's process imports it."""

from __future__ import annotations

import time
from dataclasses import dataclass

from wamkit_client.envs.base import InitialState, Task

from tests.client.toy import Toy, ToyConfig
from tests.client.waiting import Waiting, WaitingConfig, waiting_suite

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
    """As "tests.cluster.slow_robot:make"."""
    return SlowWaiting(waiting_suite("waiting").tasks[0], WaitingConfig().embodiment)
