"""The Slurm script of a Ray cluster, with stand-ins for Slurm's own programs: two nodes, on this machine."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.cluster.nodes import SMALL
from tests.ports import lasting_port
from tests.until import SECONDS
from wamkit.data.lerobot.dataset import Dataset

SCRIPT = Path(__file__).parents[2] / "examples" / "cluster" / "ray.sbatch"
SRUN = """#!/bin/sh
SLURM_NODEID=0 "$@" & first=$!
SLURM_NODEID=1 "$@" & second=$!
trap 'kill $first $second; wait' TERM
wait
"""


def test_the_script_is_whole() -> None:
    assert subprocess.run(["bash", "-n", str(SCRIPT)], check=False).returncode == 0


@pytest.mark.scale
def test_the_script_collects(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from ray.util import get_node_ip_address

    for name, text in {"srun": SRUN, "scontrol": f"#!/bin/sh\necho {get_node_ip_address()}\n"}.items():
        (tmp_path / name).write_text(text)
        (tmp_path / name).chmod(0o755)
    variables = {
        "PATH": f"{tmp_path}:{Path(sys.executable).parent}:{os.environ['PATH']}",
        "SLURM_JOB_NODELIST": "one",
        "SLURM_CPUS_PER_TASK": "1",
        "RAY_PORT": str(lasting_port()),
        "RAY_START": f"--min-worker-port 0 --max-worker-port 0 --object-store-memory {SMALL['object_store_memory']}",
    }
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    words = ["collect", "metaworld:window-open", "--episodes", "2", "--out", str(tmp_path / "data")]
    ran = subprocess.run(
        ["bash", str(SCRIPT), *words],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=SECONDS,
        check=False,
    )
    assert ran.returncode == 0, ran.stderr + (tmp_path / "ray.log").read_text()
    assert "ray " in ran.stdout and len(Dataset.open(tmp_path / "data").episodes) == 2
