"""Closed-loop evaluation while training goes on: in a process of its own, without any effect on training."""

from __future__ import annotations

import json
import os
import shutil
from dataclasses import replace
from multiprocessing import resource_tracker
from pathlib import Path

import pytest
import torch
from wamkit_client.types import BadInput

from tests.stages.test_own_env import OWN, OWN_ENV
from tests.tiny_dataset import write
from wamkit.config import Run, build_policy, load_normalizer
from wamkit.stages.during import FILE, FOLDER, LOG, NICE, SNAPSHOT, during
from wamkit.stages.run import NO_FILE, train
from wamkit.train.checkpoint import State
from wamkit.train.loop import initial_state

CPU = torch.device("cpu")
STEP_1 = f"{FOLDER}/step_000001"
# The first evaluation lasts until training has done its second step.
BETWEEN = """
import time
from pathlib import Path

rows = Path({rows!r})
while rows.exists() and rows.read_text().count("\\n") == 1:
    time.sleep(0.01)
"""


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "my_env.py"
    path.write_text(OWN_ENV)
    return path


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write(tmp_path_factory.mktemp("during") / "dataset", [9, 9])


def evaluated(file: Path, every: int = 1) -> Run:
    """A run that is measured in the environment of a file."""
    often = replace(OWN.train, log_every=1, evaluate_every=every, evaluate_episodes=2)
    return replace(OWN, suite=f"{file}:make", train=often)


def state_of(run: Run, run_dir: Path) -> State:
    return initial_state(build_policy(run, load_normalizer(run_dir)), run.train)


def losses(run_dir: Path) -> list[tuple[float, float]]:
    rows = map(json.loads, (run_dir / "metrics.jsonl").read_text().splitlines())
    return [(row["loss"], row["grad_norm"]) for row in rows]


def test_training_goes_on_while_a_snapshot_is_measured(
    dataset: Path, file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run, run_dir = evaluated(file), tmp_path / "run"
    file.write_text(OWN_ENV + BETWEEN.format(rows=str(run_dir / "metrics.jsonl")))
    train(run, [dataset], NO_FILE, run_dir, CPU)
    told = capsys.readouterr().out
    assert "step 2 is not evaluated: the evaluation of step 1 is still under way" in told
    assert "waiting for the closed-loop evaluation of step 1" in told
    assert "closed loop after step 1: 1 of 2 solved" in told
    [row] = map(json.loads, (run_dir / FILE).read_text().splitlines())
    assert row == {"step": 1, "successes": 1, "trials": 2}
    results = json.loads((run_dir / STEP_1 / "results.json").read_text())
    assert results["suite"]["name"] == "my_env" and results["config"]["record_episodes"] == 0
    assert not (run_dir / STEP_1 / SNAPSHOT).exists() and (run_dir / STEP_1 / LOG).read_text()

    train(
        replace(run, suite="", train=replace(run.train, evaluate_every=0)),
        [dataset],
        NO_FILE,
        tmp_path / "plain",
        CPU,
    )
    assert losses(run_dir) == losses(tmp_path / "plain")
    train(run, [dataset], NO_FILE, run_dir, CPU)
    assert "waiting" not in capsys.readouterr().out, "what is finished stays finished"


@pytest.fixture
def trained(dataset: Path, file: Path, tmp_path: Path) -> tuple[Run, Path]:
    """A run whose training has evaluated nothing yet."""
    run = evaluated(file, every=5)
    train(run, [dataset], NO_FILE, tmp_path / "run", CPU)
    return run, tmp_path / "run"


def test_an_evaluation_that_was_left_is_finished(trained: tuple[Run, Path]) -> None:
    run, run_dir = trained
    assert not (run_dir / FILE).exists()
    for step in ("step_000005", "step_000010"):
        shutil.copytree(run_dir, run_dir / FOLDER / step / SNAPSHOT, ignore=shutil.ignore_patterns("eval"))
    with during(run, run_dir, CPU)():
        pass
    [row] = map(json.loads, (run_dir / FILE).read_text().splitlines())
    assert row["step"] == 10, "the newest of them"
    assert not list(run_dir.glob(f"{FOLDER}/*/{SNAPSHOT}"))


def test_it_ends_with_training(trained: tuple[Run, Path], capsys: pytest.CaptureFixture[str]) -> None:
    run, run_dir = trained
    started, before = set[int](), children()
    with pytest.raises(KeyboardInterrupt), during(run, run_dir, CPU)() as after:
        after(4, state_of(run, run_dir))
        assert not (run_dir / FOLDER).exists(), "none is due"
        after(5, state_of(run, run_dir))
        [own] = started = children() - before - tracker()
        ours = os.getpriority(os.PRIO_PROCESS, 0)
        assert os.getpriority(os.PRIO_PROCESS, own) == min(ours + NICE, 19), "training goes first"
        raise KeyboardInterrupt
    assert not started & children()
    assert (run_dir / FOLDER / "step_000005" / SNAPSHOT).is_dir(), "to be measured when training goes on"


def tracker() -> set[int]:
    """A process that multiprocessing keeps until the end."""
    return {resource_tracker._resource_tracker._pid}


def children() -> set[int]:
    """Processes that this one has started and that have not ended."""
    return set(map(int, Path(f"/proc/self/task/{os.getpid()}/children").read_text().split()))


def test_one_that_fails_is_told_and_training_goes_on(
    trained: tuple[Run, Path], file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run, run_dir = trained
    with during(run, run_dir, CPU)() as after:
        file.write_text(OWN_ENV.replace("10.0", "20.00"))
        after(5, state_of(run, run_dir))
    told = " ".join(capsys.readouterr().out.split())
    assert "the evaluation of step 5 failed" in told and "executes 20 actions per second" in told
    assert not (run_dir / FILE).exists()


def test_what_cannot_be_measured_is_refused_before_training(file: Path, tmp_path: Path) -> None:
    run = evaluated(file)
    for suite, wrong in (
        ("", r"train\.evaluate_every: the run has no suite, which cannot be measured while training; name a"),
        ("robotwin_clean", r"train\.evaluate_every: robotwin_clean cannot be measured while training"),
        ("nowhere.py:make", r"nowhere\.py: missing"),
        ("unknown", r"unknown suite 'unknown'"),
    ):
        with pytest.raises(BadInput, match=wrong):
            during(replace(run, suite=suite), tmp_path, CPU)
    file.write_text(OWN_ENV.replace('("front", "wrist")', '("front",)'))
    with pytest.raises(BadInput, match=r"observe the missing camera \(wrist\)"):
        during(run, tmp_path, CPU)
