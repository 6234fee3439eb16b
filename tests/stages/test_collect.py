"""Collecting demonstrations: what is kept, in which order, and what survives a kill."""

from __future__ import annotations

import json
import os
import shutil
import signal
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from wamkit_client import suites
from wamkit_client.envs.base import InitialState
from wamkit_client.suites import suite
from wamkit_client.types import BadInput

from tests.client.toy import MENDED, toy_suite
from tests.processes import Running
from wamkit.cli import main
from wamkit.data.lerobot.dataset import Dataset
from wamkit.data.lerobot.writer import Writer
from wamkit.io.files import AGAIN, LOCK
from wamkit.stages.collect import CollectConfig, collect

SUITE = toy_suite("reach", "refuse")
CONFIG = CollectConfig(episodes=5, workers=2, steps_after_success=3)


def columns(folder: Path) -> list[tuple[object, ...]]:
    data = Dataset.open(folder)
    extras = zip(data.episode_column("initial_state"), data.episode_column("success_step"), strict=True)
    return [
        (
            data.instruction(index, 0),
            *extra,
            data.column("action", index).tobytes(),
            data.column("observation.state", index).tobytes(),
        )
        for index, extra in enumerate(extras)
    ]


def same(one: Path, other: Path) -> bool:
    """The same episodes, pictures too, to the bit."""
    first, second = Dataset.open(one), Dataset.open(other)
    pictures = (
        [data.frames("eye", index, [0, 5]) for data in (first, second)]
        for index in range(len(first.episodes))
    )
    return columns(one) == columns(other) and all(np.array_equal(a, b) for a, b in pictures)


def test_the_dataset_holds_the_first_successes_of_each_task(tmp_path: Path) -> None:
    facts = collect(SUITE, tmp_path / "data", CONFIG)
    data = Dataset.open(tmp_path / "data")
    assert (data.robot_type, data.fps) == ("toy_hand", 10)
    states = [InitialState.from_json(json.loads(text)) for text in data.episode_column("initial_state")]
    assert [state.seed for state in states] == [
        0,
        1,
        2,
        3,
        4,
        0,
        1,
        3,
        4,
        6,
    ]  # every third expert of "refuse" fails
    assert [state.task for state in states] == ["reach"] * 5 + ["refuse"] * 5
    assert [data.instruction(index, 0) for index in (0, 9)] == ["please reach", "please refuse"]
    assert {name: task["discarded"] for name, task in facts["tasks"].items()} == {"reach": 0, "refuse": 2}
    for index, success_step in enumerate(data.episode_column("success_step")):
        actions = data.column("action", index)
        assert len(actions) == success_step + 3
        moved = np.diff(data.column("observation.state", index).reshape(-1))
        np.testing.assert_allclose(moved, 0.05 * actions.reshape(-1)[:-1], atol=1e-6)
    assert json.loads((tmp_path / "data" / "collection.json").read_text()) == facts


def test_episodes_do_not_depend_on_workers(tmp_path: Path) -> None:
    for workers in (1, 3):
        collect(SUITE, tmp_path / str(workers), replace(CONFIG, workers=workers))
    assert same(tmp_path / "1", tmp_path / "3")


COLLECT = """
import sys
from pathlib import Path
from tests.stages.test_collect import CONFIG, SUITE
from wamkit.stages.collect import collect
if __name__ == "__main__":
    collect(SUITE, Path(sys.argv[1]), CONFIG)
"""


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT])
def test_a_killed_collection_goes_on_where_it_was(tmp_path: Path, number: signal.Signals) -> None:
    script, folder = tmp_path / "script.py", tmp_path / "killed"
    script.write_text(COLLECT)
    fourth = "*/.staging/episode-000003"
    assert Running(["python", str(script), str(folder)], tmp_path, fourth, number).end().status != 0
    kept = len(list(folder.glob(".staging/episode-*[0-9]")))
    assert 3 <= kept < 10
    collect(SUITE, folder, CONFIG)
    collect(SUITE, tmp_path / "whole", CONFIG)
    assert same(folder, tmp_path / "whole")


def test_two_collections_in_one_folder(tmp_path: Path) -> None:
    """The second is refused at once, and finds what the first has done."""
    script, folder = tmp_path / "script.py", tmp_path / "shared"
    script.write_text(COLLECT)
    first = Running(["python", str(script), str(folder)], tmp_path, "*/.staging/episode-000000")
    first.until_stopped()
    with pytest.raises(BadInput, match="shared: another process records here"):
        collect(SUITE, folder, CONFIG)
    first.send(signal.SIGCONT)
    assert first.end().status == 0
    facts = collect(SUITE, folder, CONFIG)
    assert facts["tasks"]["reach"]["episodes"] == len(Dataset.open(folder).episodes) / 2 == 5
    assert not (folder / LOCK).exists()


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A collection that nothing disturbed."""
    folder = tmp_path_factory.mktemp("whole") / "data"
    collect(SUITE, folder, CONFIG)
    return folder


def broken(folder: Path, how: str) -> None:
    """What two processes at a time left behind, of which none knew of the other."""
    staging = folder / ".staging"
    match how:
        case "an episode was renamed without its columns":
            (staging / "episode-000001" / "columns.parquet").unlink()
        case "an episode is missing":
            shutil.rmtree(staging / "episode-000001")
        case "one has removed what the other staged":
            shutil.rmtree(staging)
        case "one has removed what the other had moved":
            shutil.rmtree(staging)
            (folder / "data" / "chunk-000").mkdir(parents=True)
        case "the plan is half written":
            (staging / "plan.json").rename(staging / "plan.draft")


@pytest.mark.parametrize(
    "how",
    [
        "an episode was renamed without its columns",
        "an episode is missing",
        "one has removed what the other staged",
        "one has removed what the other had moved",
        "the plan is half written",
    ],
)
def test_what_two_collections_broke_is_mended(
    tmp_path: Path, whole: Path, monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    def killed(writer: Writer) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(Writer, "finalize", killed)
        with pytest.raises(KeyboardInterrupt):
            collect(SUITE, tmp_path / "data", CONFIG)
    broken(tmp_path / "data", how)
    collect(SUITE, tmp_path / "data", CONFIG)
    assert same(tmp_path / "data", whole)
    assert sorted(os.listdir(tmp_path / "data")) == ["collection.json", "data", "meta", "videos"]


def test_a_full_disk_is_one_message_and_the_same_command_resumes(
    whole: Path,
    disk: Callable[[str], Path],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setitem(suites.SUITES, "toys", SUITE)
    folder = disk("256k")
    filler = folder / "filler"
    filler.write_bytes(bytes(160 * 1024))
    words = ["collect", "toys", "--episodes", "5", "--out", str(folder / "data")]
    assert main(words) == 2
    said = " ".join(capsys.readouterr().err.split())
    assert "the disk is full" in said and AGAIN in said
    kept = len(list(folder.glob("data/.staging/episode-*[0-9]")))
    assert 1 <= kept < 10
    filler.unlink()
    assert main(words) == 0
    states = [Dataset.open(path).episode_column("initial_state") for path in (folder / "data", whole)]
    assert states[0] == states[1]


def test_a_finished_collection_is_left_alone(tmp_path: Path) -> None:
    small = replace(CONFIG, episodes=1)
    facts = collect(SUITE, tmp_path / "data", small)
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "data").rglob("*") if path.is_file()}
    assert collect(SUITE, tmp_path / "data", replace(small, workers=1)) == facts
    assert before == {
        path: path.stat().st_mtime_ns for path in (tmp_path / "data").rglob("*") if path.is_file()
    }


def test_another_request_is_refused(tmp_path: Path) -> None:
    collect(SUITE, tmp_path / "data", replace(CONFIG, episodes=1))
    with pytest.raises(BadInput, match="holds a collection with episodes = 1, asked for 2"):
        collect(SUITE, tmp_path / "data", replace(CONFIG, episodes=2))
    with pytest.raises(BadInput, match=r"holds a collection with tasks = .*choose another folder"):
        collect(toy_suite("reach"), tmp_path / "data", replace(CONFIG, episodes=1))


def test_a_folder_of_something_else_is_refused(tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("do not lose me")
    with pytest.raises(BadInput, match="not empty"):
        collect(SUITE, tmp_path, CONFIG)
    assert (tmp_path / "thesis.tex").exists()


def test_seeds_stay_away_from_the_evaluation(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="would reach the evaluation's"):
        collect(replace(SUITE, first_seed=10), tmp_path / "data", CONFIG)
    assert not (tmp_path / "data").exists()


def test_a_second_collection_has_other_episodes(tmp_path: Path) -> None:
    suite = toy_suite("reach")
    facts = [collect(suite, tmp_path / str(skip), CollectConfig(2, 1, skip=skip)) for skip in (0, 50)]
    first, second = (Dataset.open(tmp_path / str(skip)).episode_column("seed") for skip in (0, 50))
    assert min(second) >= 50 > max(first) and len(first) == len(second) == 2
    assert [own["request"]["first_seed"] for own in facts] == [0, 50]


def test_noise_that_lasts_is_asked_for_and_older_collections_say_nothing_of_it(tmp_path: Path) -> None:
    suite, lasting = toy_suite("reach"), CollectConfig(1, 1, noise=0.01, noise_seconds=0.5)
    assert "noise_seconds" not in collect(suite, tmp_path / "plain", CollectConfig(1, 1))["request"]
    assert collect(suite, tmp_path / "lasting", lasting)["request"]["noise_seconds"] == 0.5
    with pytest.raises(BadInput, match=r"noise_seconds is set and collect\.noise is 0: say how strong"):
        CollectConfig(noise_seconds=0.5)
    with pytest.raises(
        BadInput, match=r"collect\.noise_seconds: expected a finite number, at least 0, got -1"
    ):
        CollectConfig(noise=0.1, noise_seconds=-1)
    pausing = replace(lasting, noise_pause_seconds=1.0)
    assert collect(suite, tmp_path / "pausing", pausing)["request"]["noise_pause_seconds"] == 1.0
    with pytest.raises(BadInput, match=r"noise_pause_seconds is set and collect\.noise_seconds is 0"):
        CollectConfig(noise=0.1, noise_pause_seconds=0.5)


def test_an_expert_that_keeps_failing_is_given_up(tmp_path: Path) -> None:
    hopeless = replace(toy_suite("reach"), max_steps=2)
    with pytest.raises(BadInput, match="expert of reach succeeded only 0 times from 20 initial states"):
        collect(hopeless, tmp_path / "data", CONFIG)
    assert not (tmp_path / "data").exists()


def test_a_crash_of_the_simulator_is_one_message_and_the_same_request_resumes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """It is no failed expert. Even seeds come before the crash; a mended simulator goes on behind them."""
    config, folder = replace(CONFIG, workers=1), tmp_path / "data"
    monkeypatch.setitem(suites.SUITES, "toys", toy_suite("raise"))
    words = ["collect", "toys", "--workers", "1", "--episodes", "5", "--out", str(folder)]
    assert main(words) == 2
    said = capsys.readouterr().err
    assert said.startswith(
        "error: raise, seed 1: the simulator crashed: ZeroDivisionError: the toy broke (File "
    )
    assert f"Finished episodes are kept; {AGAIN}" in said and said.count("\n") == 1
    assert len(Writer.resume(folder).staged) == 1
    with pytest.raises(BadInput, match="the simulator crashed: the environment's process died"):
        collect(toy_suite("die"), tmp_path / "died", config)
    monkeypatch.setenv(MENDED, "yes")
    assert main(words) == 0
    states = [json.loads(text) for text in Dataset.open(folder).episode_column("initial_state")]
    assert [state["seed"] for state in states] == [0, 1, 2, 3, 4]


def test_real_demonstrations(tmp_path: Path) -> None:
    facts = collect(suite("metaworld:window-open"), tmp_path / "data", CollectConfig(episodes=2))
    data = Dataset.open(tmp_path / "data")
    assert (data.robot_type, data.fps, len(data.episodes)) == ("metaworld_sawyer", 80, 2)
    assert set(data.cameras) == {"corner2", "gripperPOV"}
    assert facts["request"]["simulator"]["versions"]["mujoco"] == "3.3.0"
    actions = data.column("action", 0)
    assert actions.shape[1] == 4 and np.abs(actions).max() <= 1 and 80 < len(actions) < 120
    assert data.instruction(1, 0) == "Push and open a window"
