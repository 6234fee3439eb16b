"""Closed-loop evaluation while training goes on: every `train.evaluate_every` steps, a process of its own measures a
snapshot of the weights on the run's suite, one at a time.

In the run directory:

eval/during/step_000500/   an evaluation (eval/evaluate.py), its output in log.txt; its snapshot, a run directory, in
                           snapshot/ until it has ended
closed_loop.jsonl          {"step", "successes", "trials"} of each that has ended
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import torch
from wamkit_client.suites import suite as find_suite
from wamkit_client.types import BadInput

from wamkit.config import NORMALIZER_FILE, PROVENANCE_FILE, RUN_FILE, Run
from wamkit.eval.evaluate import RESULTS, read_results
from wamkit.io.files import replace_text
from wamkit.io.progress import say, warn
from wamkit.train import checkpoint
from wamkit.train.beside import AfterStep, Beside, nothing
from wamkit.train.checkpoint import State

FILE = "closed_loop.jsonl"
FOLDER = "eval/during"
SNAPSHOT, LOG = "snapshot", "log.txt"
NICE = 10  # training goes first where both want one core
END_SECONDS = 20.0  # for an evaluation to keep its episodes when training is stopped


def during(run: Run, run_dir: Path, device: torch.device) -> Beside:
    """The evaluations that `run.train` asks for. BadInput where its suite cannot be measured while it trains."""
    if not run.train.evaluate_every:
        return nothing
    if not run.suite or run.suite.startswith("robotwin"):
        raise BadInput(
            f"train.evaluate_every: {run.suite or 'the run has no suite, which'} cannot be measured while training; "
            "name a simulator's suite, or your own environment, with --suite my_env.py:make, or give "
            "--train.evaluate-every 0"
        )
    env = find_suite(run.suite).acted_by(run.actions.names).env
    env.check_shows(run.data.views, run.data.proprio_dim)
    env.prepare()

    @contextmanager
    def beside() -> Iterator[AfterStep]:
        evaluations = Evaluations(run, run_dir, device)
        try:
            evaluations.resume()
            yield evaluations.after
            evaluations.wait()
        finally:
            evaluations.end()

    return beside


class Evaluations:
    """One evaluation at a time, in a process of its own."""

    def __init__(self, run: Run, run_dir: Path, device: torch.device) -> None:
        self.run, self.run_dir, self.device = run, run_dir, device
        self._process: subprocess.Popen[bytes] | None = None
        self._step = 0  # whose snapshot it measures

    def after(self, done: int, state: State) -> None:
        """Take note of an evaluation that has ended, and begin the one that is due."""
        self._collect()
        folder = self._folder(done)
        if done % self.run.train.evaluate_every or (folder / RESULTS).exists():
            return
        if self._process:
            say(f"step {done} is not evaluated: the evaluation of step {self._step} is still under way")
            return
        self._snapshot(folder, state)
        self._start(done)

    def resume(self) -> None:
        """Go on with what an earlier run of this training left."""
        self._write_rows()
        left = sorted(self.run_dir.glob(f"{FOLDER}/step_*/{SNAPSHOT}"))
        for snapshot in left[:-1]:
            shutil.rmtree(snapshot)
        for snapshot in left[-1:]:
            self._start(int(snapshot.parent.name.removeprefix("step_")))

    def wait(self) -> None:
        """Until what is under way has ended."""
        if self._process:
            say(f"waiting for the closed-loop evaluation of step {self._step}")
            self._process.wait()
            self._collect()

    def end(self) -> None:
        """Stop what is under way; its finished episodes are kept."""
        if self._process:
            self._process.terminate()
            with suppress(subprocess.TimeoutExpired):
                self._process.wait(END_SECONDS)
            self._process.kill()
            self._process.wait()
            self._process = None

    def _snapshot(self, folder: Path, state: State) -> None:
        """A run directory of the weights as they are, whole or absent."""
        staged = folder / f"{SNAPSHOT}.tmp"
        shutil.rmtree(staged, ignore_errors=True)
        staged.mkdir(parents=True)
        for name in (RUN_FILE, NORMALIZER_FILE, PROVENANCE_FILE):
            shutil.copyfile(self.run_dir / name, staged / name)
        checkpoint.write_weights(staged, state)
        staged.rename(folder / SNAPSHOT)

    def _start(self, step: int) -> None:
        folder = self._folder(step)
        words = ("eval", folder / SNAPSHOT, "--out", folder, "--suite", self.run.suite)
        amount = ("--episodes", self.run.train.evaluate_episodes, "--device", self.device)
        alone = ("--eval.processes", 1, "--eval.record-episodes", 0)
        command = [sys.executable, "-m", "wamkit.cli", *map(str, (*words, *amount, *alone))]
        with (folder / LOG).open("ab") as log:
            self._process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=os.environ | {"OMP_NUM_THREADS": "1"},
                start_new_session=True,  # Ctrl-C goes to training, which ends it
            )
        ours = os.getpriority(os.PRIO_PROCESS, 0)
        os.setpriority(os.PRIO_PROCESS, self._process.pid, min(ours + NICE, 19))
        self._step = step

    def _collect(self) -> None:
        if not self._process or self._process.poll() is None:
            return
        status, self._process = self._process.returncode, None
        folder = self._folder(self._step)
        if status:
            last = (folder / LOG).read_text(errors="replace").strip().splitlines()[-1:]
            warn(f"the evaluation of step {self._step} failed: {''.join(last)} ({folder / LOG})")
        else:
            self._write_rows()
            total = read_results(folder / RESULTS)["total"]
            say(f"closed loop after step {self._step}: {total['successes']} of {total['trials']} solved")
        shutil.rmtree(folder / SNAPSHOT)

    def _write_rows(self) -> None:
        rows = []
        for path in sorted(self.run_dir.glob(f"{FOLDER}/step_*/{RESULTS}")):
            total = read_results(path)["total"]
            step = int(path.parent.name.removeprefix("step_"))
            rows.append({"step": step, "successes": total["successes"], "trials": total["trials"]})
        if rows:
            ordered = sorted(rows, key=lambda row: row["step"])
            replace_text(self.run_dir / FILE, "".join(json.dumps(row) + "\n" for row in ordered))

    def _folder(self, step: int) -> Path:
        return self.run_dir / FOLDER / f"step_{step:06d}"
