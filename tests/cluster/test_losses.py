"""Nodes that are killed, drivers that are killed or interrupted: nothing is lost, and nothing is there twice."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from pathlib import Path
from threading import Event, Thread
from typing import Any

import pytest
from wamkit_client.types import BadInput

from tests.cluster.nodes import SMALL
from tests.cluster.slow import CONFIG, SUITE, compared
from tests.cluster.test_cluster import PRETRAINED, evaluated, expect_same_evaluation
from tests.processes import Running
from tests.stages.test_collect import same
from tests.test_bad_input import record
from tests.until import until
from wamkit.cluster.actors import Kind, actors
from wamkit.cluster.connect import connected
from wamkit.cluster.tasks import tasks
from wamkit.data.lerobot.dataset import Dataset
from wamkit.io.files import AGAIN
from wamkit.io.interrupt import stop_request, stopped
from wamkit.io.jobs import done
from wamkit.io.weights import WEIGHTS
from wamkit.stages import cost
from wamkit.stages.collect import collect
from wamkit.stages.simulators import simulators

pytestmark = pytest.mark.scale

COLLECT = """
import sys
from tests.cluster.slow import main
if __name__ == "__main__":
    main(*sys.argv[1:])
"""
SLOW = (
    "--env",
    "tests.cluster.slow_robot:make",
    "--episodes",
    "8",
    "--eval.processes",
    "3",
    "--eval.record-episodes",
    "8",
)


def killing(nodes: Any, holds: Callable[[], object]) -> Thread:
    """Adds a third node, which is killed once it holds. To be joined."""
    third = nodes.add_node(**SMALL, num_cpus=1)

    def kill() -> None:
        until(holds)
        nodes.remove_node(third, allow_graceful=False)

    thread = Thread(target=kill)
    thread.start()
    return thread


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The collection as this machine makes it."""
    folder = tmp_path_factory.mktemp("undisturbed") / "data"
    collect(SUITE, folder, CONFIG)
    return folder


@pytest.fixture(scope="module")
def measured(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The evaluation as this machine makes it."""
    return evaluated(tmp_path_factory.mktemp("measured") / "here", *SLOW)


def test_a_collection_outlives_a_node(
    nodes: Any, tmp_path: Path, undisturbed: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "data"
    killer = killing(nodes, (folder / ".staging" / "episode-000002").exists)
    collect(SUITE, folder, CONFIG, simulators(nodes.address))
    killer.join()
    assert same(folder, undisturbed)
    assert "its worker is lost" in capsys.readouterr().out
    keys = list(
        zip(*(Dataset.open(folder).episode_column(name) for name in ("task_name", "seed")), strict=True)
    )
    assert len(set(keys)) == len(keys) == 16


def test_an_evaluation_outlives_a_node(
    nodes: Any, tmp_path: Path, measured: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    partial = tmp_path / "ray" / "results.partial.jsonl"
    killer = killing(nodes, lambda: partial.exists() and partial.read_text().count("\n") >= 3)
    evaluated(tmp_path / "ray", *SLOW, "--ray", nodes.address)
    killer.join()
    assert "its worker is lost" in capsys.readouterr().out
    expect_same_evaluation(tmp_path / "ray", measured)


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT])
def test_the_same_command_goes_on_where_it_was(
    nodes: Any, tmp_path: Path, undisturbed: Path, number: signal.Signals
) -> None:
    script, folder = tmp_path / "script.py", tmp_path / "data"
    script.write_text(COLLECT)
    words = ["python", str(script), str(folder), nodes.address]
    ended = Running(words, tmp_path, "*/.staging/episode-000003", number).end()
    assert ended.status != 0
    kept = len(list(folder.glob(".staging/episode-*[0-9]")))
    assert 3 <= kept < 16
    if number == signal.SIGINT:
        assert "KeyboardInterrupt" in ended.err and AGAIN in ended.err
    collect(SUITE, folder, CONFIG, simulators(nodes.address))
    assert same(folder, undisturbed)


def test_an_evaluation_goes_on_after_its_driver_was_killed(
    nodes: Any, tmp_path: Path, measured: Path
) -> None:
    words = ["eval", str(PRETRAINED), "--out", str(tmp_path / "ray"), *SLOW, "--ray", nodes.address]
    fourth = "*/episodes/*_1000003.npz.*"
    assert Running(["wamkit", *words], tmp_path, fourth, signal.SIGKILL).end().status == -signal.SIGKILL
    assert (tmp_path / "ray" / "results.partial.jsonl").exists()
    evaluated(tmp_path / "ray", *SLOW, "--ray", nodes.address)
    expect_same_evaluation(tmp_path / "ray", measured, resumed=True)


COMPARE = """
import sys
from pathlib import Path
from tests.cluster.slow import compared
if __name__ == "__main__":
    compared(Path(sys.argv[1]), "ray", sys.argv[2])
"""


def test_a_comparison_goes_on_after_its_driver_was_killed(
    nodes: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The row is at work on a node at that moment, and ends with its driver."""
    for name in ("QUERY_ROUNDS", "STEP_ROUNDS"):
        monkeypatch.setattr(cost, name, 1)
    record(tmp_path / "data")
    script = tmp_path / "script.py"
    script.write_text(COMPARE)
    first = Running(["python", str(script), str(tmp_path), nodes.address], tmp_path)
    until((tmp_path / "ray" / "out" / "metaworld3_seed0" / "run.json").exists)
    first.send(signal.SIGKILL)
    assert first.end().status == -signal.SIGKILL
    there, here = compared(tmp_path, "ray", nodes.address), compared(tmp_path, "here", "")
    assert there and here
    [one], [other] = there.rows, here.rows
    assert (one.folder / WEIGHTS).read_bytes() == (other.folder / WEIGHTS).read_bytes()
    expect_same_evaluation(*(row.results(there.suite.name).parent for row in (one, other)))


class Fatal:
    """Work whose process dies at the first job of a name; `folder` remembers."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __call__(self, name: str) -> str:
        if name == "always" or not (self.folder / name).exists():
            (self.folder / name).touch()
            os._exit(1)
        return name


def test_a_job_whose_worker_dies_is_begun_again_but_not_for_ever(
    nodes: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("wamkit.cluster.actors.LOST", 2)
    with connected(nodes.address) as needs:
        kind = Kind(lambda: Fatal(tmp_path), needs, {"num_cpus": 1})
        with actors(kind, 2) as workers:
            assert sorted(done(workers, {name: (name,) for name in "abc"}, Event())) == ["a", "b", "c"]
            with pytest.raises(BadInput, match="always: lost with its worker 2 times"):
                list(done(workers, {"always": ("always",)}, Event()))


def interrupted(folder: Path) -> None:
    """Work that notices Ctrl-C between two steps, as training does, and keeps what it has."""
    with stop_request("something is kept") as stop:
        (folder / "begun").touch()
        while not stop.is_set():
            time.sleep(0.05)
        (folder / "kept").touch()
        raise stopped("something is kept")


def test_tasks_are_interrupted_as_by_ctrl_c_and_may_keep_what_they_have(nodes: Any, tmp_path: Path) -> None:
    with connected(nodes.address) as needs, tasks(interrupted, needs, {"num_cpus": 1}, 1) as workers:
        workers.begin("job", tmp_path)
        until((tmp_path / "begun").exists)
    assert (tmp_path / "kept").exists()


def test_a_task_whose_worker_dies_is_begun_again(nodes: Any, tmp_path: Path) -> None:
    with connected(nodes.address) as needs, tasks(Fatal(tmp_path), needs, {"num_cpus": 1}, 1) as workers:
        assert list(done(workers, {"a": ("a",)}, Event())) == ["a"]
