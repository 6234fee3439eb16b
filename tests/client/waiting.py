"""What the demo's recipes see of Meta-World, without a simulator: even seeds are solved by whoever waits nine steps."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from wamkit_client.envs.base import Env, EnvConfig, InitialState, StepResult, Task
from wamkit_client.suites import Suite
from wamkit_client.types import Observation

VIEWS = ("corner2", "gripperPOV")


@dataclass(frozen=True)
class WaitingConfig(EnvConfig):
    simulator: str = "waiting"
    embodiment: str = "metaworld_sawyer"

    def prepare(self) -> None:
        pass

    def make(self, task: Task) -> Waiting:
        return Waiting(task, self.embodiment)

    def facts(self) -> dict[str, Any]:
        return {"simulator": self.simulator, "versions": {}, "opengl": "none"}


class Waiting(Env):
    control_hz = 80.0
    max_steps = 16
    action_names = ("dx", "dy", "dz", "gripper")
    proprio_names = ("x", "y", "z", "gripper")
    view_names = VIEWS

    def __init__(self, task: Task, embodiment: str) -> None:
        self.task, self.embodiment = task, embodiment

    def reset(self, seed: int) -> InitialState:
        self.seed, self.steps = seed, 0
        return InitialState(self.task.name, seed, (float(seed),))

    def observe(self) -> Observation:
        pictures = {view: np.full((64, 64, 3), 10 * self.steps, np.uint8) for view in VIEWS}
        return Observation(pictures, np.zeros(4, np.float32), self.task.instruction, self.embodiment)

    def step(self, action: np.ndarray) -> StepResult:
        self.steps += 1
        return StepResult(success=self.steps == 9 and self.seed % 2 == 0, done=self.steps >= self.max_steps)

    def display(self) -> np.ndarray:
        return np.zeros((32, 32, 3), np.uint8)

    def cameras(self) -> dict[str, np.ndarray]:
        return {"display": np.array([[10.0, 0, 0, 5], [0, 10, 0, 5], [0, 0, 0, 1]])}

    def chunk_path(self, proprio: np.ndarray, chunk: np.ndarray) -> np.ndarray:
        return np.tile([0.0, 0.0, 1.0], (len(chunk), 1))

    def close(self) -> None:
        pass


def waiting_suite(name: str, episodes: int = 2) -> Suite:
    """Two tasks under the name of another suite."""
    tasks = tuple(Task(task, f"please {task}", "waiting", 9) for task in ("stay", "rest"))
    return Suite(name, tasks, WaitingConfig(), max_steps=16, episodes=episodes)


def make() -> Waiting:
    """As an environment of a user's own: "tests.client.waiting:make"."""
    return Waiting(waiting_suite("waiting").tasks[0], WaitingConfig().embodiment)
