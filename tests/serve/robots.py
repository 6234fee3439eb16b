"""A policy that can be watched, its facts, and clients for tests of the server."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from typing import Any

import numpy as np
from wamkit_client.types import ActionChunk, Observation, Policy

from tests.until import SECONDS, until
from wamkit.serve.dialects.base import Service
from wamkit.serve.scheduler import Scheduler
from wamkit.serve.served import Facts, Policies, Robot, Served

VIEWS = ("image", "wrist_image")
ROBOT = Robot("panda", VIEWS, proprio_dim=8, action_dim=7, horizon=4, hz=20.0)
NAMES = ("x", "y", "z", "rx", "ry", "rz", "gripper")
FACTS = Facts("echo", (ROBOT,), NAMES, 32, 32, replan_steps=2, absolute=False)


class Echo(Policy):
    """Rows of its proprio, the first number in place of the first joint's; keeps the calls it had.

    instruction "wait": only when `go` is set.  "break": not at all.  "nan": as no policy should.
    """

    def __init__(self) -> None:
        self.calls: list[list[Observation]] = []
        self.resets = 0
        self.go = threading.Event()

    def act(self, observations: Sequence[Observation]) -> list[ActionChunk]:
        self.calls.append(list(observations))
        words = {o.instruction for o in observations}
        if "wait" in words:
            assert self.go.wait(SECONDS)
        if "break" in words:
            raise ZeroDivisionError("the policy fell apart")
        return [ActionChunk(self._rows(o), displacements=(0, 2)) for o in observations]

    def reset(self) -> None:
        self.resets += 1

    def until_called(self, times: int = 1) -> None:
        until(lambda: len(self.calls) >= times)

    @property
    def instructions(self) -> list[list[str]]:
        """Of every call."""
        return [[o.instruction for o in call] for call in self.calls]

    def _rows(self, observation: Observation) -> np.ndarray:
        rows = np.tile(observation.proprio[:7], (4, 1)).astype(np.float32)
        return rows * np.nan if observation.instruction == "nan" else rows


def service(policy: Policy, facts: Facts = FACTS, **scheduling: Any) -> Service:
    return Service(Policies(Served("echo", policy, facts)), Scheduler(**scheduling))


def libero(prompt: str = "lift", number: float = 1.0, **more: object) -> dict[str, object]:
    """An observation as openpi's LIBERO client sends it, its proprio all `number`."""
    image = np.arange(32 * 32 * 3, dtype=np.uint8).reshape(32, 32, 3)
    seen = {"observation/image": image, "observation/wrist_image": image[::-1].copy()}
    return {**seen, "observation/state": np.full(8, number), "prompt": prompt, **more}
