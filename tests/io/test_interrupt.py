"""Ctrl-C and SIGTERM to a command and all its processes, at several moments: one line, and the same command resumes."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.convert import robot_hdf5
from tests.moments import has_stopped
from tests.processes import command
from tests.until import SECONDS, until
from wamkit.data.lerobot.dataset import Dataset
from wamkit.eval.evaluate import read_results
from wamkit.io.files import AGAIN

ROOT = Path(__file__).parents[2]
PRETRAINED = ROOT / "pretrained" / "metaworld3"
# A shell's background jobs ignore Ctrl-C, and so would a command that the suite starts as one.
COMMAND = """
import signal, sys
signal.signal(signal.SIGINT, signal.default_int_handler)
from tests.moments import signal_at
signal_at(sys.argv.pop(1), signal.SIGSTOP)
from wamkit.cli import main
sys.exit(main())
"""
Moment = Callable[[subprocess.Popen[str]], bool]


def started(processes: int, seconds: float) -> Moment:
    """So long after a command has that many processes: they are imported, then their simulators."""

    def reached(process: subprocess.Popen[str]) -> bool:
        children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
        if len(children) < processes:
            return False
        time.sleep(seconds)
        return True

    return reached


def stopped(process: subprocess.Popen[str]) -> bool:
    return has_stopped(process.pid)


def interrupted(words: list[str], moment: Moment, number: signal.Signals, at: str = "") -> None:
    """Run a command until the moment, signal its process group, and read what it says. at: where it stops."""
    process = subprocess.Popen(
        [sys.executable, "-c", COMMAND, at, *words],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
        cwd=ROOT,
    )

    def reached() -> bool:
        assert process.poll() is None, process.communicate()[0]
        return moment(process)

    until(reached)
    os.killpg(process.pid, number)
    os.killpg(process.pid, signal.SIGCONT)
    said, _ = process.communicate(timeout=SECONDS)
    assert process.returncode == 130, said
    assert "Traceback" not in said and said.splitlines()[-1].startswith("interrupted. "), said
    assert said.count(AGAIN) == 1, said
    assert not os.path.exists(f"/proc/{process.pid}")


def finish(words: list[str], folder: Path) -> None:
    assert command(["wamkit", *words], folder).status == 0


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("package", ["numpy", "rich", "tyro", "wamkit.recipes"])
def test_while_the_command_line_is_imported(tmp_path: Path, package: str, number: signal.Signals) -> None:
    """The signal comes in the middle of an import, from a finder that is asked for the package."""
    (tmp_path / "sitecustomize.py").write_text(
        "import os, sys\n"
        "class Finder:\n"
        "    def find_spec(name, path=None, target=None):\n"
        f"        if name == {package!r}:\n"
        f"            sys.meta_path.remove(Finder); os.kill(os.getpid(), {int(number)})\n"
        "sys.meta_path.insert(0, Finder)\n"
    )
    path = os.pathsep.join([str(tmp_path), *filter(None, [os.environ.get("PYTHONPATH")])])
    done = subprocess.run(
        [sys.executable, "-c", COMMAND, "", "train", "--help"],
        capture_output=True,
        text=True,
        check=False,
        timeout=SECONDS,
        cwd=ROOT,
        env=os.environ | {"PYTHONPATH": path},
    )
    assert (done.returncode, done.stdout) == (130, "")
    assert done.stderr == f"interrupted. {AGAIN}\n"


def test_collect(tmp_path: Path) -> None:
    out = tmp_path / "data"
    words = ["collect", "metaworld:window-open", "--episodes", "4", "--workers", "2"]
    words += ["--out", str(out)]

    one_of_two = started(processes=2, seconds=0.0)  # and their resource tracker
    interrupted(words, one_of_two, signal.SIGINT)
    interrupted(words, stopped, signal.SIGTERM, at="*/.staging/episode-000001")
    assert 1 <= len(list(out.glob(".staging/episode-*[0-9]"))) < 4
    finish(words, tmp_path)
    states = Dataset.open(out).episode_column("initial_state")
    assert [json.loads(state)["seed"] for state in states] == [0, 1, 2, 3]


def test_convert(tmp_path: Path) -> None:
    for number in range(8):
        robot_hdf5.write(tmp_path / "recordings", number)
    out = tmp_path / "data"
    words = ["convert", "hdf5", str(tmp_path / "recordings"), str(out)]

    interrupted(words, stopped, signal.SIGTERM, at="*/.staging/episode-000002")
    finish(words, tmp_path)
    assert len(Dataset.open(out).episodes) == 8


def test_eval(tmp_path: Path) -> None:
    partial = tmp_path / "results.partial.jsonl"
    words = ["eval", str(PRETRAINED), "--tasks", "0", "--episodes", "3", "--out", str(tmp_path)]
    words += ["--eval.processes", "1"]

    def measured(process: subprocess.Popen[str]) -> bool:
        return partial.exists() and partial.read_text().count("\n") >= 2

    interrupted(words, started(processes=2, seconds=0.3), signal.SIGTERM)
    interrupted(words, measured, signal.SIGINT)
    finish(words, tmp_path)
    assert 1 <= read_results(tmp_path / "results.json")["resumed"] < 3
