"""A world of one dimension, in no simulator: a hand at x moves to a target that only the picture shows.

Tasks: "reach" works; "raise", "die" and "hang" break at the third step of episodes with an odd seed; "refuse" has an
expert that fails for every third seed. With the environment variable MENDED, "raise" works too.
"""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from wamkit_client.envs.base import Env, EnvConfig, InitialState, StepResult, Task, checked_action
from wamkit_client.suites import Suite
from wamkit_client.types import ActionChunk, Observation, Policy

STEP = 0.05
HORIZON = 6
MENDED = "TOY_MENDED"


@dataclass(frozen=True)
class ToyConfig(EnvConfig):
    size: int = 16
    simulator: str = "toy"
    embodiment: str = "toy_hand"

    def prepare(self) -> None:
        pass

    def make(self, task: Task) -> Toy:
        return Toy(self, task)

    def facts(self) -> dict[str, Any]:
        return {"simulator": self.simulator, "versions": {}}


class Toy(Env):
    control_hz = 10.0
    max_steps = 100
    action_names = ("x",)
    proprio_names = ("x",)
    view_names = ("eye",)

    def __init__(self, config: ToyConfig, task: Task) -> None:
        self.config, self.task, self.embodiment = config, task, config.embodiment
        self.closed = False

    def reset(self, seed: int) -> InitialState:
        self.seed, self.x, self.steps = seed, 0.0, 0
        self.target = round(float(np.random.default_rng(seed).uniform(0.3, 0.9)), 6)
        return InitialState(self.task.name, seed, (self.target,))

    def observe(self) -> Observation:
        image = np.full((self.config.size, self.config.size, 3), round(255 * self.target), np.uint8)
        image[0, :, 0] = self.steps
        return Observation(
            {"eye": image}, np.array([self.x], np.float32), self.task.instruction, self.embodiment
        )

    def step(self, action: np.ndarray) -> StepResult:
        self.x += STEP * float(np.clip(checked_action(action, 1, "toy"), -1, 1)[0])
        self.steps += 1
        if self.steps == 3 and self.seed % 2 == 1:
            self._break()
        return StepResult(success=abs(self.x - self.target) < 0.02, done=self.steps >= self.max_steps)

    def _break(self) -> None:
        if self.task.name == "raise" and MENDED not in os.environ:
            raise ZeroDivisionError("the toy broke")
        if self.task.name == "die":
            os._exit(9)
        if self.task.name == "hang":
            time.sleep(600)

    def idle_action(self, last: np.ndarray | None) -> np.ndarray:
        return np.zeros(1, np.float32)

    def expert_action(self) -> np.ndarray:
        if self.task.name == "refuse" and self.seed % 3 == 2:
            return np.array([-1.0], np.float32)
        return np.array([np.clip((self.target - self.x) / STEP, -1, 1)], np.float32)

    def display(self) -> np.ndarray:
        return np.full((20, 30, 3), self.steps, np.uint8)

    def cameras(self) -> dict[str, np.ndarray]:
        return {"display": np.array([[10.0, 0, 0, 5], [0, 10, 0, 5], [0, 0, 0, 1]])}

    def chunk_path(self, proprio: np.ndarray, chunk: np.ndarray) -> np.ndarray:
        x = proprio[0] + STEP * np.cumsum(chunk[:, 0])
        return np.stack([x, np.zeros_like(x), np.zeros_like(x)], axis=1)

    def close(self) -> None:
        self.closed = True


class Reacher(Policy):
    """Sees the target and goes there; counts what it was asked."""

    def __init__(self) -> None:
        self.batches: list[int] = []
        self.resets = 0

    def act(self, observations: Sequence[Observation]) -> list[ActionChunk]:
        self.batches.append(len(observations))
        return [self._chunk(observation) for observation in observations]

    def _chunk(self, observation: Observation) -> ActionChunk:
        distance = observation.images["eye"][-1, 0, 0] / 255 - observation.proprio[0]
        left = distance / STEP - np.arange(HORIZON)
        return ActionChunk(np.clip(left, -1 if distance < 0 else 0, 1)[:, None].astype(np.float32))

    def reset(self) -> None:
        self.resets += 1


class Sleeper(Policy):
    """Never moves."""

    def act(self, observations: Sequence[Observation]) -> list[ActionChunk]:
        return [ActionChunk(np.zeros((HORIZON, 1), np.float32)) for _ in observations]

    def reset(self) -> None:
        pass


def toy_suite(*tasks: str, episodes: int = 4, max_steps: int = 40) -> Suite:
    """A suite of the named tasks."""
    named = tuple(Task(name, f"please {name}", "toys", 11) for name in tasks)
    return Suite("toys", named, ToyConfig(), max_steps, episodes)
