"""`wamkit analyse warning` on a tiny run in the real Meta-World: an evaluation for each perturbation, and a page."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from wamkit_client.stats import wilson
from wamkit_client.suites import Suite
from wamkit_client.types import BadInput

from tests.tiny_dataset import RUN, write
from wamkit.cli import main
from wamkit.eval.evaluate import EvalConfig
from wamkit.io.records import read_record
from wamkit.report.alarms import Alarms
from wamkit.stages.alarms import _highest, _score
from wamkit.stages.run import NO_FILE, train

TASK = "metaworld:drawer-open-v3"


@pytest.fixture(scope="module")
def run_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A calibrated run of a robot like Meta-World's; its policy has learned nothing."""
    root = tmp_path_factory.mktemp("alarms")
    spec = replace(
        RUN.data,
        views=("corner2", "gripperPOV"),
        hz=20.0,
        frame_times=(0.0, 0.1, 0.2, 0.3, 0.4),
        chunk_seconds=0.3,
        proprio_dim=4,
        action_dim=4,
    )
    space = replace(RUN.actions, names=("x", "y", "z", "gripper"), kinds=("delta",) * 3 + ("gripper",))
    policy = replace(RUN.policy, step_weights=replace(RUN.policy.step_weights, prefix=6))
    evaluation = EvalConfig(replan_steps=3, processes=1, record_episodes=0)
    run = replace(RUN, suite="metaworld3_20hz", policy=policy, data=spec, actions=space, eval=evaluation)
    robot = "metaworld_sawyer"
    trained = write(root / "trained", [12, 12], spec=spec, robot=robot)
    unseen = write(root / "unseen", [14] * 7, spec=spec, robot=robot, seed=1)
    train(run, [trained], NO_FILE, root / "run", torch.device("cpu"))
    words = ["calibrate", str(root / "run"), "--dataset", str(unseen), "--false-alarms", "0.25"]
    assert main(words) == 0
    return root / "run"


def test_every_perturbation_is_measured_beside_other_scores(
    run_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from wamkit_client import suites

    short = replace(suites.SUITES["metaworld3_20hz"], max_steps=24).only(("drawer-open-v3",))
    monkeypatch.setitem(suites.SUITES, "short", replace(short, name="short"))
    words = ["analyse", "warning", str(run_dir), "--suite", "short", "--episodes", "2"]
    words += ["--out", str(tmp_path), "--perturbations", "lights_off"]
    assert main(words) == 0
    record = json.loads((tmp_path / "alarms.json").read_text())
    (kind,) = record["kinds"]
    assert (kind["suite"], kind["reached"], record["episodes"]) == ("short+lights_off", 2, 2)
    assert kind["solved"]["trials"] == record["solved"]["trials"] == 2
    assert list(kind["scores"]) == ["score", "still", "frame difference", "proprio range", "chunk difference"]
    assert list(record["scores"]) == list(kind["scores"]), "Light-WAM draws no noise"
    assert kind["scores"]["frame difference"]["auroc"] == 1, "it gets dark at once"
    rows = json.loads((tmp_path / "short+lights_off" / "results.json").read_text())["episodes"]
    plain = json.loads((tmp_path / "short" / "results.json").read_text())["episodes"]
    for dark, light in zip(rows, plain, strict=True):
        steps = [said["step"] for said in dark["warnings"]]
        assert steps == list(range(3, 24, 3))
        first = [
            abs(a["score"] - b["score"]) > 1e-6
            for a, b in zip(dark["warnings"], light["warnings"], strict=True)
        ]
        assert first.index(True) in range(1, 4), "both are alike until then"
    page = (tmp_path / "alarms.html").read_text()
    assert "lights_off" in page and "frame difference" in page and "2 of 2" in page
    before = (tmp_path / "short" / "results.json").read_bytes()
    assert main(words) == 0 and (tmp_path / "short" / "results.json").read_bytes() == before, "it goes on"
    capsys.readouterr()
    assert main([*words[:-1], "earthquake"]) == 2
    assert "'earthquake' is unknown" in capsys.readouterr().err


def test_what_crashed_is_named_and_was_not_measured(
    run_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from wamkit.stages import alarms

    def evaluate(policy: Any, suite: Suite, *rest: Any) -> dict[str, Any]:
        crashed = "lights_off" in suite.name
        warnings = [{"step": step, "score": 1.0 + step, "alarm": step > 8} for step in (4, 8, 12, 16)]
        rows = [
            {"task": "drawer-open-v3", "seed": seed, "status": "failure", "error": "", "warnings": warnings}
            for seed in (0, 1)
        ]
        for row in rows if crashed else rows[:1]:
            row |= {"status": "error", "error": f"OSError: seed {row['seed']}\nTraceback", "warnings": []}
        trials = 0 if crashed else 1
        rate = {"successes": 0, "trials": trials, "errors": 2 - trials, "rate": None if crashed else 0.0}
        return {"total": rate | {"interval": wilson(0, trials)}, "episodes": rows}

    monkeypatch.setattr(alarms, "evaluate", evaluate)
    words = ["analyse", "warning", str(run_dir), "--out", str(tmp_path)]
    assert main([*words, "--perturbations", "lights_off", "distractor"]) == 0
    record = read_record(tmp_path / "alarms.json", Alarms, "")
    dark, ball = record.kinds
    assert (dark.reached, dark.scores, dark.curves, dark.solved.rate) == (0, {}, [], None)
    assert (ball.reached, ball.noticed, record.episodes) == (1, 1, 1)
    assert [(crash.where, crash.seed) for crash in record.crashes] == [
        ("without a perturbation", 0),
        ("lights_off", 0),
        ("lights_off", 1),
        ("distractor", 0),
    ]
    page = (tmp_path / "alarms.html").read_text()
    assert "lights_off not measured, distractor 1 of 1" in page and "0 of 0" not in page
    assert "OSError: seed 1" in page and "Crashed environments" in page
    assert "score in distractor" in page and "score in lights_off" not in page


def test_scores_are_compared_within_their_window() -> None:
    warnings = [{"step": step, "score": float(step)} for step in range(0, 20, 4)]
    assert _highest({"warnings": warnings}, "score", 4, 8) == [12.0]
    assert _highest({"warnings": warnings}, "score", 16, 8) == []
    assert _highest({"warnings": warnings}, "other", 4, 8) == _highest({}, "score", 0, 8) == []
    found = _score([1.0, 2.0], [2.0, 3.0])
    assert (found.episodes, found.auroc) == (2, 0.875) and np.isfinite(found.interval).all()


def test_nothing_to_perturb(run_dir: Path) -> None:
    from wamkit.config import load_run
    from wamkit.stages.alarms import AlarmsConfig, alarms

    with pytest.raises(BadInput, match="--perturbations: expected at least one"):
        alarms(
            run_dir, load_run(run_dir), AlarmsConfig(TASK, (), 1, 0.5), run_dir, torch.device("cpu"), "again"
        )
