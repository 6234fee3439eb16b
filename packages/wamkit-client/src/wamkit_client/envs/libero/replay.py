"""Recorded actions, executed again in LIBERO from the state they were recorded from, with a policy's observations.

Knows the LIBERO environment; where recordings come from and which of them are kept is up to the converter.
"""

from __future__ import annotations

import numpy as np

from wamkit_client.envs.base import Task
from wamkit_client.envs.libero.env import Libero
from wamkit_client.envs.vector import Host
from wamkit_client.expert import Demonstration, demonstration
from wamkit_client.types import BadInput

NO_SEED = -1  # reported with initial states that were recorded, not drawn


def replay(env: Libero, state: np.ndarray, actions: np.ndarray, trial: int = 0) -> Demonstration:
    """What the actions [t, 7] (gripper 1 = open) do from a flattened simulator state [n].

    trial: as of `Libero.reset_to`.  A replay has failed (success_step 0, no rows) unless the task is solved after the
    last action. BadInput where the simulator does not allow t steps, or the state belongs to another task.
    """
    if len(actions) > env.max_steps:
        raise BadInput(
            f"LIBERO task {env.task.name}: {len(actions)} actions, the simulator allows {env.max_steps}"
        )
    initial_state = env.reset_to(state, NO_SEED, trial)
    observations, successes = [], []
    for action in actions:
        observations.append(env.observe())
        successes.append(env.step(action).success)
    if not successes or not successes[-1]:
        return Demonstration(initial_state)
    success_step = 1 + successes.index(True)
    return demonstration(initial_state, success_step, observations, actions.astype(np.float32))


def replay_on(host: Host, task: Task, state: np.ndarray, actions: np.ndarray, trial: int) -> Demonstration:
    """`replay` in an environment's process."""
    env = host.env(task)
    assert isinstance(env, Libero)
    return replay(env, state, actions, trial)
