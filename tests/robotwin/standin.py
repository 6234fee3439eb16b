"""A RoboTwin checkout for tests, and runs that fit it."""

from __future__ import annotations

import importlib.util
import json
import shutil
import sys
from dataclasses import replace
from pathlib import Path
from types import ModuleType

import numpy as np
import torch
from wamkit_client.envs.robotwin.conventions import Layout

from tests.policies.tiny_lawam import CONFIG as LAWAM
from tests.policies.tiny_policy import shaken, tiny_config
from wamkit.config import PROVENANCE_FILE, Run, build_policy, save_normalizer, save_run
from wamkit.data.actions import ActionSpace
from wamkit.data.normalize import Stats
from wamkit.eval.evaluate import EvalConfig
from wamkit.io.provenance import record
from wamkit.policies.light_wam.policy import StepWeights
from wamkit.recipes import recipe
from wamkit.recipes import robotwin as recipes
from wamkit.train import checkpoint
from wamkit.train.loop import initial_state

HERE = Path(__file__).parent / "checkout"
SUITE = "robotwin_clean:adjust_bottle,place_fan"


def checkout(folder: Path, age: str, python: str = sys.prefix, **behaviour: object) -> Path:
    """A copy of the stand-in of that age ("present" or "former"), with this environment as RoboTwin's Python."""
    shutil.copytree(HERE / age, folder)
    shutil.copytree(HERE / "shared", folder, dirs_exist_ok=True)
    (folder / ".venv").symlink_to(python)
    behave(folder, **behaviour)
    return folder


def behave(folder: Path, **behaviour: object) -> None:
    (folder / "behaviour.json").write_text(json.dumps(behaviour))


def module(path: Path) -> ModuleType:
    """A file of the stand-in as a module of the test."""
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec and spec.loader
    found = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(found)
    return found


def executed(folder: Path) -> list[dict[str, object]]:
    """What the simulator was told to do, an episode a row."""
    return [json.loads(line) for line in (folder / "executed.jsonl").read_text().splitlines()]


def tiny_run(control: str = "joint") -> Run:
    """The recipe of RoboTwin with a tiny policy: three views, 32 actions of which 24 are executed."""
    base, shape = recipes.robotwin(), Layout(control, 6 if control == "joint" else 7)
    width = len(shape.names)
    kinds = tuple("gripper" if name.endswith("gripper") else "absolute" for name in shape.names)
    return replace(
        base,
        policy=tiny_config(step_weights=StepWeights(prefix=24)),
        data=replace(base.data, view_height=30, view_width=32, action_dim=width, proprio_dim=width),
        actions=ActionSpace(shape.names, kinds),
        train=replace(base.train, precision="fp32"),
        eval=EvalConfig(replan_steps=24, processes=2),
    )


def tiny_hands() -> Run:
    """The recipe of LaWAM with a tiny policy: poses of both hands, 36 of 36 executed, no proprio."""
    base = recipe("robotwin_lawam")
    expert = replace(LAWAM.expert, tokens=36, action_dim=16)
    policy = replace(LAWAM, expert=expert, clip_actions=True, robots=base.policy.robots)
    return replace(
        base,
        policy=replace(policy, prompt=replace(LAWAM.prompt, length=60)),
        data=replace(base.data, view_height=32, view_width=32),
        train=replace(base.train, precision="fp32"),
    )


def run_directory(folder: Path, run: Run, *robots: str) -> Path:
    """A run directory as training leaves it, with random weights and the statistics of `robots`."""
    rng = np.random.default_rng(0)
    dims = {"action": run.data.action_dim, "proprio": run.data.proprio_dim}
    own = {name: Stats.of(rng.normal(size=(50, dim)) * 0.3) for name, dim in dims.items()}
    names = robots or ("aloha",)
    torch.manual_seed(0)
    normalizer = run.normalization.fit(dict.fromkeys(names, own), dict.fromkeys(names, run.actions))
    policy = shaken(build_policy(run, normalizer))
    save_run(run, folder)
    save_normalizer(policy.normalizer, folder)
    checkpoint.write_weights(folder, initial_state(policy, run.train))
    (folder / PROVENANCE_FILE).write_text(json.dumps(record("cpu", {}, {"episodes": 1, "steps": 50}, [])))
    return folder
