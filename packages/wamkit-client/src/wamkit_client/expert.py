"""Demonstrations: one episode of a scripted expert, seen as a policy will see it.

Knows the environment contract; where demonstrations are stored is up to the collector.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any, Dict, Optional, Sequence, Tuple

import numpy as np

from wamkit_client.envs.base import Env, InitialState, Task
from wamkit_client.envs.vector import Host
from wamkit_client.types import Observation


@dataclass(frozen=True)
class ExpertConfig:
    """max_steps: control steps within which the expert must succeed.  steps_after_success: recorded beyond it.

    noise: standard deviation of what is added to the executed actions, in action units; the clean action is recorded
        (as in DART), so that the data shows how to recover. 0 = none.
    noise_seconds: how long it lasts: the time within which its autocorrelation falls to 1/e. 0 = drawn anew at every
        step. Noise that lasts takes the robot somewhere, so that where the robot is says less of where it should go.
    noise_pause_seconds: quiet time after every `noise_seconds` of noise, in which the expert recovers, so that far
        stronger noise can be borne; the first noise begins at a random time. 0 = no pauses.
    """

    max_steps: int
    steps_after_success: int = 10
    noise: float = 0.0
    noise_seconds: float = 0.0
    noise_pause_seconds: float = 0.0

    def disturbance(self, env: Env, seed: int) -> Disturbance:
        """Of an episode; the same for the same seed."""
        lasts = env.control_hz * self.noise_seconds
        keeps = math.exp(-1 / lasts) if lasts else 0.0
        pauses = Pauses(lasts, env.control_hz * self.noise_pause_seconds, np.random.default_rng((seed, 1)))
        return Disturbance(self.noise, keeps, pauses, np.random.default_rng(seed))


class Pauses:
    """Whether there is noise at a step: `noisy` steps, then `quiet` ones, over and over, from a random place on."""

    def __init__(self, noisy: float, quiet: float, rng: np.random.Generator) -> None:
        self.noisy, self.quiet = noisy, quiet
        self.first = rng.uniform(0, noisy + quiet)

    def quiet_at(self, step: int) -> bool:
        """Of step `step` of the episode, from 0."""
        return self.quiet > 0 and (self.first + step) % (self.noisy + self.quiet) >= self.noisy


class Disturbance:
    """Noise on executed actions: normal, of standard deviation `std`; each step keeps that share of the one before (a
    stationary autoregressive process of first order)."""

    def __init__(self, std: float, keeps: float, pauses: Pauses, rng: np.random.Generator) -> None:
        self.std, self.keeps, self.pauses, self.rng = std, keeps, pauses, rng
        self.last: Optional[np.ndarray] = None
        self.step = 0

    def on(self, action: np.ndarray) -> np.ndarray:
        """The next action [a] as it is executed."""
        fresh = self.rng.standard_normal(action.shape)
        keeps = self.keeps
        self.last = fresh if self.last is None else keeps * self.last + math.sqrt(1 - keeps**2) * fresh
        std = 0.0 if self.pauses.quiet_at(self.step) else self.std
        self.step += 1
        return np.asarray(action + std * self.last, dtype=np.float32)


@dataclass(frozen=True)
class Demonstration:
    """One episode of t steps: proprio [t, p], actions [t, a] (clean, in range), views uint8 [t, h, w, 3] by name.

    Row i is what was seen before action i. success_step: steps taken until the first success; 0 = failed, no rows.
    """

    initial_state: InitialState
    success_step: int = 0
    proprio: np.ndarray = field(default_factory=lambda: np.zeros((0, 0)))
    actions: np.ndarray = field(default_factory=lambda: np.zeros((0, 0)))
    views: Dict[str, np.ndarray] = field(default_factory=dict)


def demonstrate(env: Env, seed: int, config: ExpertConfig) -> Demonstration:
    """Try the episode without rendering; where the expert succeeds, repeat it with images."""
    initial_state, success_step = _rehearse(env, seed, config)
    if success_step == 0:
        return Demonstration(initial_state)
    env.reset(seed)
    disturbance = config.disturbance(env, seed)
    observations, actions = [], []
    for _ in range(min(success_step + config.steps_after_success, env.max_steps)):
        observations.append(env.observe())
        actions.append(env.expert_action())
        env.step(disturbance.on(actions[-1]))
    return demonstration(initial_state, success_step, observations, np.stack(actions))


def demonstration(
    initial_state: InitialState, success_step: int, observations: Sequence[Observation], actions: np.ndarray
) -> Demonstration:
    """One row per observation."""
    views = {name: np.stack([seen.images[name] for seen in observations]) for name in observations[0].images}
    proprio = np.stack([seen.proprio for seen in observations])
    return Demonstration(initial_state, success_step, proprio, actions, views)


def demonstrate_on(host: Host, task: Task, seed: int, config: ExpertConfig) -> Demonstration:
    """`demonstrate` in an environment's process."""
    return demonstrate(host.env(task), seed, config)


def columns(host: Host, task: Task) -> Dict[str, Any]:
    """What a recording of the task holds: rate, names of its numbers, shapes of its views."""
    env = host.env(task)
    env.reset(host.config.first_demonstration_seed)
    return {
        "fps": env.control_hz,
        "action_names": list(env.action_names),
        "proprio_names": list(env.proprio_names),
        "view_shapes": {name: list(image.shape) for name, image in env.observe().images.items()},
    }


def _rehearse(env: Env, seed: int, config: ExpertConfig) -> Tuple[InitialState, int]:
    initial_state = env.reset(seed)
    disturbance = config.disturbance(env, seed)
    for step in range(1, min(config.max_steps, env.max_steps) + 1):
        if env.step(disturbance.on(env.expert_action())).success:
            return initial_state, step
    return initial_state, 0
