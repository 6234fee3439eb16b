"""The tasks of LIBERO's suites, from tasks.json, in the order of their published numbers.

expert_steps: from ten to twelve initial states; 0 where the scripted expert (expert.py) cannot do a task.
"""

from __future__ import annotations

from pathlib import Path
from typing import Dict, Tuple

from wamkit_client.envs.base import Task, read_tasks

_ALL = read_tasks(Path(__file__).with_name("tasks.json"))
LIBERO_TASKS: Dict[str, Tuple[Task, ...]] = {
    suite: tuple(task for task in _ALL if task.group == suite)
    for suite in dict.fromkeys(task.group for task in _ALL)
}
