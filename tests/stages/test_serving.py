"""`wamkit serve` as a process: what it answers, what signals do to it, and what it refuses to begin."""

from __future__ import annotations

import http.client
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.torch import load_file, save_file
from wamkit_client.codec import pack, unpack
from wamkit_client.types import BadInput, Observation
from websockets.exceptions import ConnectionClosedOK
from websockets.sync.client import ClientConnection, connect

from tests.tiny_dataset import write
from tests.until import SECONDS, until
from wamkit import load_policy
from wamkit.cli import main
from wamkit.config import load_run
from wamkit.data.joined import open_datasets
from wamkit.io.weights import WEIGHTS
from wamkit.stages.bring_up import dummy, replay
from wamkit.stages.serving import Source, first_sizes, load_served, reloaded, warm_up

PRETRAINED = Path(__file__).parents[2] / "pretrained" / "metaworld3"
RNG = np.random.default_rng(0)
SEEN = Observation(
    {view: RNG.integers(0, 255, (64, 64, 3), np.uint8) for view in ("corner2", "gripperPOV")},
    np.array([0.1, 0.6, 0.2, 1.0], np.float32),
    "open the drawer",
    "metaworld_sawyer",
    noise_seed=3,
)
QUESTION = {"images": SEEN.images, "state": SEEN.proprio, "prompt": SEEN.instruction, "seed": SEEN.noise_seed}


@dataclass(frozen=True)
class Serving:
    """A running `wamkit serve`. said: what it has printed."""

    process: subprocess.Popen[str]
    address: str
    run: Path

    def page(self, path: str) -> tuple[int, str]:
        connection = http.client.HTTPConnection(self.address.removeprefix("ws://"), timeout=30)
        connection.request("GET", path)
        response = connection.getresponse()
        return response.status, response.read().decode()

    def said(self) -> str:
        """The next line."""
        assert self.process.stdout
        return self.process.stdout.readline().strip()


@contextmanager
def begun(folder: Path) -> Iterator[Serving]:
    """Of a link to a run, which may lead elsewhere later, and of the run under its own name."""
    (folder / "run").symlink_to(PRETRAINED)
    words = ["serve", f"a={folder / 'run'}", str(PRETRAINED), "--port", "0", "--device", "cpu"]
    command = [sys.executable, "-m", "wamkit.cli", *words]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert process.stdout
    said = process.stdout.readline()
    try:
        assert said.startswith("serving a, metaworld3 at ws://127.0.0.1:"), said
        yield Serving(process, said.split()[-1], folder / "run")
    finally:
        process.kill()
        process.wait()


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[], Serving]]:
    with ExitStack() as all_begun:
        found: list[Serving] = []

        def one() -> Serving:
            if not found or found[-1].process.poll() is not None:
                found.append(all_begun.enter_context(begun(tmp_path_factory.mktemp("served"))))
            return found[-1]

        yield one


@pytest.fixture
def serving(running: Callable[[], Serving]) -> Serving:
    """The server of these tests, and a new one where a test has ended it."""
    return running()


def asked(connection: ClientConnection, **more: object) -> dict[str, Any]:
    connection.send(pack({**QUESTION, "request_id": 1, **more}))
    found = unpack(connection.recv(timeout=60))
    assert isinstance(found, dict)
    return found


def test_answers_are_those_of_the_policy_in_this_process(serving: Serving) -> None:
    expected = load_policy(PRETRAINED).act([SEEN])[0].actions
    with connect(serving.address) as one:
        told = unpack(one.recv(timeout=30))
        assert (told["policy"], list(told["policies"]), told["state_dim"]) == ("a", ["a", "metaworld3"], 4)
        for name in ("a", "metaworld3"):
            answer = asked(one, policy=name)
            assert answer["policy"] == name
            np.testing.assert_array_equal(answer["actions"], expected)
            assert answer["server_timing"]["blocks_ms"] > 0
        assert "camera" not in asked(one)
        wrong = asked(one, images={"corner2": SEEN.images["corner2"]})["error"]
        assert wrong["reason"] == "bad_request" and "'images/gripperPOV'" in wrong["message"]


def test_pages(serving: Serving) -> None:
    with connect(serving.address) as one:
        one.recv(timeout=30)
        assert "actions" in asked(one) and "error" in asked(one, images={})
    until(lambda: "wamkit_connections 0.0" in serving.page("/metrics")[1])
    assert serving.page("/readyz") == (200, "ready\n")
    assert '"action_horizon": 16' in serving.page("/")[1]
    status, text = serving.page("/metrics")
    assert status == 200
    for line in (
        'wamkit_request_seconds_count{dialect="openpi"}',
        'wamkit_refused_total{dialect="openpi",reason="bad_request"}',
        'wamkit_stage_seconds_count{policy="a",stage="codec"}',
        'wamkit_batch_observations_bucket{le="1.0",policy="a"}',
        "process_resident_memory_bytes",
    ):
        assert line in text, line


def test_another_run_takes_the_place_of_one_that_is_served(serving: Serving, tmp_path: Path) -> None:
    """Its connections stay; a run that cannot be used, or is of another robot, does not get in."""
    other = tmp_path / "other"
    shutil.copytree(PRETRAINED, other)
    weights = {name: tensor * 1.5 for name, tensor in load_file(other / WEIGHTS).items()}
    save_file(weights, other / WEIGHTS)
    with connect(serving.address) as one:
        one.recv(timeout=30)
        before = asked(one)["actions"]
        lead(serving, other)
        assert serving.said() == f"a was loaded anew from {serving.run}"
        assert serving.said().startswith("metaworld3 was loaded anew")
        after = asked(one)["actions"]
        assert not np.array_equal(before, after)
        np.testing.assert_array_equal(after, load_policy(other).act([SEEN])[0].actions)
        lead(serving, tmp_path / "nothing")
        assert serving.said().startswith("a stays as it was: ") and "loaded anew" in serving.said()
        np.testing.assert_array_equal(asked(one)["actions"], after)
        lead(serving, PRETRAINED)
        assert serving.said().startswith("a was loaded anew") and "loaded anew" in serving.said()
        np.testing.assert_array_equal(asked(one)["actions"], before)
    assert 'wamkit_reloads_total{done="false",policy="a"} 1.0' in serving.page("/metrics")[1]


def lead(serving: Serving, where: Path) -> None:
    """Let the link lead there, at once, and tell the server."""
    fresh = serving.run.with_name("fresh")
    fresh.symlink_to(where)
    fresh.rename(serving.run)
    serving.process.send_signal(signal.SIGHUP)


def test_it_ends_when_it_is_told_to(serving: Serving) -> None:
    """What was asked is answered, and connections are closed in form."""
    with connect(serving.address) as one:
        one.recv(timeout=30)
        one.send(pack({"observations": [QUESTION] * 64, "request_id": "last"}))
        assert "error" in asked(one, images={})  # so the one before has been read
        serving.process.send_signal(signal.SIGTERM)
        assert len(unpack(one.recv(timeout=60))["chunks"]) == 64
        with pytest.raises(ConnectionClosedOK, match="1001"):
            one.recv(timeout=30)
    assert serving.process.wait(SECONDS) == 0


def test_a_robot_is_brought_up_without_a_model(tmp_path: Path) -> None:
    run = load_run(PRETRAINED)
    still = dummy("still", PRETRAINED, run, (0.0, 0.0, 0.0, 1.0))
    assert (still.facts.kind, still.facts.robots[0].views) == ("dummy", run.data.views)
    np.testing.assert_array_equal(still.policy.act([SEEN])[0].actions, [[0, 0, 0, 1]] * run.data.horizon)
    dataset = write(tmp_path / "dataset", [5, 20], spec=run.data)
    played = replay("played", PRETRAINED, run, dataset, 1)
    warm_up(played, (1,))
    recorded = open_datasets([dataset])
    actions = recorded.rows("action", [recorded.episodes[1]])
    chunks = np.concatenate([played.policy.act([SEEN])[0].actions for _ in range(3)])
    np.testing.assert_array_equal(chunks[:20], actions)
    np.testing.assert_array_equal(
        chunks[20:], [[0, 0, 0, actions[-1, 3]]] * 4
    )  # stays, as padding in training
    with pytest.raises(BadInput, match="no episode 2; it has 2, from 0 to 1"):
        replay("played", PRETRAINED, run, dataset, 2)
    with pytest.raises(BadInput, match=r"actions \[4\] at 80 Hz, the run has \[4\] at 40 Hz"):
        replay("played", PRETRAINED, replace(run, data=replace(run.data, hz=40.0)), dataset, 1)
    with pytest.raises(BadInput, match=r"expected 4 finite numbers \(dx, dy, dz, gripper\), got 2"):
        dummy("still", PRETRAINED, run, (0.0, 1.0))


def test_what_is_warmed_up() -> None:
    run = load_run(PRETRAINED)
    assert first_sizes(run, 16) == (1,)
    compiled = replace(run, eval=replace(run.eval, engine="compiled"))
    assert first_sizes(compiled, 4) == (1, 2, 4) and first_sizes(compiled, 5) == (1, 2, 4, 8)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--host", "0.0.0.0"], "--host 0.0.0.0: whoever reaches this address could move the robot"),
        (["--keys", "missing"], "missing: the API keys cannot be read"),
        (["--tls-cert", "cert.pem"], "--tls-cert and --tls-key: give both"),
        (["--tls-cert", "a", "--tls-key", "b"], "cannot be used"),
        (["--map", "proprio=state"], "run.json is missing"),
        (["--dummy", "0", "1", "--replay", "dataset"], "--dummy and --replay: one of them answers"),
        (["--gr00t-actions", "arm=5"], "--gr00t-actions arm=5: expected NAME=FIRST:END"),
    ],
)
def test_what_it_refuses_to_begin(
    words: list[str], said: str, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    assert main(["serve", str(tmp_path), "--port", "0", *words]) == 2
    assert said in " ".join(capsys.readouterr().err.split())


def test_gr00ts_port_is_for_networks_that_are_trusted(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    keys = tmp_path / "keys"
    keys.write_text("robot a_key_0123456789abcdef\n")
    asked = ["--host", "0.0.0.0", "--keys", str(keys), "--gr00t-port", "1"]
    assert main(["serve", str(tmp_path), "--port", "0", *asked]) == 2
    assert "clients send keys and images unencrypted" in " ".join(capsys.readouterr().err.split())


def test_names_of_runs(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["serve", str(PRETRAINED), f"metaworld3={PRETRAINED}"]) == 2
    assert "'metaworld3' names both" in " ".join(capsys.readouterr().err.split())


def test_a_run_directory_that_is_replaced_is_not_looked_at_before_it_is_asked_for(tmp_path: Path) -> None:
    """Neither where another one takes its place, nor where its files are written over or go away."""
    run_dir, aside = tmp_path / "run", tmp_path / "aside"
    shutil.copytree(PRETRAINED, run_dir)
    source = Source(run_dir, lambda: load_served("a", run_dir, load_run(run_dir)), (1,))
    served = source.load()
    before = served.policy.act([SEEN])[0].actions
    run_dir.rename(aside)
    other = replace(SEEN, instruction="close the drawer")  # text that it has not seen
    expected = load_policy(PRETRAINED).act([other])[0].actions
    np.testing.assert_array_equal(served.policy.act([other])[0].actions, expected)
    shutil.copytree(aside, run_dir)
    (run_dir / WEIGHTS).write_bytes(b"half written")
    np.testing.assert_array_equal(served.policy.act([SEEN])[0].actions, before)
    with pytest.raises(BadInput, match=WEIGHTS):
        reloaded(served, source)
    weights = {name: tensor * 1.5 for name, tensor in load_file(aside / WEIGHTS).items()}
    save_file(weights, aside / WEIGHTS)  # over the file that was loaded
    np.testing.assert_array_equal(served.policy.act([SEEN])[0].actions, before)
    shutil.copyfile(aside / WEIGHTS, run_dir / WEIGHTS)
    assert not np.array_equal(reloaded(served, source).policy.act([SEEN])[0].actions, before)
