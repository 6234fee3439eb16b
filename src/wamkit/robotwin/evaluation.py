"""Evaluating a run with RoboTwin's evaluator: one process per task, against the run served here.

The folder of one evaluation is that of wamkit/eval/evaluate.py, with the evaluators' output in logs/<task>.log and no
recordings (RoboTwin keeps its own videos). results.partial.jsonl holds the rows of whole tasks, because the evaluator
cannot begin in the middle of one. results.json has besides: simulator.step_limits {task: control steps} and
`instruction` per episode; `vector` is empty; `steps` count whole chunks where the evaluator does not report them.
Outcome and seed of an episode are what the evaluator printed, the rest is of the matching attempt (matching.py).
"""

from __future__ import annotations

import dataclasses
import json
import secrets
import time
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from tempfile import TemporaryDirectory
from threading import Event
from typing import Any

from wamkit_client.envs.robotwin.conventions import CAMERAS, RoboTwinConfig, layout_of
from wamkit_client.suites import Suite
from wamkit_client.types import BadInput

from wamkit.config import Run, check_together, load_normalizer
from wamkit.eval.evaluate import PARTIAL, begin_partial, finished_results, write_partial, write_results
from wamkit.eval.scores import Row
from wamkit.io.files import AGAIN, only_writer
from wamkit.io.interrupt import stop_request, stopped
from wamkit.io.progress import Advance, bar
from wamkit.robotwin.checkout import Checkout, find_checkout
from wamkit.robotwin.evaluator import Evaluator, Printed
from wamkit.robotwin.matching import match
from wamkit.serve.dialects.base import Service
from wamkit.serve.dialects.xpolicylab import Attempt, XPolicyLab
from wamkit.serve.doors import Doors
from wamkit.serve.scheduler import Scheduler
from wamkit.serve.served import Policies, Served
from wamkit.serve.server import Server
from wamkit.stages.evaluation import policy_facts
from wamkit.stages.run import best_device
from wamkit.stages.serving import load_served

SILENT_SECONDS = 1800.0  # seeds that the expert cannot solve are skipped without a word
POLL_SECONDS = 0.2
LOGS = "logs"
KEPT = "finished tasks are kept"


def _server(served: Served, dialect: XPolicyLab) -> Server:
    """Every query is answered by a call of its own, so that results do not depend on what else is asked."""
    service = Service(Policies(served), Scheduler(window=0, most=1))
    return Server(service, [dialect], Doors({"robotwin": secrets.token_hex(16)}))


def _served(run_dir: Path, asked: Run) -> Served:
    layout_of(asked.actions.names)
    check_together(asked, asked)
    unknown = [view for view in asked.data.views if view not in CAMERAS]
    if unknown:
        raise BadInput(
            f"{run_dir}: the policy needs camera {unknown[0]!r}, RoboTwin has {', '.join(CAMERAS)}; "
            "train it on a dataset with these names"
        )
    if asked.eval.executor != "sync" or asked.eval.delay_ms or asked.eval.robot:
        raise BadInput(
            "RoboTwin's evaluator executes what it is sent, at its own rate, before it asks again: eval.executor must "
            "be sync and eval.delay_ms 0, and eval.robot omitted"
        )
    _embodiment(run_dir)
    return load_served("robotwin", run_dir, asked)


def _embodiment(run_dir: Path) -> str:
    """Key of the policy's normaliser; RoboTwin does not name its robot. The policy's only robot, or the usual one."""
    known, usual = list(load_normalizer(run_dir).stats), RoboTwinConfig.embodiment
    if len(known) == 1:
        return known[0]
    if usual in known:
        return usual
    raise BadInput(f"the policy knows several robots ({', '.join(known)}), none of them RoboTwin's {usual!r}")


def evaluate(run_dir: Path, asked: Run, suite: Suite, out: Path, root: Path) -> dict[str, Any]:
    """Run what is missing of the suite's tasks and return the results; see `wamkit.robotwin.evaluate`."""
    env = RoboTwinConfig(**vars(suite.env) | {"embodiment": _embodiment(run_dir)})
    suite = replace(suite, env=env)
    checkout = find_checkout(root, env, suite.episodes)
    request = {
        "suite": suite.to_json(),
        "config": dataclasses.asdict(asked.eval),
        "policy": policy_facts(run_dir, asked, best_device()),
        "simulator": checkout.facts(layout_of(asked.actions.names).control),
    }
    request = json.loads(json.dumps(request))  # as it will be read from the file
    finished = finished_results(out, request)
    if finished:
        return finished
    served, dialect = _served(run_dir, asked), XPolicyLab()
    with only_writer(out, "evaluates"):
        started, clock = datetime.now(UTC), time.monotonic()
        rows = _begin(out, request, suite)
        resumed = sum(map(len, rows.values()))
        with _server(served, dialect) as server, TemporaryDirectory(prefix="wamkit-robotwin-") as scratch:
            evaluators = _Evaluators(
                checkout, suite, env, asked, dialect, server.url, out / LOGS, Path(scratch)
            )
            _run(evaluators, asked.eval.processes, rows, out / PARTIAL)
        known = request | {
            "started": started.isoformat(timespec="seconds"),
            "seconds": round(time.monotonic() - clock, 1),
            "resumed": resumed,
            "demonstrated": 0,
        }
        return write_results(out, known, suite, [row for task in suite.tasks for row in rows[task.name]])


def _begin(out: Path, request: Mapping[str, Any], suite: Suite) -> dict[str, list[Row]]:
    """Rows of the tasks that earlier runs finished; the others begin again."""
    (out / LOGS).mkdir(exist_ok=True)
    rows: dict[str, list[Row]] = {}
    for row in begin_partial(out, request):
        rows.setdefault(row["task"], []).append(row)
    whole = {task: own for task, own in rows.items() if len(own) == suite.episodes}
    write_partial(out, request, [row for own in whole.values() for row in own])
    return whole


def _run(evaluators: _Evaluators, processes: int, rows: dict[str, list[Row]], partial: Path) -> None:
    """Add what is missing to `rows`, several evaluators at a time; BadInput at the end where some of them died."""
    suite = evaluators.suite
    missing = [task.name for task in suite.tasks if task.name not in rows]
    died: list[str] = []
    total = len(suite.tasks) * suite.episodes
    with (
        stop_request(KEPT) as stop,
        bar("evaluate", total, unit="episodes", done=total - len(missing) * suite.episodes) as advance,
        ThreadPoolExecutor(processes) as pool,
    ):
        try:
            tasks = {pool.submit(evaluators.measure, task, stop, advance): task for task in missing}
            for done in as_completed(tasks):
                try:
                    rows[tasks[done]] = own = done.result()
                except BadInput as error:
                    died.append(str(error))
                    continue
                with partial.open("a") as file:
                    file.write("".join(json.dumps(row) + "\n" for row in own))
        finally:
            stop.set()  # whatever was raised here: no evaluator outlives it
            pool.shutdown(cancel_futures=True)
    if died:
        raise BadInput(
            f"{len(died)} of RoboTwin's evaluators did not finish; the finished tasks are kept, {AGAIN}. "
            f"First: {died[0]}"
        )


@dataclass(frozen=True)
class _Evaluators:
    """What the evaluators of one evaluation share. url: of the server.  scratch: a folder of ours."""

    checkout: Checkout
    suite: Suite
    env: RoboTwinConfig
    asked: Run
    dialect: XPolicyLab
    url: str
    logs: Path
    scratch: Path

    def measure(self, task: str, stop: Event, advance: Advance) -> list[Row]:
        """The rows of one task. BadInput where its evaluator did not finish, KeyboardInterrupt where `stop` was set."""
        wanted, control = self.suite.episodes, layout_of(self.asked.actions.names).control
        command = self.checkout.command(task, self.env, wanted, control, self.url, self.scratch)
        environment = self.checkout.environment(self.scratch, self.url)
        log = self.logs / f"{task}.log"
        evaluator = Evaluator(command, self.checkout.root, environment, log)
        try:
            while not self._over(task, evaluator, advance):
                if stop.wait(POLL_SECONDS):
                    raise stopped(KEPT)
        finally:
            ended = evaluator.end()
        transcript = evaluator.transcript
        episodes = transcript.episodes[:wanted]
        if len(episodes) < wanted:
            raise BadInput(
                f"{task} {ended} after {len(episodes)} of {wanted} episodes. {log}:\n{transcript.tail()}"
            )
        attempts = match(episodes, self.dialect.attempts.get(task, ()))
        return [self._row(task, *both) for both in zip(episodes, attempts, strict=True)]

    def _over(self, task: str, evaluator: Evaluator, advance: Advance) -> bool:
        """Read what it printed: True where nothing more can be expected of it."""
        ended = not evaluator.running  # before its last words are read
        transcript = evaluator.transcript
        if fresh := transcript.update():
            advance(fresh, note=f"{task}: {transcript.solved} of {len(transcript.episodes)} solved")
        enough = self.checkout.version.episodes > self.suite.episodes <= len(transcript.episodes)
        return ended or enough or transcript.silent_seconds() > SILENT_SECONDS

    def _row(self, task: str, episode: Printed, attempt: Attempt) -> Row:
        limit = self.checkout.step_limits.get(task, self.suite.max_steps)
        error = attempt.error or episode.error
        return {
            "task": task,
            "seed": episode.seed,
            "status": "error" if error else episode.outcome,
            "steps": attempt.steps or min(limit, self.asked.eval.replan_steps * len(attempt.calls)),
            "vector": [],
            "query_call": attempt.calls,
            "query_ms": attempt.milliseconds,
            "query_batch": [1] * len(attempt.calls),
            "error": error,
            "instruction": attempt.instruction,
            "recording": "",
        }
