"""RoboTwin 2.0: named protocols, run by its own evaluator in its own checkout and Python, against a policy served here.

Fifty tasks, 100 episodes each, clean or randomised scenes; seeds go upwards over those that the scripted expert solves;
step limits and success are the simulator's. How many actions of a chunk are executed, and whether they are joints or
poses of the hands, is the recipe's (`replan_steps`, `actions.names`). The protocols differ in where seeds begin and in
which instructions an episode's is drawn from.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from wamkit_client.envs.base import Task
from wamkit_client.envs.robotwin.conventions import TASKS, RoboTwinConfig
from wamkit_client.suites import Suite
from wamkit_client.types import BadInput

if TYPE_CHECKING:
    from wamkit.config import Run

LONGEST = 1700  # of the simulator's step limits, which hold; results list them

# By the ending of a suite's name: which instructions, and which seed. Light-WAM's and Fast-WAM's (Light-WAM spec 5.4),
# and LaWAM's (LaWAM spec 6.2), which names no seed; 0 is RoboTwin's own.
PROTOCOLS = {"": ("unseen", 42), "_lawam": ("seen", 0)}
SCENES = ("clean", "randomized")


def _suite(name: str, env: RoboTwinConfig) -> Suite:
    tasks = tuple(Task(task, "drawn for every episode", name) for task in TASKS)
    return Suite(name, tasks, env, max_steps=LONGEST, episodes=100, first_seed=env.first_seed)


SUITES = {
    name: _suite(name, RoboTwinConfig(f"demo_{scenes}", instructions, seed))
    for ending, (instructions, seed) in PROTOCOLS.items()
    for scenes in SCENES
    for name in (f"robotwin_{scenes}{ending}",)
}


def find_suite(name: str) -> Suite:
    """The suite of that name; "robotwin_clean:place_fan,open_laptop" is these tasks of it. BadInput for others."""
    family, _, names = name.partition(":")
    if family not in SUITES:
        raise BadInput(f"unknown suite {family!r}; RoboTwin's are {', '.join(SUITES)}")
    suite = SUITES[family]
    return replace(suite.only(names.split(",")), name=name) if names else suite


def evaluate(
    run_dir: Path, asked: Run, suite_name: str, episodes: int, out: Path, root: Path
) -> dict[str, Any]:
    """Run what is missing of the suite's tasks and return the results that also stand in `out`/results.json.

    asked: the directory's run, or one with inference overrides; `eval.processes` is how many evaluators run at a time.
    episodes: per task (0: the suite's).  root: the RoboTwin checkout.
    Raises BadInput where RoboTwin is not installed, `out` holds another evaluation, the policy is for another robot, or
    evaluators died: the finished tasks are kept then, and the same call resumes.
    """
    suite = find_suite(suite_name)
    try:
        from wamkit.robotwin import evaluation
    except ModuleNotFoundError as error:
        raise BadInput(
            f"{error.name} is not installed, which serves the policy: pip install 'wamkit[robotwin]'"
        ) from None
    return evaluation.evaluate(run_dir, asked, replace(suite, episodes=episodes or suite.episodes), out, root)
