"""RemotePolicy and the server: observations as they were, episodes of several robots and of a server that is killed.

tests/client/test_client.py has servers that misbehave.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from wamkit_client.client import PolicyFailed, RemotePolicy
from wamkit_client.rollout import Episode, EpisodeConfig, rollout
from wamkit_client.types import BadInput, Observation

from tests.client.toy import Reacher, Toy, ToyConfig, toy_suite
from tests.ports import lasting_port
from tests.serve.reacher_process import server
from tests.serve.robots import Echo, service
from tests.until import SECONDS
from wamkit.serve.dialects.spoken import dialects, greeting
from wamkit.serve.server import Server

ROOT = Path(__file__).parents[2]
CONFIG = EpisodeConfig(replan_steps=3, max_steps=40)


def toy() -> Toy:
    return Toy(ToyConfig(), toy_suite("reach").tasks[0])


@contextmanager
def process(port: int) -> Iterator[subprocess.Popen[str]]:
    """A server's process, which listens."""
    words = [sys.executable, "-m", "tests.serve.reacher_process", str(port)]
    started = subprocess.Popen(words, cwd=ROOT, stdout=subprocess.PIPE, text=True)
    try:
        assert started.stdout
        assert int(started.stdout.readline()) == port
        yield started
    finally:
        started.kill()
        started.wait()


def test_a_killed_server_costs_no_episode() -> None:
    """kill -9 between two queries, and one on the same port a moment later: every action as if nothing had been."""
    port = lasting_port()
    with (
        process(port) as first,
        RemotePolicy(f"ws://127.0.0.1:{port}") as policy,
        ThreadPoolExecutor(1) as pool,
    ):
        episode = Episode(toy(), 0, CONFIG)
        seen = episode.next_query()
        assert seen
        episode.answer(policy.act([seen])[0])
        seen = episode.next_query()
        assert seen
        first.kill()
        first.wait()
        answer = pool.submit(policy.act, [seen])  # nobody is there
        with process(port):
            episode.answer(answer.result(SECONDS)[0])
            while seen := episode.next_query():
                episode.answer(policy.act([seen])[0])
    assert episode.outcome == rollout(Reacher(), toy(), 0, CONFIG)


def test_several_robots_at_once() -> None:
    with server() as running, ThreadPoolExecutor(6) as robots:

        def drive(seed: int) -> object:
            with RemotePolicy(running.url) as policy:
                return rollout(policy, toy(), seed, CONFIG)

        found = list(robots.map(drive, range(12)))
    assert found == [rollout(Reacher(), toy(), seed, CONFIG) for seed in range(12)]


SEEN = Observation(
    {view: np.zeros((32, 32, 3), np.uint8) for view in ("image", "wrist_image")},
    np.arange(8, dtype=np.float32),
    "lift",
    "panda",
    noise_seed=2**63 - 1,
    previous=np.ones((2, 7), np.float32),
    delay=3,
    steps=4,
    episode="pick 3",
    step=17,
)


def test_an_observation_arrives_as_it_was() -> None:
    echo = Echo()
    asked = service(echo)
    with (
        Server(asked, dialects(), greeting=greeting(asked.policies)) as running,
        RemotePolicy(running.url) as policy,
    ):
        chunk = policy.act([SEEN])[0]
        policy.act([replace(SEEN, noise_seed=1), replace(SEEN, noise_seed=2)])
        policy.reset()
    ((arrived,), both), resets = echo.calls, echo.resets
    assert [seen.noise_seed for seen in both] == [1, 2] and resets == 1
    np.testing.assert_array_equal(chunk.actions, np.tile(SEEN.proprio[:7], (4, 1)))
    assert chunk.info["server_timing"]["infer_ms"] > 0 and chunk.displacements == (0, 2)
    for name, value in vars(SEEN).items():
        np.testing.assert_equal(vars(arrived)[name], value, name)


def test_whose_fault_it_is() -> None:
    asked = service(Echo())
    with (
        Server(asked, dialects(), greeting=greeting(asked.policies)) as running,
        RemotePolicy(running.url) as policy,
    ):
        for wrong, error, said in (
            (replace(SEEN, images={}), BadInput, "'images/image'"),
            (replace(SEEN, embodiment="arm"), BadInput, "robot 'arm' is unknown"),
            (replace(SEEN, proprio=np.full(8, np.nan, np.float32)), BadInput, "finite"),
            (replace(SEEN, steps=0), BadInput, "'steps': expected an integer from 1"),
            (replace(SEEN, instruction="break"), PolicyFailed, "ZeroDivisionError"),
        ):
            with pytest.raises(error, match=said):
                policy.act([wrong])
        with pytest.raises(BadInput, match="policy 'other' is not served here"):
            RemotePolicy(running.url, policy="other").reset()
        policy.act([SEEN])
