"""`wamkit analyse warning` on a tiny run in the real Meta-World: an evaluation for each perturbation, and a page."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from wamkit_client.types import BadInput

from tests.tiny_dataset import RUN, write
from wamkit.cli import main
from wamkit.eval.evaluate import EvalConfig
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
