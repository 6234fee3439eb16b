"""The suite for a GPU, on this processor with the small presets: it begins with the gate and leaves every result."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

SUITE = Path(__file__).parents[2] / "benchmarks" / "gpu_suite.sh"
ALONE = {
    "PATH": "/usr/bin:/bin",
    "PYTHON": sys.executable,
    "CUDA_VISIBLE_DEVICES": "",
    "OMP_NUM_THREADS": "1",
}


@pytest.mark.scale
def test_the_suite_runs_at_small_shapes(tmp_path: Path) -> None:
    done = subprocess.run(
        ["bash", str(SUITE), str(tmp_path), "--small"],
        capture_output=True,
        text=True,
        check=False,
        env=ALONE,
    )
    logs = "".join(path.read_text()[-1500:] for path in tmp_path.glob("*.log"))
    assert done.returncode == 0, done.stdout + done.stderr + logs
    assert done.stdout.index("gate_metaworld3:") < done.stdout.index("light_wam:")
    rows = dict(row.strip("| ").split(" | ", 1) for row in done.stdout.splitlines() if row.startswith("| "))
    for name in ("times as fast as the eager twin", "queries per second in batches of 16"):
        assert float(rows[name].split()[0]) > 0, rows  # measured here too, on other policies
    assert rows["Fast-WAM, LIBERO query, ten steps"].startswith("not measured | at most 20 ms")
    for what in ("latency", "train-step"):
        assert list(tmp_path.glob(f"*/{what}_metaworld3_*.json")), what


def test_an_unknown_word_is_refused(tmp_path: Path) -> None:
    done = subprocess.run(
        ["bash", str(SUITE), str(tmp_path), "--fast"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 2 and "unknown: --fast" in done.stderr
