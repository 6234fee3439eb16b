"""A world to make recordings in: a red hand slides to the right over a grey table until it is at a mark.

It fits the tiny policy's data spec (views "front" and "wrist", proprio of 3, actions of 2, 10 Hz). Tasks whose name
begins with "stuck" cannot be solved.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from wamkit_client.envs.base import Env, EnvConfig, InitialState, StepResult, Task
from wamkit_client.rollout import Episode, EpisodeConfig
from wamkit_client.suites import Suite
from wamkit_client.types import ActionChunk, Observation

from tests.policies.tiny_policy import SPEC
from wamkit.eval.evaluate import EvalConfig
from wamkit.eval.scores import summary

LENGTH = 24
REPLAN = 4
DISPLAY = (48, 64)


@dataclass(frozen=True)
class SliderConfig(EnvConfig):
    simulator: str = "slider"
    embodiment: str = "robot"


class Slider(Env):
    """Steps of one pixel of the front view; the mark is LENGTH steps away."""

    control_hz = SPEC.hz
    max_steps = 40
    action_names = ("right", "grip")
    proprio_names = ("x", "y", "grip")
    view_names = SPEC.views

    def __init__(self, task: Task) -> None:
        self.task, self.embodiment = task, "robot"

    def reset(self, seed: int) -> InitialState:
        self.x, self.row = 0.0, 8 + seed % 8
        return InitialState(self.task.name, seed, (float(self.row),))

    def observe(self) -> Observation:
        front = np.full((32, 32, 3), 120, np.uint8)
        left = round(self.x)
        front[self.row : self.row + 6, left : left + 6] = (200, 30, 30)
        wrist = np.full((32, 32, 3), 8 * left, np.uint8)
        proprio = np.array([self.x, self.row, 0.0], np.float32)
        return Observation({"front": front, "wrist": wrist}, proprio, self.task.instruction, "robot")

    def step(self, action: np.ndarray) -> StepResult:
        self.x += float(np.clip(action[0], -1, 1))
        solved = self.x > LENGTH - 0.5 and not self.task.name.startswith("stuck")
        self.x = min(self.x, 26.0)
        return StepResult(success=solved, done=False)

    def display(self) -> np.ndarray:
        return np.zeros((*DISPLAY, 3), np.uint8)

    def cameras(self) -> dict[str, np.ndarray]:
        return {"display": np.array([[2.0, 0, 0, 2], [0, 2, 0, 2], [0, 0, 0, 1]])}

    def chunk_path(self, proprio: np.ndarray, chunk: np.ndarray) -> np.ndarray:
        x = proprio[0] + np.cumsum(chunk[:, 0])
        return np.stack([x, np.full_like(x, self.row), np.zeros_like(x)], axis=1)


def record(folder: Path, task: Task, seed: int, max_steps: int = 40) -> dict[str, Any]:
    """Record an episode; its row of results.json."""
    episode = Episode(Slider(task), seed, EpisodeConfig(REPLAN, max_steps, record=True))
    while episode.next_query():
        episode.answer(ActionChunk(np.ones((SPEC.horizon, 2), np.float32)))
    name = f"episodes/{task.name}_{seed}.npz"
    (folder / "episodes").mkdir(exist_ok=True)
    episode.save(str(folder / name))
    outcome = episode.outcome
    return {
        "task": task.name,
        "seed": seed,
        "status": "success" if outcome.success else "failure",
        "steps": outcome.steps,
        "query_call": list(range(outcome.queries)),
        "query_ms": [8.0] * outcome.queries,
        "query_batch": [4] * outcome.queries,
        "recording": name,
    }


def evaluation(folder: Path, *tasks: str, seeds: int = 2) -> dict[str, Any]:
    """Recordings of every episode in `folder`, and what results.json would say of them."""
    named = tuple(Task(name, f"slide {name}", "slides", 20) for name in tasks)
    suite = Suite("sliders", named, SliderConfig(), max_steps=40, episodes=seeds, first_seed=0)
    rows = [record(folder, task, seed) for task in named for seed in range(seeds)]
    shown = {
        "name": suite.name,
        "tasks": [asdict(task) for task in named],
        "max_steps": 40,
        "episodes": seeds,
    }
    return {
        "suite": {**shown, "env": {"embodiment": "robot"}},
        "config": asdict(replace(EvalConfig(), replan_steps=REPLAN)),
        "policy": {"recipe": "tiny"},
        "demonstrated": 0,
        **summary(suite, rows),
        "episodes": rows,
    }


def still(folder: Path) -> Path:
    """A recording in which nothing moves, 24 steps."""
    path = folder / "still.npz"
    frames = np.random.default_rng(0).integers(0, 256, (2, 32, 32, 3), dtype=np.uint8)
    np.savez_compressed(
        path,
        view_front=np.repeat(frames[:1], 25, axis=0),
        view_wrist=np.repeat(frames[1:], 25, axis=0),
        display=np.zeros((25, *DISPLAY, 3), np.uint8),
        proprio=np.zeros((25, 3), np.float32),
        action=np.zeros((24, 2), np.float32),
        query_step=np.arange(0, 24, 4),
        query_path=np.full((6, 6, 2), 10.0, np.float32),
        success=np.array(True),
    )
    return path
