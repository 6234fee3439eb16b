"""examples/own_robot.py as it is: its arm, driven in real time by a recorded episode that a server plays."""

from __future__ import annotations

import json
import runpy
from pathlib import Path

import numpy as np
from wamkit_client.bringup import ReplayPolicy

from tests.pages import ROOT, run
from tests.serve.robots import service
from wamkit.serve.dialects.spoken import dialects, greeting
from wamkit.serve.served import Facts, Robot
from wamkit.serve.server import Server

ARM = runpy.run_path(str(ROOT / "examples/arm/env.py"))
EXECUTED = 6


def demonstration(seed: int) -> np.ndarray:
    """What the expert does until it holds the block, [t, a]."""
    arm, actions = ARM["make"](), []
    arm.reset(seed)
    while not actions or not arm.step(actions[-1]).success:
        actions.append(arm.expert_action())
    arm.close()
    return np.stack(actions)


def test_a_recorded_episode_takes_the_block(tmp_path: Path) -> None:
    actions = demonstration(0)
    robot = Robot("six_motor_arm", ("image", "wrist_image"), 6, 6, EXECUTED, ARM["HZ"])
    facts = Facts("replay", (robot,), ARM["JOINTS"], ARM["SIZE"], ARM["SIZE"], EXECUTED)
    asked = service(ReplayPolicy(actions, EXECUTED, actions[-1]), facts)
    words = [
        "--executor",
        "sync",
        "--replan-steps",
        str(EXECUTED),
        "--steps",
        "100000",
    ]  # however slow this machine is
    with Server(asked, dialects(), greeting=greeting(asked.policies)) as server:
        printed = run(["python", str(ROOT / "examples/own_robot.py"), server.url, *words], tmp_path)
    report = json.loads((tmp_path / "drive.json").read_text())
    assert report["ended"] == "finished"
    assert printed.startswith(f"finished: {report['steps']} control steps at ")
