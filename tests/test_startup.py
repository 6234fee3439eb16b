"""`wamkit --help` answers at once because nothing heavy is imported before a command needs it."""

from __future__ import annotations

import subprocess
import sys

import pytest

HEAVY = {
    "torch",
    "diffusers",
    "transformers",
    "peft",
    "metaworld",
    "mujoco",
    "matplotlib",
    "pyarrow",
    "av",
    "tensorboard",
}
REPORT = """
import sys
sys.argv = ["wamkit", *{arguments!r}]
from wamkit.cli import main
try:
    main()
except SystemExit as done:
    assert done.code == 0, done.code
print("IMPORTED", *sorted(sys.modules))
"""


@pytest.mark.parametrize(
    "arguments", [["--help"], ["train", "--help"], ["recipes"], ["--version"]], ids=" ".join
)
def test_help_imports_nothing_heavy(arguments: list[str]) -> None:
    code = REPORT.format(arguments=arguments)
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False, timeout=60
    )
    assert result.returncode == 0, result.stderr
    *_, last = result.stdout.splitlines()
    assert last.startswith("IMPORTED")
    assert not HEAVY & set(last.split()), f"imported by wamkit {' '.join(arguments)}"


def test_the_robots_side_imports_without_torch() -> None:
    code = (
        "import sys; import wamkit_client.types, wamkit_client.chunk, wamkit_client.rollout, wamkit_client.suites,"
        " wamkit_client.stats, wamkit_client.envs.metaworld.env; print(*sorted(sys.modules))"
    )
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60
    )
    assert not HEAVY & set(result.stdout.split())
