"""The 50 tasks of Meta-World, from tasks.json.

Instructions are LeRobot's; groups are the difficulty groups of the published MT50 scores; expert_steps are of
metaworld 3.1.1 with mujoco 3.3.0, from ten initial states.
"""

from __future__ import annotations

from pathlib import Path

from wamkit_client.envs.base import Task, nearest, read_tasks
from wamkit_client.types import BadInput

METAWORLD_TASKS = read_tasks(Path(__file__).with_name("tasks.json"))


def metaworld_task(name: str) -> Task:
    """The task of that name (with or without "-v3"); BadInput for an unknown one."""
    for task in METAWORLD_TASKS:
        if name in (task.name, task.name[: -len("-v3")]):
            return task
    names = [task.name for task in METAWORLD_TASKS]
    raise BadInput(
        f"Meta-World has no task {name!r}; did you mean {nearest(name, names)!r}? It has: {', '.join(names)}"
    )
