"""Scripted experts -> a LeRobot dataset: success-filtered demonstrations, the same for any number of processes.

Each task gets the first `episodes` seeds, from the simulator's `first_demonstration_seed` on, whose expert succeeds;
the others are discarded and counted. An episode is tried once without pictures; only a success is repeated with them,
and goes on for some steps after it. Knows environments and the dataset writer, nothing of policies.
"""

from __future__ import annotations

import dataclasses
import json
import shutil
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from multiprocessing.connection import wait
from pathlib import Path
from threading import Event
from typing import Any

import numpy as np
from wamkit_client.envs.base import Task
from wamkit_client.envs.vector import EnvProcess, describe, env_processes
from wamkit_client.expert import Demonstration, ExpertConfig, columns, demonstrate_on
from wamkit_client.suites import Suite
from wamkit_client.types import BadInput

from wamkit.bounds import AT_LEAST_0, AT_LEAST_1, NOT_NEGATIVE, check
from wamkit.data.lerobot.files import CAMERA_PREFIX, STAGING
from wamkit.data.lerobot.importing import KEPT, vector, video
from wamkit.data.lerobot.writer import Writer
from wamkit.io.files import only_writer, replace_text
from wamkit.io.interrupt import stop_request, stopped
from wamkit.io.progress import announce, bar
from wamkit.io.records import read_record

FACTS = "collection.json"
PATIENCE = 4  # seeds tried per wanted episode before an expert is given up


@dataclass(frozen=True)
class CollectConfig:
    """episodes: demonstrations per task.  workers: processes.

    steps_after_success, noise: see wamkit_client.expert.ExpertConfig.
    """

    episodes: int = 40
    workers: int = 2
    steps_after_success: int = 10
    noise: float = 0.0

    def __post_init__(self) -> None:
        check("collect", self, BOUNDS)


BOUNDS = {
    "episodes": AT_LEAST_1,
    "workers": AT_LEAST_1,
    "steps_after_success": AT_LEAST_0,
    "noise": NOT_NEGATIVE,
}


def collect(suite: Suite, folder: Path, config: CollectConfig) -> dict[str, Any]:
    """Collect the suite's tasks into `folder`; returns the facts that also stand in its collection.json.

    Interrupted work resumes at the first missing episode; a finished dataset of the same request is left alone.
    Raises BadInput when the folder holds another collection or another process records there, when the seeds could
    reach the evaluation's, or when an expert keeps failing; KeyboardInterrupt after Ctrl-C or SIGTERM.
    """
    request = _request(suite, config)
    facts = _facts(folder, request)
    if facts and Writer.finished(folder):
        return facts
    with only_writer(folder, "records"), env_processes(suite.env, config.workers) as processes:
        return _collect(suite, folder, config, request, processes)


def _collect(
    suite: Suite, folder: Path, config: CollectConfig, request: dict[str, Any], processes: list[EnvProcess]
) -> dict[str, Any]:
    started = time.monotonic()
    processes[0].send(columns, suite.tasks[0])
    facts = {"request": request, **processes[0].receive()}
    writer = _writer(folder, facts, suite.env.embodiment)
    _write(folder, facts)
    try:
        facts["tasks"] = _fill(writer, suite, config, processes)
    except BadInput:
        if not writer.staged:
            shutil.rmtree(folder)  # nothing but what this call began
        raise
    facts["seconds_of_last_run"] = round(time.monotonic() - started, 1)
    _write(folder, facts)
    writer.finalize()
    return facts


def _fill(
    writer: Writer, suite: Suite, config: CollectConfig, processes: list[EnvProcess]
) -> dict[str, dict[str, float]]:
    staged = [episode.extra for episode in writer.staged]
    tasks: dict[str, dict[str, float]] = {}
    total = config.episodes * len(suite.tasks)
    with (
        stop_request(KEPT) as stop,
        bar("collect", total, unit="episodes", done=len(staged)) as advance,
    ):
        for task in suite.tasks:
            finished = [episode for episode in staged if episode["task_name"] == task.name]
            seeds = [int(episode["seed"]) for episode in finished]
            success_steps = [int(episode["success_step"]) for episode in finished]
            for demonstration in _successes(processes, task, suite, config, seeds, stop):
                writer.add_episode(**_episode(demonstration, task))
                seeds.append(demonstration.initial_state.seed)
                success_steps.append(demonstration.success_step)
                advance(1, note=task.name)
            tasks[task.name] = {
                "episodes": len(seeds),
                "discarded": seeds[-1] - suite.env.first_demonstration_seed + 1 - len(seeds),
                "mean_success_step": float(np.mean(success_steps)),
            }
    return tasks


def _successes(
    processes: list[EnvProcess],
    task: Task,
    suite: Suite,
    config: CollectConfig,
    seeds: Sequence[int],
    stop: Event,
) -> Iterator[Demonstration]:
    """The demonstrations still missing after those of `seeds`, in the order of their seeds."""
    expert = ExpertConfig(suite.steps(task), config.steps_after_success, config.noise)
    wanted = config.episodes - len(seeds)
    first_seed = suite.env.first_demonstration_seed
    next_seed = next_yield = max(seeds, default=first_seed - 1) + 1
    idle = list(processes)
    busy: dict[Any, tuple[EnvProcess, int]] = {}
    waiting: dict[int, Demonstration] = {}
    while wanted > 0:
        if stop.is_set():
            raise stopped(KEPT)
        while idle and len(busy) + sum(demo.success_step > 0 for demo in waiting.values()) < wanted:
            _check_patience(task, config, next_seed - first_seed, config.episodes - wanted)
            process = idle.pop()
            process.send(demonstrate_on, task, next_seed, expert)
            busy[process.connection] = (process, next_seed)
            next_seed += 1
        for connection in wait(list(busy)):
            process, seed = busy.pop(connection)
            waiting[seed] = process.receive()
            idle.append(process)
        while next_yield in waiting:
            demonstration = waiting.pop(next_yield)
            next_yield += 1
            if demonstration.success_step > 0:
                wanted -= 1
                yield demonstration


def _check_patience(task: Task, config: CollectConfig, tried: int, successes: int) -> None:
    if tried >= PATIENCE * max(config.episodes, 5):
        raise BadInput(
            f"the expert of {task.name} succeeded only {successes} times from {tried} initial states; "
            f"lower noise (now {config.noise}) or leave the task out"
        )


def _request(suite: Suite, config: CollectConfig) -> dict[str, Any]:
    first = suite.env.first_demonstration_seed
    last = first + PATIENCE * max(config.episodes, 5)
    if first < suite.first_seed + suite.episodes and last >= suite.first_seed:
        raise BadInput(
            f"collection seeds {first}..{last} would reach the evaluation's ({suite.first_seed}..); "
            "ask for fewer episodes, or another first_seed of the suite"
        )
    simulator, warnings = describe(suite.env)
    announce(simulator, warnings)
    settings = dataclasses.asdict(config)
    del settings["workers"]  # the episodes do not depend on it
    return {
        "suite": suite.name,
        "tasks": [task.name for task in suite.tasks],
        "max_steps": suite.max_steps,
        "first_seed": first,
        "env": suite.env.to_json(),
        "simulator": simulator,
        **settings,
    }


def _facts(folder: Path, request: dict[str, Any]) -> dict[str, Any]:
    """The facts that are there already, or {}. BadInput where they are of another request."""
    if not (folder / FACTS).exists():
        return {}
    facts = read_record(folder / FACTS, dict, "restore it, or remove the folder and record again")
    recorded = facts.get("request", {})
    for key, value in request.items():
        there = recorded.get(key)
        if there != value:
            raise BadInput(
                f"{folder} holds a collection with {key} = {there!r}, asked for {value!r}; "
                "choose another folder or remove this one"
            )
    return facts


def _writer(folder: Path, facts: dict[str, Any], embodiment: str) -> Writer:
    ours, unfinished = (folder / FACTS).exists(), Writer.unfinished(folder)
    if ours and unfinished:
        return Writer.resume(folder, repeatable=True)
    if unfinished and Writer.resume(folder).staged:
        raise BadInput(
            f"{folder} holds an unfinished recording that is not a collection; choose another folder"
        )
    if unfinished:  # killed before the first episode
        shutil.rmtree(folder / STAGING)
    if ours and not Writer.finished(folder):
        Writer.clear(folder, FACTS)
    features = {
        "observation.state": vector(len(facts["proprio_names"]), facts["proprio_names"]),
        "action": vector(len(facts["action_names"]), facts["action_names"]),
    }
    for view, (height, width, _) in facts["view_shapes"].items():
        features[CAMERA_PREFIX + view] = video(height, width)
    return Writer.create(folder, fps=facts["fps"], robot_type=embodiment, features=features)


def _episode(demonstration: Demonstration, task: Task) -> dict[str, Any]:
    return {
        "columns": {"observation.state": demonstration.proprio, "action": demonstration.actions},
        "videos": demonstration.views,
        "task": task.instruction,
        "extra": {
            "task_name": task.name,
            "seed": demonstration.initial_state.seed,
            "initial_state": json.dumps(demonstration.initial_state.to_json()),
            "success_step": demonstration.success_step,
        },
    }


def _write(folder: Path, facts: dict[str, Any]) -> None:
    replace_text(folder / FACTS, json.dumps(facts, indent=1))
