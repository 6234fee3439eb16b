"""A trained policy measured in closed loop: by a suite, as an earlier result was, or in the user's own environment."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from wamkit_client.envs.base import InitialState
from wamkit_client.suites import Suite, results_name
from wamkit_client.suites import suite as find_suite
from wamkit_client.types import BadInput, Policy

from wamkit.config import (
    RUN,
    Run,
    acting_precision,
    inference_overrides,
    load_acting,
    load_provenance,
    load_run,
)
from wamkit.eval.evaluate import differences, like, read_results
from wamkit.eval.evaluate import evaluate as measure
from wamkit.infer.divided import Divided
from wamkit.infer.engine import Engine
from wamkit.io.files import sha256
from wamkit.io.progress import say
from wamkit.io.weights import WEIGHTS
from wamkit.stages.run import best_device, device_name
from wamkit.stages.warning import load_watched, read_calibration


def results_folder(run_dir: Path, suite_name: str) -> Path:
    """Where a run's results of a suite are, where nothing else is said."""
    return run_dir / "eval" / results_name(suite_name)


def evaluate(
    run_dir: Path,
    asked: Run,
    suite_name: str,
    episodes: int,
    out: Path,
    tasks: tuple[str, ...] = (),
    address: str = "",
) -> dict[str, Any]:
    """Run directory -> results in `out`, on initial states that were not demonstrated.

    asked: the directory's run, or one that differs in what a trained policy can be asked for, else BadInput. episodes:
    per task; 0: as the suite says. tasks: names, numbers and ranges of the suite's; (): all. address: as of `measured`.
    """
    return measured(run_dir, asked, chosen(asked, suite_name, episodes, tasks), out, address)


def chosen(run: Run, suite_name: str, episodes: int, tasks: tuple[str, ...]) -> Suite:
    """The suite, as `evaluate` is asked for it, for a policy with the actions of the run."""
    suite = find_suite(suite_name).acted_by(run.actions.names)
    if tasks:
        suite = suite.only(tasks)
    return replace(suite, episodes=episodes) if episodes else suite


def repeat(
    asked: Run, earlier: Path, measure: Callable[[Run, Suite], dict[str, Any]]
) -> tuple[dict[str, Any], list[str]]:
    """The evaluation of `earlier` (a results.json) again, and what came out differently.

    measure: results of a run on a suite.
    """
    suite, config = like(earlier)
    suite = suite.acted_by(asked.actions.names)
    results = measure(replace(asked, eval=config), suite)
    before = read_results(earlier) | {
        "suite": suite.to_json()
    }  # every field, also those that it did not know yet
    return results, differences(before, results)


def measured(run_dir: Path, asked: Run, suite: Suite, out: Path, address: str = "") -> dict[str, Any]:
    """Results of the run directory, acting as `asked` says, on the suite. address: of a Ray cluster that does it."""
    if address:
        from wamkit.stages import evaluation_on_cluster  # needs a package that nothing else needs

        return evaluation_on_cluster.measured(address, run_dir, asked, suite, out)
    return loaded(run_dir, asked)(suite, out)


def loaded(run_dir: Path, asked: Run) -> Callable[[Suite, Path], dict[str, Any]]:
    """What measures the run directory, acting as `asked` says, on suites, each in a folder: it is loaded once."""
    device = best_device()
    facts = policy_facts(run_dir, asked, device)
    engine, acting = acting_as(run_dir, asked, device)
    if engine.threads < torch.get_num_threads():
        say(
            f"acting with {engine.threads} of {torch.get_num_threads()} threads, the fastest for a policy this small"
        )
    known = demonstrated(run_dir)

    def measure_on(suite: Suite, out: Path) -> dict[str, Any]:
        expect_fit(asked, suite, engine.policy.embodiment)
        return measure(acting, suite, asked.eval, out, facts, known)

    return measure_on


def expect_fit(run: Run, suite: Suite, expect_known: Callable[[Sequence[str]], Any]) -> None:
    """BadInput where the suite does not show what the policy was trained on for a robot, or executes at another rate.

    The rate is that of the suite's own robot, also where the policy acts as another one (infer/divided.py).
    expect_known: raises BadInput for robots that the policy does not know.
    """
    env, robot = suite.env, run.eval.robot or suite.env.embodiment
    trained = run.robots.get(env.embodiment, run.data).hz
    if env.control_hz not in (0, trained):
        raise BadInput(
            f"suite {suite.name} executes {env.control_hz:g} actions per second, and the policy acts at {trained:g} Hz "
            f"for robot {env.embodiment!r}; choose a suite of that rate, or train on data at {env.control_hz:g} Hz"
        )
    expect_known([robot])
    spec = run.robots.get(robot, run.data)
    suite.env.check_shows(spec.views, spec.proprio_dim)


def acting_as(run_dir: Path, asked: Run, device: torch.device) -> tuple[Engine[Any], Policy]:
    """The engine, and as what it acts in the environment: itself, watched, or as a robot of a lower rate. BadInput for
    an unknown one."""
    if asked.eval.warn:
        watched = load_watched(asked, run_dir, device)
        return watched.engine, watched
    engine = load_acting(asked, run_dir, device)
    return engine, asked_as(engine, asked)


def asked_as(policy: Policy, asked: Run) -> Policy:
    """The policy as it acts in the environment, or as a robot of a lower rate. BadInput for an unknown one."""
    robot = asked.eval.robot
    return Divided(policy, asked.robots, robot, asked.actions, asked.data.hz) if robot else policy


def policy_facts(run_dir: Path, asked: Run, device: torch.device) -> dict[str, Any]:
    """What identifies a policy in its results; `run` there is what it acts as. asked, BadInput: as of `evaluate`."""
    run, effective = load_run(run_dir), RUN.dump_python(asked, mode="json")
    changes = inference_overrides(run, asked)
    return ({"asked": changes} if changes else {}) | {
        "kind": run.policy.kind,
        "recipe": run.recipe,
        **run.policy.identity,
        "seed": run.train.seed,
        "steps": run.train.steps,
        "weights": sha256(run_dir / WEIGHTS),
        **({"warning": read_calibration(run_dir).identity} if asked.eval.warn else {}),
        "precision": str(acting_precision(asked, run_dir)).removeprefix("torch."),
        "device": device_name(device),
        "run": {section: effective[section] for section in ("policy", "data", "actions", "normalization")},
    }


def demonstrated(run_dir: Path) -> Sequence[InitialState]:
    """The initial states that a policy was trained on."""
    return [InitialState.from_json(state) for state in load_provenance(run_dir)["initial_states"]]
