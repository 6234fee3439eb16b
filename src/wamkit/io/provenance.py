"""Where a number came from: the machine, the versions it depends on, the revision of this source.

Accelerators are added by the caller that uses one.
"""

from __future__ import annotations

import os
import platform
import subprocess
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

UNKNOWN = "unknown"
LIBRARIES = ("wamkit", "wamkit-client", "torch", "numpy", "av", "pyarrow", "metaworld", "mujoco", "gymnasium")


def machine() -> dict[str, Any]:
    """Processor model, cores available to this process, memory, system."""
    return {
        "cpu": _cpu_model(),
        "cores": len(os.sched_getaffinity(0)),
        "memory_gb": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1e9, 1),
        "system": platform.platform(),
    }


def _cpu_model() -> str:
    path = Path("/proc/cpuinfo")
    lines = path.read_text().splitlines() if path.exists() else []
    models = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return models[0] if models else platform.machine()


def versions() -> dict[str, str]:
    """Versions of Python and of the installed ones of LIBRARIES."""
    found = {"python": platform.python_version()}
    for name in LIBRARIES:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found


def revision() -> str:
    """The git commit of this source, with "-dirty" if files differ from it; UNKNOWN outside a checkout of it."""
    here = Path(__file__).parent
    try:
        _git(
            here, "ls-files", "--error-unmatch", Path(__file__).name
        )  # an environment may lie in another checkout
        commit = _git(here, "rev-parse", "HEAD")
        changed = _git(here, "status", "--porcelain", "--untracked-files=no")
    except (subprocess.CalledProcessError, FileNotFoundError):
        return UNKNOWN
    return commit + ("-dirty" if changed else "")


def _git(folder: Path, *arguments: str) -> str:
    command = ["git", "-C", str(folder), *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()


@dataclass(frozen=True)
class Origin:
    """The data a run was trained on: what every record says about it."""

    episodes: int
    steps: int


@dataclass(frozen=True)
class Machine:
    """The machine a run was trained on: what every record says about it."""

    cpu: str


@dataclass(frozen=True)
class InitialState:
    """Where a demonstration began."""

    task: str
    seed: int
    vector: tuple[float, ...]


@dataclass(frozen=True)
class Provenance:
    """The fields that every record has; there may be more."""

    revision: str
    versions: dict[str, str]
    machine: Machine
    parameters: dict[str, int]
    dataset: Origin
    initial_states: tuple[InitialState, ...]


def record(
    device: str, parameters: dict[str, int], dataset: dict[str, Any], initial_states: list[dict[str, Any]]
) -> dict[str, Any]:
    """The content of a run directory's provenance.json.

    device: its name. parameters: by part. dataset: fingerprint, robot, episodes, steps, fps, held-out episodes.
    initial_states: where the demonstrations began; empty if unknown.
    """
    return {
        "revision": revision(),
        "versions": versions(),
        "machine": machine() | {"device": device},
        "parameters": parameters,
        "dataset": dataset,
        "initial_states": initial_states,
    }
