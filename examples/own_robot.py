"""Your robot behind the contract that every environment here keeps, and a trained policy that moves it.

    python examples/own_robot.py runs/table        the run directory that own_dataset.py leaves

The "robot" is a hand over a table with one camera above it, drawn with NumPy; replace the body of each method by
calls to yours. Everything is in physical units: metres, and pictures as uint8 RGB.
"""

from __future__ import annotations

import sys

import numpy as np
from wamkit_client.envs.base import Env, InitialState, StepResult, Task, checked_action
from wamkit_client.rollout import EpisodeConfig, rollout
from wamkit_client.types import Observation, Policy

import wamkit

TASK = Task("touch-v0", "Touch the red disc")
SIZE = 64  # pixels of the square picture; the table is one metre wide
REACH = 0.05  # metres per control step
DISC = 0.08  # metres, its radius


class Table(Env):
    """The hand (blue) has touched the disc (red) when its middle is over it."""

    embodiment = "table"
    control_hz = 10.0
    max_steps = 60
    action_names = ("dx", "dy")
    proprio_names = ("x", "y")
    view_names = ("top",)

    def __init__(self, task: Task = TASK) -> None:
        self.task = task
        self.hand, self.disc = np.zeros(2), np.zeros(2)

    def reset(self, seed: int) -> InitialState:
        """The same seed gives the same state, whatever happened before."""
        rng = np.random.default_rng(seed)
        self.hand, self.disc = rng.uniform(0.1, 0.9, 2), rng.uniform(0.1, 0.9, 2)
        return InitialState(self.task.name, seed, (*self.hand, *self.disc))

    def observe(self) -> Observation:
        """What the robot's cameras and joints say now."""
        picture = np.full((SIZE, SIZE, 3), 230, np.uint8)
        rows, columns = (np.mgrid[:SIZE, :SIZE] + 0.5) / SIZE
        for (x, y), radius, colour in ((self.disc, DISC, (200, 40, 40)), (self.hand, 0.05, (40, 60, 200))):
            picture[(columns - x) ** 2 + (rows - y) ** 2 < radius**2] = colour
        return Observation(
            {"top": picture}, self.hand.astype(np.float32), self.task.instruction, self.embodiment
        )

    def step(self, action: np.ndarray) -> StepResult:
        """One control step; a real robot waits here for the next tick of its clock."""
        move = checked_action(action, 2, "table")
        self.hand = np.clip(self.hand + np.clip(move, -REACH, REACH), 0, 1)
        return StepResult(success=self._distance() < DISC, done=False)

    def expert_action(self) -> np.ndarray:
        """Straight to the disc. A robot without a scripted expert leaves this method out."""
        away = self.disc - self.hand
        return (away * min(1.0, REACH / np.abs(away).max())).astype(np.float32)

    def _distance(self) -> float:
        return float(np.linalg.norm(self.disc - self.hand))

    def close(self) -> None:
        """Nothing to free."""


def evaluate(policy: Policy, episodes: int = 20) -> None:
    """Ask the policy for a chunk, execute four actions of it, look again."""
    seeds = range(1_000_000, 1_000_000 + episodes)  # far from those of the demonstrations
    outcomes = [rollout(policy, Table(), seed, EpisodeConfig(replan_steps=4, max_steps=60)) for seed in seeds]
    print(f"touched the disc in {sum(outcome.success for outcome in outcomes)} of {episodes} episodes")


if __name__ == "__main__":
    evaluate(wamkit.load_policy(sys.argv[1]))
