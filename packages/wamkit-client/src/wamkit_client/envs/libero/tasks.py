"""The tasks of LIBERO's suites, from tasks.json, in the order of their published numbers, and of LIBERO-PRO's.

expert_steps: from ten to twelve initial states; 0 where the scripted expert (expert.py) cannot do a task.
A task of LIBERO-PRO has the name of the task that it was made from. Its instruction is that of its own file where words
or task are what was changed (pro_words.json), and else the one that it was made from, so that one thing alone differs.
"""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Dict, Tuple

from wamkit_client.envs.base import Task, read_tasks
from wamkit_client.envs.libero.pro import BASES, KINDS

_FOLDER = Path(__file__).parent
_ALL = read_tasks(_FOLDER / "tasks.json")
_WORDS: Dict[str, Dict[str, str]] = json.loads((_FOLDER / "pro_words.json").read_text())
LIBERO_TASKS: Dict[str, Tuple[Task, ...]] = {
    suite: tuple(task for task in _ALL if task.group == suite)
    for suite in dict.fromkeys(task.group for task in _ALL)
}


def _changed(task: Task, suite: str) -> Task:
    words = _WORDS.get(suite, {}).get(task.name, task.instruction)
    return replace(task, group=suite, instruction=words, expert_steps=0)


LIBERO_PRO_TASKS: Dict[str, Tuple[Task, ...]] = {
    f"{base}_{kind}": tuple(_changed(task, f"{base}_{kind}") for task in LIBERO_TASKS[base])
    for base in BASES
    for kind in KINDS
}
