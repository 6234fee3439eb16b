"""RoboTwin 2.0: named protocols, run by its own evaluator in its own checkout and Python, against a policy served here.

Light-WAM spec 5.4: fifty tasks, 100 episodes each, clean or randomised scenes; seeds from 100000 * (1 + 42) upwards
over those that the scripted expert solves; an instruction drawn from the episode's "unseen" ones; 24 of 32 actions
executed (the recipe's `replan_steps`); step limits and success are the simulator's.
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


def _suite(name: str, env: RoboTwinConfig) -> Suite:
    tasks = tuple(Task(task, "drawn for every episode", name) for task in TASKS)
    return Suite(name, tasks, env, max_steps=LONGEST, episodes=100, first_seed=env.first_seed)


SUITES = {
    "robotwin_clean": _suite("robotwin_clean", RoboTwinConfig("demo_clean")),
    "robotwin_randomized": _suite("robotwin_randomized", RoboTwinConfig("demo_randomized")),
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
