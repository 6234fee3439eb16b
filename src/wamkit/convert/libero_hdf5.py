"""LIBERO's own demonstrations in HDF5 -> a LeRobot v3.0 dataset, made as the published `no_noops` datasets were.

    FOLDER/<task>_demo.hdf5
        data/demo_<n>/actions [t, 7]    displacement, rotation, gripper -1 open, 1 closed
        data/demo_<n>/states  [t, n]    flattened simulator states; everything else in the file is not read

Steps that do nothing are left out. The others are executed again from the first state, after ten steps of rest, and
rendered at 256x256; a demonstration that does not succeed again is discarded, and named. It knows environments and
the recorder, nothing of policies.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from rich.table import Table
from wamkit_client.envs.base import Task
from wamkit_client.envs.libero.env import Libero, LiberoConfig
from wamkit_client.envs.libero.replay import replay_on
from wamkit_client.envs.vector import EnvCrashed, EnvProcess, describe, env_processes
from wamkit_client.expert import Demonstration
from wamkit_client.suites import Suite
from wamkit_client.suites import suite as find_suite
from wamkit_client.types import BadInput

from wamkit.convert.hdf5 import numbers, opened, place, rows_at
from wamkit.convert.sources import convert_sources
from wamkit.data.lerobot.files import CAMERA_PREFIX
from wamkit.data.lerobot.recorder import Episode, Format, vector, video
from wamkit.io.progress import announce, console, say
from wamkit.stages.collect import crashed

# What the published datasets were replayed with: ten steps of rest, and fixtures where a fresh environment that was
# seeded with 0 and reset before every demonstration has them.
REPLAY = LiberoConfig(settle_steps=10, scene_seed=0, fixtures="per_trial")
ENDING = "_demo.hdf5"
STILL = 1e-4  # a shorter displacement and rotation, taken as one vector of six, does nothing
ANSWER_SECONDS = 1800.0  # for one demonstration, however slowly its images are rendered


@dataclass(frozen=True)
class Recorded:
    """One demonstration in a file. name: unique, "<task>/demo_<n>"."""

    path: Path
    key: str
    task: Task

    @property
    def name(self) -> str:
        return f"{self.task.name}/{self.key}"

    @property
    def number(self) -> int:
        """Of demo_<n>."""
        return int(self.key.removeprefix("demo_"))


def libero_to_lerobot(source: Path, out: Path, suite: str, workers: int = 2) -> None:
    """Convert the demonstrations of a suite's tasks in a folder into the dataset `out`.

    workers: processes that replay; the dataset does not depend on their number. Tasks without a file are named and
    left out. A finished dataset of the same is left alone. Raises BadInput where LIBERO is missing, a file cannot be
    used (naming file and key), `out` holds something else, or the simulator crashes; recorded episodes are kept, and
    the same call resumes behind them.
    """
    protocol = find_suite(suite)
    if not isinstance(protocol.env, LiberoConfig):
        raise BadInput(
            f"suite {suite} is not of LIBERO; name libero_spatial, libero_object, libero_goal, ..."
        )
    demonstrations = _find(source, protocol)
    facts, warnings = describe(REPLAY)
    announce(facts, warnings)
    console.print(_survey(source, demonstrations, protocol))
    features = {
        "action": vector(len(Libero.action_names), Libero.action_names),
        "observation.state": vector(len(Libero.proprio_names), Libero.proprio_names),
    }
    for view in Libero.view_names:
        features[CAMERA_PREFIX + view] = video(REPLAY.view_height, REPLAY.view_width)
    settings = {"replayed_in": json.dumps(facts | {"env": REPLAY.to_json()}, sort_keys=True)}
    form = Format(Libero.control_hz, REPLAY.embodiment, features)
    names = [demonstration.name for demonstration in demonstrations]
    with env_processes(REPLAY, workers) as processes:
        discarded = convert_sources(out, form, settings, names, _Replays(demonstrations, processes).read)
    say(f"{len(names) - len(discarded)} of {len(names)} demonstrations succeeded again")
    if discarded:
        say(f"discarded: {', '.join(discarded)}")


class _Replays:
    """Replayed demonstrations by number, read in ascending order; the next ones run meanwhile."""

    def __init__(self, demonstrations: Sequence[Recorded], processes: Sequence[EnvProcess]) -> None:
        self._demonstrations, self._processes = demonstrations, processes
        self._sent = 0
        self._left_out: dict[int, int] = {}

    def read(self, number: int) -> Episode | None:
        """The episode, or None where the replay failed."""
        self._sent = max(self._sent, number)
        while self._sent < min(number + len(self._processes), len(self._demonstrations)):
            self._send(self._sent)
            self._sent += 1
        demonstration = self._demonstrations[number]
        try:
            replayed: Demonstration = self._process(number).receive(ANSWER_SECONDS)
        except EnvCrashed as error:
            raise crashed(f"{demonstration.path}: data/{demonstration.key}", error) from error
        except BadInput as error:
            raise BadInput(f"{demonstration.path}: data/{demonstration.key}: {error}") from error
        if replayed.success_step == 0:
            return None
        task = demonstration.task
        extra = {
            "task_name": task.name,
            "initial_state": json.dumps(replayed.initial_state.to_json()),
            "success_step": replayed.success_step,
            "rows_left_out": self._left_out[number],
        }
        columns = {"observation.state": replayed.proprio, "action": replayed.actions}
        return Episode(columns, replayed.views, task.instruction, extra)

    def _process(self, number: int) -> EnvProcess:
        return self._processes[number % len(self._processes)]

    def _send(self, number: int) -> None:
        demonstration = self._demonstrations[number]
        state, actions = read_demonstration(demonstration)
        noop = is_noop(actions)
        self._left_out[number] = int(noop.sum())
        job = demonstration.task, state, actions[~noop], demonstration.number
        self._process(number).send(replay_on, *job)


def read_demonstration(demonstration: Recorded) -> tuple[np.ndarray, np.ndarray]:
    """The first state [n] and the actions [t, 7], gripper 1 = open, both float64. BadInput naming file and key."""
    with opened(demonstration.path) as file:
        states, actions = (
            rows_at(file, f"data/{demonstration.key}/{name}") for name in ("states", "actions")
        )
        state = numbers(states, len(states), np.float64)[0]
        rows = numbers(actions, len(actions), np.float64)
        where = place(actions)
    dims = len(Libero.action_names)
    if rows.shape[1] != dims or not np.isin(rows[:, -1], (-1.0, 1.0)).all():
        raise BadInput(
            f"{where} is {list(rows.shape)} with other grippers than -1 (open) and 1 (closed), or not [steps, {dims}]; "
            "these are not the actions of LIBERO's demonstrations"
        )
    rows[:, -1] = (1.0 - rows[:, -1]) / 2.0
    return state, rows


def is_noop(actions: np.ndarray) -> np.ndarray:
    """Which steps of [t, 7] do nothing: bool [t].

    The hand stays where it is, and the gripper does what it did at the last step that was kept.
    """
    still = np.linalg.norm(actions[:, :-1], axis=1) < STILL
    noop = np.zeros(len(actions), bool)
    kept: int | None = None
    for step in range(len(actions)):
        noop[step] = still[step] and (kept is None or actions[step, -1] == actions[kept, -1])
        if not noop[step]:
            kept = step
    return noop


def _find(source: Path, protocol: Suite) -> list[Recorded]:
    """All demonstrations of the suite's tasks, in the suite's order and that of their numbers."""
    files = {path.name.removesuffix(ENDING): path for path in sorted(source.glob(f"*{ENDING}"))}
    names = [task.name for task in protocol.tasks]
    if not files:
        raise BadInput(f"{source}: no demonstration found; expected files like {names[0]}{ENDING}")
    unexpected = sorted(files.keys() - set(names))
    if unexpected:
        raise BadInput(
            f"{files[unexpected[0]]}: suite {protocol.name} has no such task; name the suite that these files are of"
        )
    found = []
    for task in protocol.tasks:
        if task.name in files:
            path = files[task.name]
            with opened(path) as file:
                keys = list(file["data"])
            numbers = {int(key.removeprefix("demo_")): key for key in keys if re.fullmatch(r"demo_\d+", key)}
            if not numbers or len(numbers) < len(keys):
                raise BadInput(
                    f"{path}: data holds {keys[:5]}; expected demo_0, demo_1, ..., download it again"
                )
            found += [Recorded(path, numbers[number], task) for number in sorted(numbers)]
    return found


def _survey(source: Path, demonstrations: Sequence[Recorded], protocol: Suite) -> Table:
    """How many demonstrations there are of every task."""
    table = Table(title=f"{source}: {protocol.name}", title_justify="left")
    table.add_column("task")
    table.add_column("demonstrations", justify="right")
    counts = Counter(demonstration.task.name for demonstration in demonstrations)
    for task in protocol.tasks:
        table.add_row(task.name, str(counts.get(task.name, "NO FILE")))
    return table
