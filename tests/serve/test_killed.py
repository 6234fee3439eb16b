"""A server that is killed in the middle of an episode, and the client that finishes the episode with its successor."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
from wamkit_client.client import RemotePolicy
from wamkit_client.types import Observation

from tests.serve.robots import ROBOT

ROOT = Path(__file__).parents[2]
IMAGE = np.zeros((32, 32, 3), np.uint8)


def served(port: int) -> subprocess.Popen[str]:
    words = [sys.executable, "-m", "tests.serve.echo_process", str(port)]
    return subprocess.Popen(words, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


def port_of(process: subprocess.Popen[str]) -> int:
    assert process.stdout
    return int(process.stdout.readline())


def test_an_episode_outlives_its_server() -> None:
    first = served(0)
    port = port_of(first)
    chunks = []
    with RemotePolicy(f"ws://127.0.0.1:{port}") as policy:
        policy.reset()
        for step in range(6):
            if step == 3:
                first.kill()
                first.wait()
                second = served(port)  # is up a second later, in which the client is refused
            seen = Observation(
                dict.fromkeys(ROBOT.views, IMAGE),
                np.full(8, step, np.float32),
                "lift",
                "panda",
                noise_seed=step,
            )
            chunks.append(policy.act([seen])[0])
    assert [chunk.actions[0, 0] for chunk in chunks] == [0, 1, 2, 3, 4, 5]
    assert [chunk.info["seed"] for chunk in chunks] == [0, 1, 2, 3, 4, 5]
    second.kill()
    second.wait()
