"""Scripted experts -> a LeRobot dataset: success-filtered demonstrations, the same for any number of processes.

Each task gets the first `episodes` seeds, from the simulator's `first_demonstration_seed` on, whose expert succeeds;
the others are discarded and counted. An episode is tried once without rendering; only a success is repeated with
images, and continues for some steps after it. It knows environments and the recorder, nothing of policies.
"""

from __future__ import annotations

import dataclasses
import json
import time
from collections.abc import Hashable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from wamkit_client.envs.base import Task
from wamkit_client.envs.vector import EnvCrashed, describe
from wamkit_client.expert import Demonstration, ExpertConfig, columns, demonstrate_on
from wamkit_client.fleet import NEVER
from wamkit_client.suites import Suite
from wamkit_client.types import BadInput

from wamkit.bounds import AT_LEAST_0, AT_LEAST_1, NOT_NEGATIVE, check
from wamkit.data.lerobot.dataset import Dataset
from wamkit.data.lerobot.files import CAMERA_PREFIX
from wamkit.data.lerobot.recorder import KEPT, Episode, Format, Recorder, Request, recording, vector, video
from wamkit.io.files import AGAIN
from wamkit.io.jobs import PAUSE, Workers, done
from wamkit.io.progress import announce
from wamkit.stages.simulators import Simulators, in_processes

FACTS = "collection.json"
PATIENCE = 4  # seeds tried per wanted episode before an expert is given up


@dataclass(frozen=True)
class CollectConfig:
    """episodes: demonstrations per task.  workers: simulators at a time.

    skip: how many seeds are passed over at the beginning, so that a second collection has other episodes.
    steps_after_success, noise, noise_seconds, noise_pause_seconds: see wamkit_client.expert.ExpertConfig.
    """

    episodes: int = 40
    workers: int = 2
    steps_after_success: int = 10
    noise: float = 0.0
    noise_seconds: float = 0.0
    noise_pause_seconds: float = 0.0
    skip: int = 0

    def __post_init__(self) -> None:
        check("collect", self, BOUNDS)
        if self.noise_seconds and not self.noise:
            raise BadInput("collect.noise_seconds is set and collect.noise is 0: say how strong the noise is")
        if self.noise_pause_seconds and not self.noise_seconds:
            raise BadInput(
                "collect.noise_pause_seconds is set and collect.noise_seconds is 0: say how long noise lasts"
            )

    def first_seed(self, suite: Suite) -> int:
        """The first one that is tried."""
        return suite.env.first_demonstration_seed + self.skip


BOUNDS = {
    "episodes": AT_LEAST_1,
    "workers": AT_LEAST_1,
    "steps_after_success": AT_LEAST_0,
    **dict.fromkeys(("noise", "noise_seconds", "noise_pause_seconds"), NOT_NEGATIVE),
    "skip": AT_LEAST_0,
}


def is_collected(dataset: Dataset) -> bool:
    """Whether `collect` recorded it, or what it is a copy of at a higher rate (convert/downsample.py)."""
    if (dataset.root / FACTS).exists():
        return True
    return "collected" in dataset.episode_columns and all(dataset.episode_column("collected"))


def collect(
    suite: Suite, folder: Path, config: CollectConfig, simulators: Simulators = in_processes
) -> dict[str, Any]:
    """Collect the suite's tasks into `folder`; returns the facts that also stand in its collection.json.

    simulators: where they are.
    Interrupted work resumes at the first missing episode; a finished dataset of the same request is left alone.
    Raises BadInput when the folder holds another collection or another process records there, when the seeds could
    reach the evaluation's, when an expert keeps failing or the simulator crashes; KeyboardInterrupt after Ctrl-C or
    SIGTERM.
    """
    request = Request(folder, FACTS, {"request": _asked(suite, config)})
    facts = request.finished()
    if facts is not None:
        return facts
    simulator = request.asked["request"]["simulator"]
    with simulators(suite.env, simulator, config.workers) as workers:
        started = time.monotonic()
        about = _about(suite, workers)
        total = config.episodes * len(suite.tasks)
        with recording(request, _format(about, suite), "collect", total, about=about) as recorder:
            tasks = {task.name: _fill(recorder, task, suite, config, workers) for task in suite.tasks}
            seconds = round(time.monotonic() - started, 1)
            recorder.facts.update(tasks=tasks, seconds_of_last_run=seconds)
    return recorder.facts


def _about(suite: Suite, workers: Workers) -> dict[str, Any]:
    """Rate, views and names of the dimensions, as the environment says."""
    task = suite.tasks[0]
    try:
        [about] = done(workers, {f"columns of {task.name}": (columns, task)}, NEVER)
    except EnvCrashed as error:
        raise crashed(task.name, error) from error
    found: dict[str, Any] = about
    return found


def _format(about: dict[str, Any], suite: Suite) -> Format:
    features = {
        "observation.state": vector(len(about["proprio_names"]), about["proprio_names"]),
        "action": vector(len(about["action_names"]), about["action_names"]),
    }
    features |= {CAMERA_PREFIX + view: video(*size[:2]) for view, size in about["view_shapes"].items()}
    return Format(about["fps"], suite.env.embodiment, features)


def _fill(
    recorder: Recorder, task: Task, suite: Suite, config: CollectConfig, workers: Workers
) -> dict[str, float]:
    """Record the missing demonstrations of a task; how many it has, and how the expert did."""
    recorded = [episode.extra for episode in recorder.staged if episode.extra["task_name"] == task.name]
    seeds = [int(extra["seed"]) for extra in recorded]
    success_steps = [int(extra["success_step"]) for extra in recorded]
    for demonstration in _successes(recorder, workers, task, suite, config, seeds):
        recorder.add(_episode(demonstration, task), note=task.name)
        seeds.append(demonstration.initial_state.seed)
        success_steps.append(demonstration.success_step)
    return {
        "episodes": len(seeds),
        "discarded": seeds[-1] - config.first_seed(suite) + 1 - len(seeds),
        "mean_success_step": float(np.mean(success_steps)),
    }


def _successes(
    recorder: Recorder,
    workers: Workers,
    task: Task,
    suite: Suite,
    config: CollectConfig,
    seeds: Sequence[int],
) -> Iterator[Demonstration]:
    """The demonstrations still missing after those of `seeds`, in the order of their seeds."""
    steps = suite.steps(task)
    expert = ExpertConfig(
        steps, config.steps_after_success, config.noise, config.noise_seconds, config.noise_pause_seconds
    )
    wanted = config.episodes - len(seeds)
    first_seed = config.first_seed(suite)
    next_seed = next_yield = max(seeds, default=first_seed - 1) + 1
    busy: dict[Hashable, int] = {}  # seeds by the name of their jobs
    waiting: dict[int, Demonstration] = {}
    while wanted > 0:
        recorder.expect_no_stop()
        while workers.free() and len(busy) + sum(demo.success_step > 0 for demo in waiting.values()) < wanted:
            _check_patience(task, config, next_seed - first_seed, config.episodes - wanted)
            name = f"{task.name}, seed {next_seed}"
            workers.begin(name, demonstrate_on, task, next_seed, expert)
            busy[name] = next_seed
            next_seed += 1
        for ended, outcome in workers.ended(PAUSE):
            seed = busy.pop(ended)
            try:
                waiting[seed] = outcome()
            except EnvCrashed as error:
                raise crashed(f"{task.name}, seed {seed}", error) from error
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


def crashed(where: str, error: EnvCrashed) -> BadInput:
    """The error for a simulator that crashed while an episode was recorded; where: which one."""
    reason, *traceback = str(error).splitlines()
    places = [f" ({line.strip()})" for line in traceback if line.lstrip().startswith("File ")]
    return BadInput(
        f"{where}: the simulator crashed: {reason}{''.join(places[-1:])}. {KEPT.capitalize()}; {AGAIN}. If it crashes "
        "there again, look at its installation (wamkit inspect system), or leave the task out"
    )


def _asked(suite: Suite, config: CollectConfig) -> dict[str, Any]:
    first = config.first_seed(suite)
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
    del settings["skip"]  # first_seed says it
    for newer in ("noise_seconds", "noise_pause_seconds"):  # older collections know nothing of them
        if not settings[newer]:
            del settings[newer]
    return {
        "suite": suite.name,
        "tasks": [task.name for task in suite.tasks],
        "max_steps": suite.max_steps,
        "first_seed": first,
        "env": suite.env.to_json(),
        "simulator": simulator,
        **settings,
    }


def _episode(demonstration: Demonstration, task: Task) -> Episode:
    extra = {
        "task_name": task.name,
        "seed": demonstration.initial_state.seed,
        "initial_state": json.dumps(demonstration.initial_state.to_json()),
        "success_step": demonstration.success_step,
    }
    rows = {"observation.state": demonstration.proprio, "action": demonstration.actions}
    return Episode(rows, demonstration.views, task.instruction, extra)
