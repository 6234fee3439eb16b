"""`wamkit eval --server`: what a served policy does is recorded like what it does in this process."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from wamkit_client.client import RemotePolicy
from wamkit_client.codec import pack
from wamkit_client.envs.base import InitialState

from tests.tiny_dataset import RUN, write
from wamkit.cli import main
from wamkit.config import load_run
from wamkit.eval.evaluate import EvalConfig
from wamkit.serve.dialects.base import Service
from wamkit.serve.dialects.openpi import metadata
from wamkit.serve.scheduler import Scheduler
from wamkit.serve.served import Policies
from wamkit.serve.server import Server
from wamkit.stages.run import NO_FILE, best_device, train
from wamkit.stages.serving import dialects, load_served

WALKER = '''"""The hand goes where the actions say, and the camera sees it."""

import numpy as np
from wamkit_client.envs.base import Env, InitialState, StepResult, Task
from wamkit_client.types import Observation


class Walker(Env):
    embodiment = "robot"
    control_hz = 10.0
    max_steps = 12
    action_names = ("x", "grip")
    proprio_names = ("x", "y", "z")
    view_names = ("front", "wrist")
    task = Task("push", "push the square 0")

    def reset(self, seed):
        self.at = np.random.default_rng(seed).normal(size=2)
        self.steps = 0
        return InitialState(self.task.name, seed, tuple(self.at))

    def observe(self):
        image = np.full((24, 40, 3), int(255 * abs(np.sin(self.at[0]))), np.uint8)
        proprio = np.array([*self.at, self.steps], np.float32)
        return Observation({"front": image, "wrist": image[::-1]}, proprio, self.task.instruction, self.embodiment)

    def step(self, action):
        self.at = self.at + action
        self.steps += 1
        return StepResult(success=bool(self.steps >= 5 + int(20 * abs(self.at[0])) % 6), done=False)

    def idle_action(self, last):
        return np.zeros(2)
'''


@pytest.fixture(scope="module")
def run_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("served")
    run = replace(RUN, suite="", eval=EvalConfig(replan_steps=3, processes=1))
    train(run, [write(root / "dataset", [9, 9])], NO_FILE, root / "run", best_device())
    return root / "run"


@pytest.fixture(scope="module")
def env(tmp_path_factory: pytest.TempPathFactory) -> str:
    file = tmp_path_factory.mktemp("env") / "walker.py"
    file.write_text(WALKER)
    return f"{file}:Walker"


@pytest.fixture(scope="module")
def server(run_dir: Path) -> Iterator[Server]:
    served = load_served("walker", run_dir, load_run(run_dir))
    service = Service(Policies(served), Scheduler())
    with Server(service, dialects(), greeting=lambda: pack(metadata(service.policies))) as running:
        yield running


def words_of(server: Server, env: str, *words: object) -> list[str]:
    return ["eval", "--server", server.url, "--env", env, *map(str, words)]


@pytest.fixture(scope="module")
def served(server: Server, env: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Results of three episodes."""
    out = tmp_path_factory.mktemp("results") / "served"
    assert main(words_of(server, env, "--episodes", 3, "--out", out)) == 0
    return out


def read(folder: Path) -> dict[str, Any]:
    results: dict[str, Any] = json.loads((folder / "results.json").read_text())
    return results


def same(served: Path, local: Path) -> None:
    """Everything that was recorded, but times and where the policy ran."""
    here, there = read(local), read(served)
    assert len(here["episodes"]) == 3 and len({row["steps"] for row in here["episodes"]}) > 1
    for ours, theirs in zip(here["episodes"], there["episodes"], strict=True):
        for measured in ("query_ms", "query_call", "query_batch"):
            assert len(ours.pop(measured)) == len(theirs.pop(measured)) > 1
        assert ours == theirs
        if ours["recording"]:
            recorded, again = (np.load(folder / ours["recording"]) for folder in (local, served))
            assert recorded["action"].any()
            for name in recorded.files:
                np.testing.assert_array_equal(recorded[name], again[name], name)
    assert here["episodes"][0]["recording"]
    assert {"machine", "revision", "versions"} == there["policy"].pop("served").keys()
    for section in ("suite", "config", "policy", "simulator", "tasks", "total", "demonstrated"):
        assert there[section] == here[section], section


def test_results_equal_the_local_ones_episode_by_episode(
    run_dir: Path, env: str, served: Path, tmp_path: Path
) -> None:
    assert main(["eval", str(run_dir), "--env", env, "--episodes", "3", "--out", str(tmp_path)]) == 0
    same(served, tmp_path)


def test_so_they_do_where_the_robot_moves_on_while_it_asks(
    run_dir: Path, env: str, server: Server, tmp_path: Path
) -> None:
    delayed = ("--episodes", "3", "--eval.executor", "async", "--eval.delay-ms", "200", "--out")
    assert main(words_of(server, env, *delayed, tmp_path / "served")) == 0
    assert main(["eval", str(run_dir), "--env", env, *delayed, str(tmp_path / "local")]) == 0
    same(tmp_path / "served", tmp_path / "local")


def test_it_is_repeated(server: Server, served: Path, tmp_path: Path, capsys: Any) -> None:
    again = ["--server", server.url, "--like", str(served / "results.json"), "--out", str(tmp_path)]
    assert main(["eval", *again]) == 0
    assert "every episode ended as before" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--eval.engine", "plain"), "--eval.engine: the server decides that"),
        (("--precision", "bf16"), "--eval.precision: the server decides that"),
        (("--data.hz", "5"), "the server decides that"),
        (("--served", "arm"), "policy 'arm' is not served here; known: walker"),
        (("--robotwin", "checkout"), "omit --robotwin"),
    ],
)
def test_what_is_the_servers(
    server: Server, env: str, tmp_path: Path, capsys: Any, words: Any, said: str
) -> None:
    assert main(words_of(server, env, "--episodes", 1, "--out", tmp_path / "out", *words)) == 2
    assert said in capsys.readouterr().err
    assert not (tmp_path / "out" / "results.json").exists()


def test_what_is_missing(server: Server, env: str, capsys: Any) -> None:
    assert main(["eval", "--server", server.url, "--env", env]) == 2
    assert "--out is missing" in capsys.readouterr().err
    with pytest.raises(SystemExit, match="2"):
        main(["eval", "--env", env])
    assert "Missing from wamkit eval: RUN" in " ".join(capsys.readouterr().err.replace("│", " ").split())


def test_a_server_that_is_gone(
    env: str, tmp_path: Path, capsys: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(RemotePolicy.__init__, "__defaults__", ("", "", 60.0, 0.1, 0.1))
    words = ["--server", "ws://127.0.0.1:9", "--env", env, "--out", str(tmp_path)]
    assert main(["eval", *words]) == 2
    error = " ".join(capsys.readouterr().err.split())
    assert "no connection" in error and "the same command goes on" in error


def test_demonstrated_states_are_known(
    server: Server, env: str, served: Path, tmp_path: Path, capsys: Any
) -> None:
    """No episode may begin from a state that the server's policy was trained on."""
    row = read(served)["episodes"][0]
    state = InitialState(row["task"], 7, tuple(row["vector"]))
    (one,) = server.service.policies.all
    facts = one.facts
    said = json.loads(facts.about) | {"demonstrated": [state.to_json()]}
    one.facts = replace(facts, about=json.dumps(said))
    try:
        assert main(words_of(server, env, "--episodes", 1, "--out", tmp_path)) == 2
    finally:
        one.facts = facts
    assert "demonstrat" in capsys.readouterr().err
