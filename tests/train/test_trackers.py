"""Trackers: TensorBoard as ever; the real Weights & Biases, offline, whose files are read back."""

from __future__ import annotations

import builtins
import json
import signal
import struct
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from wamkit_client.types import BadInput

from tests import tiny_dataset
from tests.tiny_dataset import RUN
from tests.train.test_held_out import EVERY, unseen
from tests.train.test_loop import lasting, source
from tests.train.tiny import CPU, Interrupted, TinyPolicy
from wamkit.cli import main
from wamkit.commands import training
from wamkit.train.held_out import FILE
from wamkit.train.loop import train
from wamkit.train.metrics import read_rows
from wamkit.train.rows import read_table
from wamkit.train.trackers import TensorBoard, tracker_of

FACTS = {"recipe": "tiny", "train": {"steps": 40}}
BLOCK, HEADER = 32768, 7


@pytest.fixture
def offline(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Neither a login nor a setting of this machine."""
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_SILENT", "true")


def logged(file: Path) -> tuple[Any, list[dict[str, Any]]]:
    """What a .wandb file says of its run, and the rows in it: LevelDB's log of protobuf records."""
    from wandb.proto.wandb_internal_pb2 import Record

    data, place, parts = file.read_bytes(), HEADER, b""
    run, rows = None, []
    while place + HEADER <= len(data):
        if (left := BLOCK - place % BLOCK) < HEADER:
            place += left
            continue
        _, length, kind = struct.unpack_from("<IHB", data, place)
        parts += data[place + HEADER : place + HEADER + length]
        place += HEADER + length
        if kind in (1, 4):  # whole, or the last of several
            record, parts, whole = Record(), b"", parts
            record.ParseFromString(whole)
            if record.HasField("run"):
                run = record.run
            if record.HasField("history"):
                items = {item.key or ".".join(item.nested_key): item for item in record.history.item}
                rows.append({k: json.loads(i.value_json) for k, i in items.items() if k[0] != "_"})
    return run, rows


def files(run_dir: Path) -> list[Path]:
    return sorted(run_dir.glob("wandb/offline-run-*/run-*.wandb"))


@pytest.mark.usefixtures("offline")
def test_weights_and_biases_has_the_rows_of_the_files(tmp_path: Path) -> None:
    train(TinyPolicy(), source(), EVERY, tmp_path / "run", CPU, unseen, tracker_of("wandb", FACTS))
    [file] = files(tmp_path / "run")
    run, rows = logged(file)
    assert (run.project, run.display_name) == ("wamkit", "run")
    assert run.run_id == (tmp_path / "run/wandb/id").read_text()
    config = {update.key: json.loads(update.value_json) for update in run.config.update}
    assert config["recipe"] == "tiny" and config["train"] == {"steps": 40}
    own = [row for row in rows if "loss" in row]
    assert own == read_rows(tmp_path / "run")
    held = [row for row in rows if "held_out/loss" in row]
    expected = [
        {name if name == "step" else f"held_out/{name}": value for name, value in row.items()}
        for row in read_table(tmp_path / "run" / FILE)
    ]
    assert held == expected and len(own) + len(held) == len(rows)


@pytest.mark.usefixtures("offline")
def test_a_resumed_run_is_the_same_one(tmp_path: Path) -> None:
    opened = tracker_of("wandb", FACTS)
    with pytest.raises(KeyboardInterrupt):
        train(Interrupted(10, signal.SIGTERM), source(), EVERY, tmp_path / "run", CPU, unseen, opened)
    train(TinyPolicy(), source(), EVERY, tmp_path / "run", CPU, unseen, opened)
    (first, before), (second, after) = map(logged, files(tmp_path / "run"))
    assert first.run_id == second.run_id
    steps = [row["step"] for row in before + after if "loss" in row]
    assert steps == list(range(1, 41))


@pytest.mark.usefixtures("offline")
def test_training_does_not_depend_on_the_tracker(tmp_path: Path) -> None:
    train(TinyPolicy(), source(), EVERY, tmp_path / "one", CPU, unseen, tracker_of("wandb", FACTS))
    train(TinyPolicy(), source(), EVERY, tmp_path / "two", CPU, unseen, tracker_of("tensorboard", FACTS))
    assert lasting(tmp_path / "one") == lasting(tmp_path / "two")
    assert not (tmp_path / "one/tensorboard").exists() and not (tmp_path / "two/wandb").exists()


def test_without_the_package_it_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also where the current folder has one of that name."""
    monkeypatch.delitem(sys.modules, "wandb", raising=False)
    real = builtins.__import__

    def absent(name: str, *more: Any, **named: Any) -> Any:
        if name == "wandb":
            raise ModuleNotFoundError("No module named 'wandb'")
        return real(name, *more, **named)

    monkeypatch.setattr(builtins, "__import__", absent)
    with pytest.raises(BadInput, match=r"--tracker wandb: .*pip install 'wamkit\[wandb\]', or omit it"):
        tracker_of("wandb", {})
    assert tracker_of("tensorboard", {}) is TensorBoard


def test_without_a_login_it_says_how_to_go_on(tmp_path: Path) -> None:
    """In a process of its own, which asks nobody and has no network to ask."""
    script = (
        "import sys; from pathlib import Path\n"
        "from wamkit.train.trackers import tracker_of\n"
        "tracker_of('wandb', {})(Path(sys.argv[1]), 0)\n"
    )
    clean = {"HOME": str(tmp_path), "WANDB_SILENT": "true", "WANDB_BASE_URL": "http://127.0.0.1:9"}
    found = subprocess.run(
        [sys.executable, "-c", script, str(tmp_path)],
        env={"PATH": "/usr/bin", "PYTHONPATH": ":".join(sys.path), **clean},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert found.returncode == 1
    assert "BadInput: --tracker wandb: " in found.stderr
    assert "run `wandb login`, or set WANDB_MODE=offline" in found.stderr


@pytest.mark.usefixtures("offline")
def test_from_the_command_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    run = replace(RUN, eval=replace(RUN.eval, replan_steps=4))
    monkeypatch.setattr(training, "recipe", lambda name: run)
    tiny_dataset.write(tmp_path / "dataset", (12, 9))
    words = ["train", "tiny", f"--dataset={tmp_path / 'dataset'}", f"--out={tmp_path / 'run'}"]
    with pytest.raises(SystemExit):
        main([*words, "--tracker", "mlflow"])
    assert "wandb" in capsys.readouterr().err and not (tmp_path / "run").exists()
    assert main([*words, "--tracker", "wandb"]) == 0
    [file] = files(tmp_path / "run")
    assert [row["step"] for row in logged(file)[1]] == [2]
