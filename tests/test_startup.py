"""`wamkit --help` answers at once because nothing heavy is imported before a command needs it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.until import SECONDS

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
    status = main()
except SystemExit as done:
    status = done.code
assert status == {status}, status
print("IMPORTED", *sorted(sys.modules))
"""


@pytest.mark.parametrize(
    "arguments", [["--help"], ["train", "--help"], ["recipes"], ["--version"]], ids=" ".join
)
def test_help_imports_nothing_heavy(arguments: list[str]) -> None:
    assert not HEAVY & imported(arguments, 0), f"imported by wamkit {' '.join(arguments)}"


def test_the_compiler_is_not_imported_before_something_is_compiled_or_optimized() -> None:
    """More than a second of every command."""
    found = imported(["eval", "no"], 2)
    assert "torch" in found and "torch._dynamo" not in found


def imported(arguments: list[str], status: int) -> set[str]:
    """The modules that a command has imported at its end, with this status."""
    code = REPORT.format(arguments=arguments, status=status)
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False, timeout=SECONDS
    )
    assert result.returncode == 0, result.stderr
    *_, last = result.stdout.splitlines()
    assert last.startswith("IMPORTED")
    return set(last.split())


def test_the_robots_side_imports_without_torch() -> None:
    code = (
        "import sys; import wamkit_client.types, wamkit_client.chunk, wamkit_client.rollout, wamkit_client.suites,"
        " wamkit_client.stats, wamkit_client.envs.metaworld.env; print(*sorted(sys.modules))"
    )
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=SECONDS
    )
    assert not HEAVY & set(result.stdout.split())


def test_the_installed_program() -> None:
    program = Path(sys.executable).with_name("wamkit")
    result = subprocess.run(
        [program, "--version"], capture_output=True, text=True, check=True, timeout=SECONDS
    )
    assert result.stdout.startswith("wamkit ")
