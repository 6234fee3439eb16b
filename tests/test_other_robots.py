"""Datasets of other robots, written by the real lerobot package, become policies by commands.

v3.0 and v2.1, two styles of column names, displacements and targets, one to three cameras, 5 to 50 Hz, images and
videos: the rows of tests/data/lerobot_oracle/robots.py. `make test-lerobot` writes all of them anew.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from wamkit_client.types import Observation

import wamkit
from tests.data.lerobot_oracle import build
from tests.data.lerobot_oracle.robots import COMMITTED, FRESH, Robot
from wamkit.cli import main
from wamkit.recipes import recipe

FIXTURES = Path(__file__).parent / "data/fixtures/robots"
SHORT = ("--train.steps", "2", "--train.warmup-steps", "1", "--train.batch-size", "2")


@pytest.mark.parametrize("name", COMMITTED)
def test_its_dataset_becomes_a_policy(name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    becomes_a_policy(FIXTURES / name, COMMITTED[name], tmp_path, capsys)


@pytest.mark.lerobot
@pytest.mark.parametrize("name", FRESH)
def test_its_dataset_written_now(name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    build.build()
    build.write_robot(name, tmp_path / "dataset")
    becomes_a_policy(tmp_path / "dataset", FRESH[name], tmp_path, capsys)


def becomes_a_policy(dataset: Path, robot: Robot, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """init, --plan, two steps of training, a chunk."""
    data, file, out = ("--dataset", str(dataset)), folder / "robot.py", folder / "run"
    capsys.readouterr()
    assert main(["init", str(dataset)]) == 0
    file.write_text(capsys.readouterr().out)
    assert len(file.read_text().splitlines()) < 60
    run = recipe(str(file))
    assert run.actions.kinds == (robot.kind,) * 6 + ("gripper",)
    assert run.data.hz == robot.hz and len(run.data.views) == len(robot.cameras)
    assert main(["train", str(file), *data, "--plan", *SHORT]) == 0
    assert main(["train", str(file), *data, "--out", str(out), *SHORT]) == 0, capsys.readouterr().err
    images = {view: np.zeros((48, 64, 3), np.uint8) for view in run.data.views}
    seen = Observation(images, np.zeros(7, np.float32), "pick up the cup", "testarm")
    [chunk] = wamkit.load_policy(str(out)).act([seen])
    assert chunk.actions.shape == (run.data.horizon, 7) and np.isfinite(chunk.actions).all()
