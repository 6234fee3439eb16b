"""`wamkit calibrate`, and what comes of it: evaluations and servers whose policy warns."""

from __future__ import annotations

import json
import shutil
import urllib.request
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from wamkit_client.client import RemotePolicy

from tests.infer.test_properties import observed
from tests.stages.test_served import WALKER
from tests.tiny_dataset import RUN, write
from wamkit.cli import main
from wamkit.config import load_run
from wamkit.eval.evaluate import EvalConfig
from wamkit.serve.dialects.base import Service
from wamkit.serve.dialects.openpi import metadata
from wamkit.serve.dialects.spoken import dialects, greeting
from wamkit.serve.metrics import Metrics
from wamkit.serve.scheduler import Scheduler
from wamkit.serve.served import Policies
from wamkit.serve.server import Server, json_page
from wamkit.stages.run import NO_FILE, train
from wamkit.stages.serving import load_served
from wamkit.stages.warning import WARNING, read_calibration

RATE = ("--false-alarms", "0.25")
WATCHED = ("--eval.warn", "True")


@pytest.fixture(scope="module")
def datasets(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """What is trained on, and other episodes."""
    root = tmp_path_factory.mktemp("datasets")
    return write(root / "trained", [22, 22, 22, 22]), write(root / "unseen", [22] * 7, seed=1)


@pytest.fixture(scope="module")
def run_dir(datasets: tuple[Path, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A calibrated run."""
    root = tmp_path_factory.mktemp("warning")
    run = replace(RUN, suite="", eval=EvalConfig(replan_steps=3, processes=1))
    train(run, [datasets[0]], NO_FILE, root / "run", torch.device("cpu"))
    assert main(["calibrate", str(root / "run"), "--dataset", str(datasets[1]), *RATE]) == 0
    return root / "run"


@pytest.fixture(scope="module")
def env(tmp_path_factory: pytest.TempPathFactory) -> str:
    file = tmp_path_factory.mktemp("env") / "walker.py"
    file.write_text(WALKER)
    return f"{file}:Walker"


def refused(capsys: pytest.CaptureFixture[str], *words: object) -> str:
    assert main([*map(str, words)]) == 2
    return " ".join(capsys.readouterr().err.split())


def without_calibration(run_dir: Path, to: Path) -> Path:
    shutil.copytree(run_dir, to)
    (to / WARNING).unlink()
    return to


def test_half_of_the_episodes_say_what_is_usual_half_what_is_too_much(run_dir: Path) -> None:
    found = read_calibration(run_dir)
    usual, origin = found.robots["robot"], found.origins["robot"]
    assert [len(own) for own in usual.errors] == [8] * 4, "a pooled latent for each of four frames"
    assert origin.usual == ["0", "2", "4", "6"] and list(origin.highest) == ["1", "3", "5"]
    assert usual.threshold == max(origin.highest.values()) > 0
    assert (found.replan_steps, found.false_alarms) == (3, 0.25)
    assert found.command.startswith(f"wamkit calibrate {run_dir} --dataset ")


def test_results_have_what_it_said(run_dir: Path, env: str, tmp_path: Path) -> None:
    words = ("eval", run_dir, "--env", env, "--episodes", 2)
    assert main([*map(str, words), *WATCHED, "--out", str(tmp_path / "watched")]) == 0
    assert main([*map(str, words), "--out", str(tmp_path / "plain")]) == 0
    watched, plain = (
        json.loads((tmp_path / name / "results.json").read_text()) for name in ("watched", "plain")
    )
    threshold = read_calibration(run_dir).robots["robot"].threshold
    for row, usual in zip(watched["episodes"], plain["episodes"], strict=True):
        assert (row["steps"], row["status"]) == (usual["steps"], usual["status"]), "chunks are the same"
        assert usual["warnings"] == []
        assert [one["step"] for one in row["warnings"]] == list(range(3, row["steps"], 3))
        for one in row["warnings"]:
            assert one["threshold"] == threshold and one["alarm"] == (one["score"] > threshold)
    rows = [one for row in watched["episodes"] for one in row["warnings"]]
    assert watched["warnings"]["queries"] == len(rows) > 0
    assert watched["warnings"]["alarms"] == sum(one["alarm"] for one in rows)
    assert plain["warnings"] == {"queries": 0, "alarms": 0, "episodes": 0, "alarmed": 0}
    assert watched["policy"]["warning"] == {
        "false_alarms": 0.25,
        "ahead": 0.0,
        "threshold": {"robot": threshold},
    }


def test_a_server_warns_and_counts(run_dir: Path) -> None:
    run = load_run(run_dir)
    served = load_served("tiny", run_dir, replace(run, eval=replace(run.eval, warn=True)))
    metrics = Metrics()
    service = Service(Policies(served), Scheduler(watch=metrics), watch=metrics)
    pages = {"/metrics": metrics.page, "/": json_page(lambda: metadata(service.policies))}
    with (
        Server(service, dialects(), greeting=greeting(service.policies), pages=pages) as server,
        RemotePolicy(server.url) as remote,
    ):
        seen = replace(observed(0), episode="one")
        said = [remote.act([replace(seen, step=step)])[0].info for step in (0, 3, 6)]
        address = server.url.replace("ws://", "http://").rstrip("/")
        page = urllib.request.urlopen(f"{address}/metrics").read().decode()
    assert "warning" not in said[0]
    local = load_served("tiny", run_dir, replace(run, eval=replace(run.eval, warn=True))).policy
    expected = [local.act([replace(seen, step=step)])[0].info for step in (0, 3, 6)]
    assert [one["warning"] for one in said[1:]] == [one["warning"] for one in expected[1:]]
    alarms = sum(one["warning"]["alarm"] for one in said[1:])
    assert 'wamkit_warning_score_count{policy="tiny"} 2.0' in page
    assert f'wamkit_warning_alarms_total{{policy="tiny"}} {float(alarms)}' in page


def test_what_cannot_be_calibrated(
    run_dir: Path, datasets: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    trained, unseen = datasets
    fresh = without_calibration(run_dir, tmp_path / "run")
    error = refused(capsys, "calibrate", fresh, "--dataset", trained, *RATE)
    assert "no episode is held out" in error
    error = refused(capsys, "calibrate", fresh, "--dataset", unseen)
    assert "a false-alarm rate of 0.05 needs 19 episodes for the threshold, got 3" in error
    error = refused(capsys, "calibrate", fresh, "--dataset", unseen, *RATE, "--ahead", 5)
    assert "ahead 5 s: expected from 0 to" in error
    error = refused(capsys, "calibrate", fresh, "--dataset", unseen, "--false-alarms", 5)
    assert "--false-alarms 5: expected a share" in error
    short = write(tmp_path / "short", [12] * 8)
    error = refused(capsys, "calibrate", fresh, "--dataset", short, *RATE)
    assert "no episode is long enough to see what was expected of frame 3" in error
    error = refused(capsys, "calibrate", fresh, "--dataset", unseen, "--policy.video-weight", 2)
    assert "what was trained cannot be changed now" in error
    assert not (fresh / WARNING).exists()


def test_what_cannot_be_watched(
    run_dir: Path, env: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    fresh = without_calibration(run_dir, tmp_path / "run")
    words: tuple[Any, ...] = ("--env", env, *WATCHED, "--out", tmp_path / "out")
    assert f"wamkit calibrate {fresh} --dataset" in refused(capsys, "eval", fresh, *words)
    shutil.copy(run_dir / WARNING, fresh)
    found = json.loads((fresh / WARNING).read_text())
    (fresh / WARNING).write_text(json.dumps(found | {"weights": "others"}))
    assert "it was made for other weights" in refused(capsys, "eval", fresh, *words)
    error = refused(capsys, "eval", fresh, *words, "--eval.robot", "robot")
    assert "eval.warn: a policy that acts as another robot cannot be watched" in error


def test_the_page_shows_what_it_warned_of(run_dir: Path, env: str, tmp_path: Path) -> None:
    out, page = tmp_path / "results", tmp_path / "page.html"
    assert main(["eval", str(run_dir), "--env", env, "--episodes", "2", *WATCHED, "--out", str(out)]) == 0
    words = ["report", str(run_dir), "--results", str(out), "--out", str(page), "--sections", "warnings"]
    assert main(words) == 0
    text = page.read_text()
    assert "Solved episodes with an alarm" in text and "at most 25 % raise one" in text
