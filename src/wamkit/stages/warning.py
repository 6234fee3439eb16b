"""A run whose world model warns while it acts, as warning.json in its directory says (infer/warning.py).

`wamkit calibrate` writes that file (calibrate.py).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import torch
from wamkit_client.types import BadInput

from wamkit.config import Run, load_engine_as
from wamkit.foresight import Foreseeing
from wamkit.infer.engine import Engine
from wamkit.infer.warning import Usual, Watched, Watcher
from wamkit.io.files import sha256
from wamkit.io.provenance import machine, revision, versions
from wamkit.io.records import read_record
from wamkit.io.weights import WEIGHTS

WARNING = "warning.json"


@dataclass(frozen=True)
class Origin:
    """The episodes of one robot. usual: those that say what is usual. highest: of the others, the highest score."""

    dataset: str
    usual: list[str]
    highest: dict[str, float]


@dataclass(frozen=True)
class Calibration:
    """warning.json. false_alarms: the share of usual episodes that may raise an alarm. replan_steps: between queries.

    ahead: seconds that something must have been expected before, to be compared with (infer/warning.py).
    weights: sha256 of those that it holds for. robots, origins: by name of the robot.
    """

    command: str
    weights: str
    false_alarms: float
    replan_steps: int
    robots: dict[str, Usual]
    origins: dict[str, Origin]
    ahead: float = 0.0
    revision: str = field(default_factory=revision)
    versions: dict[str, str] = field(default_factory=versions)
    machine: dict[str, Any] = field(default_factory=machine)
    format: str = "wamkit-warning-1"

    @property
    def identity(self) -> dict[str, Any]:
        """What a result says of it."""
        thresholds = {robot: usual.threshold for robot, usual in self.robots.items()}
        return {"false_alarms": self.false_alarms, "ahead": self.ahead, "threshold": thresholds}


def read_calibration(run_dir: Path) -> Calibration:
    """BadInput where the run was not calibrated, or has other weights since."""
    remedy = f"let it be made: wamkit calibrate {run_dir} --dataset EPISODES (docs/server.md)"
    found = read_record(run_dir / WARNING, Calibration, remedy)
    if found.weights != sha256(run_dir / WEIGHTS):
        raise BadInput(f"{run_dir / WARNING}: it was made for other weights than the run has now; {remedy}")
    return found


def load_watcher(run: Run, run_dir: Path, device: torch.device, ahead: float) -> Watcher:
    """Of the engine of a run, with all of its policy. ahead, BadInput: as of Watcher."""
    return Watcher(cast(Engine[Foreseeing], load_engine_as(run, run_dir, device)), ahead)


def load_watched(run: Run, run_dir: Path, device: torch.device) -> Watched:
    """A run that warns while it acts. BadInput where it was not calibrated, and as of `load_watcher`."""
    calibration = read_calibration(run_dir)
    return Watched(load_watcher(run, run_dir, device, calibration.ahead), calibration.robots)
