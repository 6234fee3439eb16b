"""Closed-loop success rates: a policy, a suite, and a results file that says everything the score depends on.

Of a policy it knows only `act`; environments run in processes (wamkit_client/fleet.py), here or elsewhere (places.py).
Episodes are the same for any number of processes: the initial state follows from task and seed, and the policy is asked
about one observation at a time (with EvalConfig.batched about several, which changes the last bits).

The folder of one evaluation:

results.partial.jsonl   the request, then one line per finished episode; a killed evaluation resumes from it
episodes/<task>_<seed>.npz   the first `record_episodes` of each task (arrays: wamkit_client/rollout.py, Recording)
results.json            written at the end, when the partial file is removed:

  format      "wamkit-results-1"
  suite       the protocol: name, tasks [{name, instruction, group, expert_steps}], env (every render setting),
              max_steps, episodes (per task), first_seed, group_steps -> wamkit_client.suites.suite_from_json
  config      EvalConfig: replan_steps, processes, record_episodes, executor, delay_ms, ...
  policy      the caller's `facts`: checkpoint hash, recipe, device, `run`: every setting that it acted with, `asked`:
              those that are not as trained (absent: none), `precision`: the weights' dtype while acting ...
  simulator   simulator, versions {library: version}, opengl, control_hz, actions, success (conventions in words)
  versions    {library: version};  revision: git commit[-dirty];  machine: {cpu, cores, memory_gb, system}
  started     UTC, ISO 8601;  seconds: wall time of the last run;  resumed: episodes taken over from earlier runs
  demonstrated  how many demonstrated initial states were excluded (0: nothing was known to exclude)
  total       {successes, trials, errors, rate, interval: [low, high] (Wilson, 95 %)}; errors are not trials;
              rate is null without trials
  tasks       {task: the same, and instruction, group, mean_steps (of successful episodes; null without one),
              expert_steps (median of the scripted expert's successful episodes; 0 = unknown)}
  groups      {group: the same as total}
  latency     {queries, first_ms, median_ms, p95_ms, mean_batch, median_ms_per_observation}: wall time of the policy
              call each query waited for; the run's first call warms up and counts in first_ms alone (null = none)
  smoothness  {jerk, idle_s, holds, staleness_ms: means over episodes; largest_staleness_ms: the largest}, null where
              no episode has one; what they are: wamkit_client/smoothness.py. Absent in older files
  warnings    {queries, alarms, episodes, alarmed}: how many were compared with what a watched policy expected, and had
              an alarm. Absent in older files
  episodes    [{task, seed, status: "success"|"failure"|"error", steps, vector (the initial state), query_call [..],
              query_ms [..], query_batch [..], error (text), smoothness (null of a crashed one; absent in older
              files), warnings [{step, score, still, threshold, alarm}] (of a watched policy, config.warn, at
              queries that it could compare: infer/warning.py; absent in older files), recording (path relative to this
              folder, "" = none)}]
              in the order of tasks and seeds; query_*: wamkit_client/fleet.py, EpisodeResult
"""

from __future__ import annotations

import dataclasses
import json
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

from wamkit_client.chunk import DECAY, ExecutorName
from wamkit_client.envs.base import InitialState, Task
from wamkit_client.envs.vector import describe
from wamkit_client.fleet import EpisodeJob, EpisodeResult
from wamkit_client.rollout import EpisodeConfig
from wamkit_client.suites import Suite, suite_from_json
from wamkit_client.types import BadInput, Policy

from wamkit.bounds import AT_LEAST_0, AT_LEAST_1, POSITIVE, check
from wamkit.eval.places import Place, beside
from wamkit.eval.scores import Row, summary
from wamkit.infer.presets import PresetName
from wamkit.io.differences import ABSENT, differing
from wamkit.io.files import only_writer, replace_file
from wamkit.io.interrupt import stop_request, stopped
from wamkit.io.progress import announce, bar, warn
from wamkit.io.provenance import machine, revision, versions
from wamkit.types import Preprocessing

FORMAT = "wamkit-results-1"
RESULTS, PARTIAL, RECORDINGS = "results.json", "results.partial.jsonl", "episodes"
# The precision that was asked for is not part of it either: policy.precision is the resulting one.
NOT_PART_OF_A_SCORE = ("config.processes", "config.answer_seconds", "config.precision", "config.batched")
KEPT = "finished episodes are kept"


@dataclass(frozen=True)
class EvalConfig:
    """replan_steps: actions executed of every chunk.  processes: environments at a time.

    record_episodes: episodes per task that are recorded with images, for the report.
    answer_seconds: an environment that takes longer for an answer is ended and counted as an error.
    precision: dtype of the weights while acting; "stored": as in the run directory, which is as published, unless
        `engine` has one of its own.
    engine: how the policy answers (infer/presets.py): "plain", as it was trained; "exact", the same chunks sooner;
        "fast", in bfloat16; "small" and "float8_weights", with the least memory; "int8" and "float8", multiplied in
        eight bits.
    preprocessing: of camera images; "training", or "published" as in the official evaluations.
    batched: ask the policy about all environments that need a chunk in one call, which is faster on a GPU. The last
        bits of a chunk, and now and then the end of an episode, then depend on the number of processes.
    executor: "sync", the robot waits while the policy thinks; "async", it goes on with the present chunk; "ensemble",
        it executes the mean of all chunks that cover a step; "guided", as async, and the policy continues the chunk.
    delay_ms: from a query to its answer, to measure what latency costs; 0: the world stands still.
    ensemble_decay: in an ensemble the i-th chunk after the oldest weighs exp(-ensemble_decay i).
    robot: the one of a mixture at several rates that the policy is asked to act as; each of its actions is divided
        among the environment's steps (infer/divided.py). "": as the environment names it. Goes with "sync" and no
        delay alone, and without `warn`.
    warn: let the policy's world model warn of what it did not expect (infer/warning.py), as `wamkit calibrate` has
        calibrated it. Chunks are the same; a query takes longer.
    """

    replan_steps: int = 8
    processes: int = 4
    record_episodes: int = 1
    answer_seconds: float = 120.0
    precision: Literal["stored", "bf16", "fp32"] = "stored"
    preprocessing: Preprocessing = "training"
    engine: PresetName = "exact"
    batched: bool = False
    executor: ExecutorName = "sync"
    delay_ms: float = 0.0
    ensemble_decay: float = DECAY
    robot: str = ""
    warn: bool = False

    def __post_init__(self) -> None:
        check("eval", self, EVAL_BOUNDS)
        if self.robot and (self.delay_ms or self.executor != "sync"):
            raise BadInput(
                f"eval.robot: goes with eval.executor sync and eval.delay_ms 0 alone, got {self.executor} and "
                f"{self.delay_ms:g}: what is executed during a delay is known in the environment's steps, not in the "
                "robot's; omit eval.robot, or the other two"
            )
        if self.robot and self.warn:
            raise BadInput(
                "eval.warn: a policy that acts as another robot cannot be watched; omit eval.robot"
            )
        self.episode(max_steps=1, record=False)

    def episode(self, max_steps: int, record: bool) -> EpisodeConfig:
        """What one episode is run with."""
        return EpisodeConfig(
            self.replan_steps, max_steps, record, self.executor, self.delay_ms, self.ensemble_decay
        )

    def needed(self, hz: float) -> int:
        """Actions that every chunk must have, at `hz` control steps per second. BadInput for a delay that the executor
        cannot bridge."""
        return self.episode(max_steps=1, record=False).new_executor(hz).needed


EVAL_BOUNDS = {
    "replan_steps": AT_LEAST_1,
    "processes": AT_LEAST_1,
    "record_episodes": AT_LEAST_0,
    "answer_seconds": POSITIVE,
    "delay_ms": AT_LEAST_0,
}


def evaluate(
    policy: Policy,
    suite: Suite,
    config: EvalConfig,
    folder: Path,
    facts: Mapping[str, Any],
    demonstrated: Sequence[InitialState] = (),
) -> dict[str, Any]:
    """`evaluate_at` processes of this machine."""
    return evaluate_at(beside(policy), suite, config, folder, facts, demonstrated)


def evaluate_at(
    place: Place,
    suite: Suite,
    config: EvalConfig,
    folder: Path,
    facts: Mapping[str, Any],
    demonstrated: Sequence[InitialState] = (),
) -> dict[str, Any]:
    """Run what is missing of the suite's episodes and return the results that also stand in `folder`/results.json.

    place: where environments and policy are.
    facts: what identifies the policy (checkpoint hash, recipe, device), as JSON values; kept as results["policy"].
    demonstrated: initial states the policy was trained on.
    Raises BadInput when an episode would begin from a demonstrated state, when the folder holds another evaluation or
    another process evaluates there, and for malformed chunks; OSError when a file cannot be written, KeyboardInterrupt
    after Ctrl-C or SIGTERM. Finished episodes are kept, and the same call resumes. A crashed environment raises
    nothing: its episode is an error in the results.
    """
    request = _request(suite, config, facts)
    finished = finished_results(folder, request)
    if finished:
        return finished
    _check_seeds(suite, demonstrated)
    with only_writer(folder, "evaluates"):
        started, clock = datetime.now(UTC), time.monotonic()
        rows = {(row["task"], row["seed"]): row for row in begin_partial(folder, request)}
        resumed = len(rows)
        _run(
            place, suite, config, folder, request["simulator"], rows, {state.key() for state in demonstrated}
        )
        ordered = [rows[task.name, seed] for task, seed in _episodes(suite)]
        facts = request | {
            "started": started.isoformat(timespec="seconds"),
            "seconds": round(time.monotonic() - clock, 1),
            "resumed": resumed,
            "demonstrated": len(demonstrated),
        }
        return write_results(folder, facts, suite, ordered)


def write_results(
    folder: Path, facts: Mapping[str, Any], suite: Suite, rows: Sequence[Row]
) -> dict[str, Any]:
    """Write results.json and remove the partial file. facts: the request, and facts of this run of it."""
    here = {"versions": versions(), "revision": revision(), "machine": machine()}
    results = {"format": FORMAT, **facts, **here, **summary(suite, rows), "episodes": list(rows)}
    replace_file(folder / RESULTS, json.dumps(results, indent=1).encode())
    (folder / PARTIAL).unlink()
    return results


def _episodes(suite: Suite) -> list[tuple[Task, int]]:
    seeds = range(suite.first_seed, suite.first_seed + suite.episodes)
    return [(task, seed) for task in suite.tasks for seed in seeds]


def _check_seeds(suite: Suite, demonstrated: Sequence[InitialState]) -> None:
    asked = {(task.name, seed) for task, seed in _episodes(suite)}
    overlap = sorted(asked & {(state.task, state.seed) for state in demonstrated})
    if overlap:
        task, seed = overlap[0]
        raise BadInput(
            f"{len(overlap)} of the evaluation's episodes were demonstrated in training (first: {task}, seed {seed}); "
            "a score must be measured on other initial states: choose another first_seed"
        )


def _run(
    place: Place,
    suite: Suite,
    config: EvalConfig,
    folder: Path,
    simulator: Mapping[str, Any],
    rows: dict[tuple[str, int], Row],
    demonstrated: set[str],
) -> None:
    jobs = [
        _job(suite, config, folder, task, seed)
        for task, seed in _episodes(suite)
        if (task.name, seed) not in rows
    ]
    (folder / RECORDINGS).mkdir(exist_ok=True)
    total = len(rows) + len(jobs)
    opened = suite.env, simulator, min(config.processes, len(jobs)), config.answer_seconds, config.batched
    with (
        stop_request(KEPT) as stop,
        (folder / PARTIAL).open("a") as partial,
        place(*opened) as run,
        bar("evaluate", total, unit="episodes", done=len(rows)) as advance,
    ):
        for result in run(jobs, demonstrated, stop):
            row = _row(result, folder)
            if row["status"] == "error" and all(other["status"] != "error" for other in rows.values()):
                first = row["error"].partition("\n")[0]
                warn(
                    f"{row['task']}, seed {row['seed']}: {first}; errors are not trials, {RESULTS} has them whole"
                )
            rows[result.task, result.seed] = row
            partial.write(json.dumps(row) + "\n")
            partial.flush()
            solved = sum(other["status"] == "success" for other in rows.values())
            advance(1, note=f"{solved} of {len(rows)} solved")
    if len(rows) < total:
        raise stopped(KEPT)


def _job(suite: Suite, config: EvalConfig, folder: Path, task: Task, seed: int) -> EpisodeJob:
    record = seed < suite.first_seed + config.record_episodes
    episode = config.episode(suite.steps(task), record)
    return EpisodeJob(task, seed, episode, str(folder / RECORDINGS / f"{task.name}_{seed}.npz"))


def _row(result: EpisodeResult, folder: Path) -> Row:
    recording = f"{RECORDINGS}/{result.task}_{result.seed}.npz"
    kept = recording if (folder / recording).exists() else ""
    return {**json.loads(json.dumps(dataclasses.asdict(result))), "recording": kept}


def _request(suite: Suite, config: EvalConfig, facts: Mapping[str, Any]) -> dict[str, Any]:
    """What makes two evaluations the same, so that episodes of one may complete the other."""
    if suite.episodes < 1 or config.processes < 1:
        raise BadInput(f"episodes ({suite.episodes}) and processes ({config.processes}) must be at least 1")
    simulator, warnings = describe(suite.env)
    announce(simulator, warnings)
    request = {
        "suite": suite.to_json(),
        "config": dataclasses.asdict(config),
        "policy": dict(facts),
        "simulator": simulator,
    }
    plain: dict[str, Any] = json.loads(json.dumps(request))
    return plain


def check_same(path: Path, there: Mapping[str, Any], asked: Mapping[str, Any]) -> None:
    """BadInput when the evaluation in `path` is not the requested one."""
    for name, found, value in _changes(there, asked):
        if name not in NOT_PART_OF_A_SCORE:
            raise BadInput(
                f"{path} belongs to an evaluation with {name} = {found}, asked for {value}; "
                f"choose another name for this one or remove {path.parent}"
            )


def _changes(before: Mapping[str, Any], after: Mapping[str, Any]) -> Iterator[tuple[str, str, str]]:
    """Name and both values of everything that differs in the sections of `after`.

    Older versions wrote less (see `older`); settings of `policy.run` that were not as trained they name in
    `policy.asked`.
    """
    said = ({section: evaluation[section] for section in after} for evaluation in (before, after))
    hz = before["simulator"].get("control_hz", 0.0)  # what is asked need not say it
    said = (tree | {"config": current_names(tree["config"], hz)} for tree in said)
    meant = (tree | {name: usual | tree[name] for name, usual in older().items()} for tree in said)
    for name, old, new in differing(*meant):
        if old != ABSENT or not name.startswith("policy.run."):
            yield name, _short(old), _short(new)


def _config(results: Mapping[str, Any]) -> dict[str, Any]:
    return current_names(results["config"], results["simulator"].get("control_hz", 0.0))


def current_names(config: Mapping[str, Any], hz: float) -> dict[str, Any]:
    """An EvalConfig as older versions wrote it: their `preset` "fast" is the `engine` "exact", and their `delay_steps`
    are control steps, of which there are `hz` in a second (0: not known, and then they are not understood)."""
    found = dict(config)
    if hz or not found.get("delay_steps"):
        steps = found.pop("delay_steps", 0)
        found.update({"delay_ms": 1000 * steps / hz} if steps else {})
    if "preset" in found:
        preset = found.pop("preset")
        found["engine"] = {"fast": "exact"}.get(preset, preset)
    return found


def older() -> dict[str, dict[str, Any]]:
    """What results of older versions mean where they say nothing: defaults, weights in float32, batched queries."""
    return {
        "config": dataclasses.asdict(EvalConfig(precision="fp32", batched=True)),
        "policy": {"precision": "float32"},
    }


def _short(value: Any) -> str:
    text = json.dumps(value)
    return text if len(text) <= 100 else text[:97] + "..."


def finished_results(folder: Path, request: Mapping[str, Any]) -> dict[str, Any]:
    """The results that exist already, or {}. BadInput when they are of another request."""
    path = folder / RESULTS
    if not path.exists():
        return {}
    results = read_results(path)
    check_same(path, results, request)
    return {} if any(map(_not_saved, results["episodes"])) else results


def begin_partial(folder: Path, request: Mapping[str, Any]) -> list[Row]:
    """Rows that earlier runs finished. From now on the partial file holds the request and these rows.

    An incomplete last line is dropped, and so are episodes that older versions called errors because the disk was full.
    """
    path = folder / PARTIAL
    text = path.read_text() if path.exists() else ""
    head, *rows = map(json.loads, text[: text.rfind("\n") + 1].splitlines() or [json.dumps(request)])
    check_same(path, head, request)
    if (
        not rows and (folder / RESULTS).exists()
    ):  # finished by an older version, with rows that are dropped here
        rows = read_results(folder / RESULTS)["episodes"]
    rows = [row for row in rows if not _not_saved(row)]
    write_partial(folder, head, rows)
    return rows


def write_partial(folder: Path, request: Mapping[str, Any], rows: Sequence[Row]) -> None:
    """Begin the partial file: the request, and rows of earlier runs."""
    lines = (json.dumps(line) + "\n" for line in (request, *rows))
    replace_file(folder / PARTIAL, "".join(lines).encode())


def _not_saved(row: Row) -> bool:
    """Whether an older version took a disk error for an error of the environment."""
    full, refused = "No space left on device" in row["error"], "[Errno " in row["error"]
    return full or (refused and "episode.save(" in row["error"])


def read_results(path: Path) -> dict[str, Any]:
    """A results.json; BadInput when it is missing, damaged or of another format."""
    try:
        results: dict[str, Any] = json.loads(path.read_text())
    except FileNotFoundError:
        raise BadInput(f"{path} is missing; expected the results.json of an evaluation") from None
    except ValueError as error:
        raise BadInput(f"{path} is damaged ({error}); evaluate again") from None
    if type(results) is not dict or results.get("format") != FORMAT:
        raise BadInput(f"{path} is not a results file of this version of wamkit: expected format {FORMAT!r}")
    return results


def like(path: Path) -> tuple[Suite, EvalConfig]:
    """Protocol and config of a results.json, to repeat it exactly (same tasks, seeds, limits, images)."""
    results = read_results(path)
    return suite_from_json(results["suite"]), EvalConfig(**older()["config"] | _config(results))


def differences(before: Mapping[str, Any], after: Mapping[str, Any]) -> list[str]:
    """What a repetition changed, one line each: conditions first, then episodes that began or ended differently."""
    sections = ("suite", "config", "policy", "simulator", "versions", "machine", "revision")
    conditions = {section: after[section] for section in sections}
    lines = [f"{name}: {old} -> {new}" for name, old, new in _changes(before, conditions)]
    rows = {(row["task"], row["seed"]): row for row in after["episodes"]}
    for old in before["episodes"]:
        new = rows.get((old["task"], old["seed"]))
        name = f"{old['task']} seed {old['seed']}"
        if new is None:
            lines.append(f"{name}: not repeated")
        elif new["vector"] != old["vector"]:
            lines.append(f"{name}: began from another state")
        elif (new["status"], new["steps"]) != (old["status"], old["steps"]):
            lines.append(
                f"{name}: {old['status']} after {old['steps']} -> {new['status']} after {new['steps']} steps"
            )
    return lines
