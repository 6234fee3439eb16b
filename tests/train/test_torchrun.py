"""`torchrun -m wamkit train`: killed, gone on with, told to stop; and the examples for clusters."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import pytest
import yaml
from wamkit_client.types import BadInput

from tests.ports import lasting_port
from tests.tiny_dataset import write
from tests.train.test_parallel import RTOL, TIMES
from tests.until import SECONDS, until
from wamkit.commands.overrides import changed
from wamkit.commands.parsing import parse
from wamkit.recipes import recipe
from wamkit.train.checkpoint import latest
from wamkit.train.metrics import Row, read_rows

ROOT = Path(__file__).parents[2]
CLUSTER = ROOT / "examples" / "cluster"
RECIPE = """
from dataclasses import replace

from tests.tiny_dataset import RUN
from wamkit.train.loop import TrainConfig


def recipe():
    train = TrainConfig(steps=60, batch_size=4, warmup_steps=1, save_every=10, log_every=1)
    return replace(RUN, suite="", eval=replace(RUN.eval, replan_steps=4), train=train)
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A dataset and a recipe."""
    folder = tmp_path_factory.mktemp("torchrun")
    write(folder / "data", [12, 15])
    (folder / "tiny.py").write_text(RECIPE)
    return folder


def begin(folder: Path, out: str, *flags: str, program: Sequence[str] = ()) -> subprocess.Popen[str]:
    """Two ranks."""
    path = os.pathsep.join([str(ROOT), str(ROOT / "src"), os.environ.get("PYTHONPATH", "")])
    torchrun = [sys.executable, "-m", "torch.distributed.run", *flags, "-m", "wamkit", "train"]
    words = [*(program or torchrun), "tiny.py", "--dataset", "data", "--out", out, "--device", "cpu"]
    return subprocess.Popen(
        words,
        cwd=folder,
        env=os.environ | {"PYTHONPATH": path},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def rows(run_dir: Path) -> list[Row]:
    return [{name: x for name, x in row.items() if name not in TIMES} for row in read_rows(run_dir)]


def rank_of(agent: int, rank: int) -> int:
    """The process of a rank that torchrun has started."""
    children = Path(f"/proc/{agent}/task/{agent}/children").read_text().split()
    for child in children:
        variables = Path(f"/proc/{child}/environ").read_bytes().split(b"\0")
        if f"RANK={rank}".encode() in variables:
            return int(child)
    raise AssertionError(f"no rank {rank} among {children}")


@pytest.fixture(scope="module")
def whole(folder: Path) -> list[Row]:
    """Rows of the run of one process."""
    alone = begin(folder, "alone", program=[sys.executable, "-m", "wamkit", "train"])
    assert alone.wait(SECONDS) == 0, alone.stdout and alone.stdout.read()
    return rows(folder / "alone")


@pytest.mark.scale
def test_a_killed_rank_is_named_and_torchrun_goes_on(folder: Path, whole: list[Row]) -> None:
    flags = "--standalone", "--nproc-per-node", "2"
    running = begin(folder, "killed", *flags, "--max-restarts", "1")
    until(lambda: latest(folder / "killed") is not None)
    os.kill(rank_of(running.pid, 1), signal.SIGKILL)
    out, _ = running.communicate(timeout=SECONDS)
    assert running.returncode == 0, out
    assert out.count("error: rank 1 of 2 (") == 1 and "has died" in out
    for own, expected in zip(rows(folder / "killed"), whole, strict=True):
        assert own == pytest.approx(expected, rel=RTOL)


@pytest.mark.scale
def test_without_restarts_all_end_within_a_minute(folder: Path) -> None:
    running = begin(folder, "ended", "--standalone", "--nproc-per-node", "2")
    until(lambda: latest(folder / "ended") is not None)
    os.kill(rank_of(running.pid, 0), signal.SIGKILL)
    killed = time.monotonic()
    out, _ = running.communicate(timeout=SECONDS)
    assert time.monotonic() - killed < 60
    assert running.returncode != 0 and out.count("error: rank 0 of 2 (") == 1


@pytest.mark.scale
def test_pre_emption_saves_first(folder: Path, whole: list[Row]) -> None:
    flags = "--standalone", "--nproc-per-node", "2"
    running = begin(folder, "stopped", *flags)
    until(lambda: latest(folder / "stopped") is not None)
    running.send_signal(signal.SIGTERM)
    out, _ = running.communicate(timeout=SECONDS)
    found = re.findall(r"interrupted. stopped after step (\d+) of 60", out)
    assert len(found) == 1, out
    newest = latest(folder / "stopped")
    assert newest is not None and newest.name == f"step_{int(found[0]):06d}"
    again = begin(folder, "stopped", *flags)
    assert again.wait(SECONDS) == 0
    for own, expected in zip(rows(folder / "stopped"), whole, strict=True):
        assert own == pytest.approx(expected, rel=RTOL)


@pytest.mark.scale
def test_the_slurm_script_trains(folder: Path, tmp_path: Path, whole: list[Row]) -> None:
    """With stand-ins for Slurm's own programs, as a job of one machine."""
    for name, does in {"srun": 'exec "$@"', "scontrol": "echo localhost"}.items():
        (tmp_path / name).write_text(f"#!/bin/sh\n{does}\n")
        (tmp_path / name).chmod(0o755)
    variables = {
        "PATH": f"{tmp_path}:{Path(sys.executable).parent}:{os.environ['PATH']}",
        "SLURM_JOB_NODELIST": "localhost",
        "SLURM_NNODES": "1",
        "SLURM_GPUS_ON_NODE": "2",
        "SLURM_JOB_ID": "1",
        "RENDEZVOUS_PORT": str(lasting_port()),
    }
    with pytest.MonkeyPatch.context() as patch:
        for name, value in variables.items():
            patch.setenv(name, value)
        running = begin(folder, "slurm", program=["bash", str(CLUSTER / "train.sbatch")])
    out, _ = running.communicate(timeout=SECONDS)
    assert running.returncode == 0, out
    for own, expected in zip(rows(folder / "slurm"), whole, strict=True):
        assert own == pytest.approx(expected, rel=RTOL)


def test_the_slurm_script_is_whole() -> None:
    script = CLUSTER / "train.sbatch"
    assert subprocess.run(["bash", "-n", str(script)], check=False).returncode == 0
    directives = re.findall(r"^#SBATCH --([a-z-]+)(?:=(\S+))?$", script.read_text(), re.MULTILINE)
    assert {"nodes", "ntasks-per-node", "gpus-per-node", "signal"} <= {name for name, _ in directives}


def test_the_kubernetes_job_trains_what_the_command_line_knows() -> None:
    service, job = yaml.safe_load_all((CLUSTER / "train.yaml").read_text())
    spec = job["spec"]
    (container,) = spec["template"]["spec"]["containers"]
    words = container["command"]
    assert service["metadata"]["name"] == spec["template"]["spec"]["subdomain"]
    assert service["spec"]["selector"] == {"job-name": job["metadata"]["name"]}
    assert spec["completions"] == spec["parallelism"] and f"--nnodes={spec['completions']}" in words
    assert f"--nproc-per-node={container['resources']['limits']['nvidia.com/gpu']}" in words
    command, overrides = parse(words[words.index("wamkit") + 1 :])
    changed(recipe(vars(command)["recipe"]), overrides)
    volumes = {volume["name"] for volume in spec["template"]["spec"]["volumes"]}
    assert {mount["name"] for mount in container["volumeMounts"]} == volumes


@pytest.mark.parametrize("ranks", ["3", "2"])
def test_ranks_are_torchruns(ranks: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder)
    command, overrides = parse(["train", "tiny.py", "--dataset", "data", "--train.ranks", ranks])
    with pytest.raises(BadInput, match=f"train.ranks: {ranks}, and 1 processes were started"):
        command(overrides)
