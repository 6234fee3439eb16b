"""A Ray cluster of several nodes: what comes of work there is what comes of it here."""

from __future__ import annotations

import json
import os
import sys
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from wamkit_client.envs.foreign import PYTHON_VARIABLE
from wamkit_client.types import BadInput

from tests.client.toy import toy_suite
from tests.cluster.nodes import SMALL, door
from tests.stages.test_collect import CONFIG, SUITE, columns, same
from tests.test_bad_input import record
from wamkit.cli import main
from wamkit.data import filling
from wamkit.data.cache import fill
from wamkit.eval.evaluate import RESULTS, read_results
from wamkit.io.weights import WEIGHTS
from wamkit.recipes import recipe
from wamkit.stages import cost, encode_on_cluster
from wamkit.stages import run as stages
from wamkit.stages.collect import collect
from wamkit.stages.compare import COMPARISON, compare
from wamkit.stages.rows import Comparison
from wamkit.stages.simulators import simulators

pytestmark = pytest.mark.scale

PRETRAINED = Path(__file__).parents[2] / "pretrained" / "metaworld3"
WAITING = ("--env", "tests.client.waiting:make", "--episodes", "6")
TIMES = {"query_ms", "query_call", "latency", "started", "seconds"}
"""What no two evaluations have in common: times, and which of the policy's calls came first."""


def without_times(value: Any) -> Any:
    """A JSON value without what is measured by the clock."""
    if type(value) is dict:
        return {name: without_times(one) for name, one in value.items() if name not in TIMES}
    return [without_times(one) for one in value] if type(value) is list else value


def files(folder: Path) -> dict[str, bytes]:
    """Everything below a folder."""
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


def expect_same_evaluation(one: Path, other: Path, resumed: bool = False) -> None:
    """But for times. resumed: the first was interrupted."""
    first, second = (read_results(folder / RESULTS) for folder in (one, other))
    assert bool(first.pop("resumed")) == resumed and not second.pop("resumed")
    assert json.dumps(without_times(first)) == json.dumps(without_times(second))
    recordings = [files(folder / "episodes") for folder in (one, other)]
    assert recordings[0] == recordings[1] and recordings[0]


def test_a_collection_has_the_same_files(nodes: Any, tmp_path: Path) -> None:
    collect(SUITE, tmp_path / "ray", replace(CONFIG, workers=3), simulators(nodes.address))
    collect(SUITE, tmp_path / "here", CONFIG)
    assert same(tmp_path / "ray", tmp_path / "here")
    for name in ("data", "videos"):
        assert files(tmp_path / "ray" / name) == files(tmp_path / "here" / name)


def test_a_machine_outside_the_cluster_sees_the_same(nodes: Any, tmp_path: Path) -> None:
    """Through the door for clients, ray://."""
    collect(SUITE, tmp_path / "ray", CONFIG, simulators(door(nodes)))
    collect(SUITE, tmp_path / "here", CONFIG)
    assert same(tmp_path / "ray", tmp_path / "here")


def test_a_simulator_in_another_python(nodes: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(PYTHON_VARIABLE, "")  # what the command sets is taken back
    words = ["collect", "metaworld:window-open", "--episodes", "1"]
    assert main([*words, "--out", str(tmp_path / "here")]) == 0
    words += ["--simulator-python", sys.executable, "--ray", nodes.address]
    assert main([*words, "--out", str(tmp_path / "ray")]) == 0
    assert os.environ[PYTHON_VARIABLE] == sys.executable
    assert files(tmp_path / "ray" / "videos") == files(tmp_path / "here" / "videos")
    assert columns(tmp_path / "ray") == columns(tmp_path / "here")


def test_a_crash_of_the_simulator_is_told_as_here(nodes: Any, tmp_path: Path) -> None:
    config = replace(CONFIG, workers=1)
    said = []
    for where in ("", nodes.address):
        with pytest.raises(BadInput) as told:
            collect(toy_suite("raise"), tmp_path / f"at{bool(where)}", config, simulators(where))
        said.append(str(told.value))
    assert said[0] == said[1] and "ZeroDivisionError" in said[0]


def evaluated(out: Path, *words: str) -> Path:
    """The folder of an evaluation of the published demo policy."""
    assert main(["eval", str(PRETRAINED), "--out", str(out), *words]) == 0
    return out


def test_an_evaluation_has_the_same_results(nodes: Any, tmp_path: Path) -> None:
    words = ("--suite", "metaworld3_smoke", "--eval.processes", "2")
    there = evaluated(tmp_path / "ray", *words, "--ray", nodes.address)
    expect_same_evaluation(there, evaluated(tmp_path / "here", *words))


@pytest.mark.parametrize("batched", ["False", "True"])
def test_an_engine_on_a_gpu_answers_for_all(nodes: Any, tmp_path: Path, batched: str) -> None:
    """Ray counts a GPU that PyTorch does not see, so that the engine computes on the processor."""
    words = (*WAITING, "--eval.processes", "2", "--eval.batched", batched)
    gpu = nodes.add_node(**SMALL, num_cpus=1, num_gpus=1)
    try:
        there = evaluated(tmp_path / "ray", *words, "--ray", nodes.address)
    finally:
        nodes.remove_node(gpu)
    here = evaluated(tmp_path / "here", *words)
    if batched == "False":  # else the last bits of chunks depend on who asks at the same time
        expect_same_evaluation(there, here)
    ends = [
        [(row["seed"], row["status"], row["steps"]) for row in read_results(folder / RESULTS)["episodes"]]
        for folder in (there, here)
    ]
    assert ends[0] == ends[1] and len(ends[0]) == 6


@pytest.fixture
def small_shards(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of eight samples, so that a small dataset has several."""
    monkeypatch.setattr(filling, "SHARD", 8)
    monkeypatch.setattr(encode_on_cluster, "SHARD", 8)
    monkeypatch.setattr(stages, "fill", partial(fill, shard_size=8))


@pytest.mark.usefixtures("small_shards")
def test_a_cache_has_the_same_shards(nodes: Any, tmp_path: Path) -> None:
    run, data = recipe("metaworld3"), record(tmp_path / "data")
    encode_on_cluster.encode(nodes.address, run, [data], tmp_path / "ray")
    stages.encode(run, [data], tmp_path / "here", torch.device("cpu"))
    assert files(tmp_path / "ray") == files(tmp_path / "here") and len(files(tmp_path / "here")) == 1 + 2 * 6
    encode_on_cluster.encode("127.0.0.1:1", run, [data], tmp_path / "ray")  # finished: nobody is asked


def test_a_comparison_has_the_same_rows(nodes: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("QUERY_ROUNDS", "STEP_ROUNDS"):
        monkeypatch.setattr(cost, name, 1)
    data, small = record(tmp_path / "data"), {"steps": 2, "warmup_steps": 2, "batch_size": 4}
    runs = tuple(
        replace(
            run,
            suite="tests.client.waiting:make",
            train=replace(run.train, **small),
            eval=replace(run.eval, processes=1),
        )
        for run in map(recipe, ("metaworld3", "metaworld3_no_video"))
    )
    found = []
    for where, address in (("ray", nodes.address), ("here", "")):
        asked = Comparison(runs, (0,), (data,), tmp_path / where / "cache", tmp_path / where / "out", 2)
        assert compare(asked, "as told", address)
        found.append(asked)
    one, other = found
    for first, second in zip(one.rows, other.rows, strict=True):
        assert (first.folder / WEIGHTS).read_bytes() == (second.folder / WEIGHTS).read_bytes()
        evaluations = [row.results(one.suite.name).parent for row in (first, second)]
        expect_same_evaluation(*evaluations)
    assert files(one.cache) == files(other.cache)
    pages = [without_times(json.loads((asked.out / COMPARISON).read_text())) for asked in found]
    for page in pages:
        assert page.pop("cost")
        for arm in page["arms"]:
            assert arm.pop("step_seconds")
    assert pages[0] == pages[1]
