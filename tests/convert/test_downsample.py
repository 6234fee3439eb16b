"""A dataset at a lower rate: what each row is of, what is refused, and what an interruption leaves."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from wamkit_client.types import BadInput

from tests import tiny_dataset
from tests.data import recording
from tests.renamed import OPENPI, rename
from wamkit.cli import main
from wamkit.convert.downsample import Downsampling, downsample
from wamkit.data.actions import ActionSpace
from wamkit.data.check import check
from wamkit.data.lerobot.dataset import Dataset
from wamkit.data.lerobot.recorder import Recorder
from wamkit.recipes import recipe
from wamkit.stages.run import initial_states

SPACE = ActionSpace(("x", "y", "grip"), ("delta", "absolute", "gripper"))
HALF = Downsampling(2, SPACE)


@pytest.fixture(scope="module")
def recorded(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Do not change it."""
    return recording.write(tmp_path_factory.mktemp("recorded") / "dataset")


@pytest.fixture(scope="module")
def halved(recorded: Path, tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    out = tmp_path_factory.mktemp("halved") / "dataset"
    downsample(recorded, out, HALF)
    return Dataset.open(out)


def test_every_second_step(recorded: Path, halved: Dataset) -> None:
    source = Dataset.open(recorded)
    assert not check(halved.root)
    assert (halved.fps, halved.robot_type) == (5, "testbot-5hz")
    assert [episode.length for episode in halved.episodes] == [6, 5, 10]
    assert halved.features["action"]["names"] == ["x", "y", "grip"]
    for number, episode in enumerate(halved.episodes):
        columns = recording.columns(number, recording.LENGTHS[number])
        own = halved.column("observation.state", number)
        np.testing.assert_array_equal(own, columns["observation.state"][::2])
        given, made = columns["action"], halved.column("action", number)
        pairs = len(given) // 2
        np.testing.assert_allclose(made[:pairs, 0], given[: 2 * pairs, 0].reshape(-1, 2).sum(1), atol=1e-6)
        np.testing.assert_array_equal(made[:pairs, 1:], given[1::2, 1:])
        done = halved.column("next.success", number)
        assert done[-1] and not done[:-1].any()
        assert halved.instruction(number, 0) == source.instruction(number, 0)
        for camera in source.cameras:
            now = halved.frames(camera, number, range(episode.length)).astype(int)
            before = source.frames(camera, number, range(0, recording.LENGTHS[number], 2)).astype(int)
            assert np.abs(now - before).mean() < 3
    np.testing.assert_array_equal(
        halved.column("action", 1)[-1], recording.columns(1, 9)["action"][8]
    )  # nine steps: the last action is alone


def test_columns_and_cameras_of_other_names(
    recorded: Path, halved: Dataset, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The copy has the same columns; its cameras are named alike."""
    source = rename(Path(shutil.copytree(recorded, tmp_path / "openpi")), OPENPI)
    words = ["data", "downsample", str(source), "--by", "2", "--out", str(tmp_path / "out")]
    assert main([*words, "--kinds", "delta", "absolute", "gripper"]) == 0
    copy = Dataset.open(tmp_path / "out")
    np.testing.assert_array_equal(copy.column("actions", 2), halved.column("action", 2))
    assert copy.cameras == ("image", "wrist_image") and "action" not in copy.features
    np.testing.assert_array_equal(copy.frames("image", 0, [2]), halved.frames("top", 0, [2]))
    with pytest.raises(
        BadInput, match=r"'joints' is missing; .* one whole column \(columns of numbers: actions, sta"
    ):
        downsample(source, tmp_path / "other", Downsampling(2, SPACE, action="joints"))


def test_where_it_came_from(recorded: Path, halved: Dataset, capsys: pytest.CaptureFixture[str]) -> None:
    facts = json.loads((halved.root / "conversion.json").read_text())
    about = json.loads(facts["downsampled"])
    assert about["fingerprint"] == Dataset.open(recorded).fingerprint()
    assert (about["fps"], about["by"], about["actions"]) == (10, 2, "x:delta y:absolute grip:gripper")
    assert halved.episode_column("seed") == [0, 1, 2]
    assert halved.episode_column("source") == ["dataset/0", "dataset/1", "dataset/2"]
    downsample(recorded, halved.root, HALF)  # finished: is left alone
    said = " ".join(capsys.readouterr().out.split())
    assert "3 episodes at 5 Hz of robot 'testbot-5hz', from 10 Hz" in said
    assert "in 1 of them the last action stands for fewer than 2 steps" in said
    with pytest.raises(BadInput, match=r"holds a conversion with .*fps = 5, asked for 2"):
        downsample(recorded, halved.root, Downsampling(5, SPACE))


def test_what_was_seen_after_the_last_action(tmp_path: Path) -> None:
    """Nine steps of which eight have actions: by four two actions, and a last look."""
    source = tiny_dataset.write(tmp_path / "source", (9, 10), last_look=True)
    space = tiny_dataset.RUN.actions
    downsample(source, tmp_path / "out", Downsampling(2, space, robot="slow"))
    made = Dataset.open(tmp_path / "out")
    assert made.robot_type == "slow"
    assert [(episode.length, episode.actions) for episode in made.episodes] == [(5, 4), (5, 5)]
    action = made.column("action", 0)
    np.testing.assert_array_equal(action[4], action[3])


def test_demonstrated_states_are_known_of_copies_too(tmp_path: Path) -> None:
    from wamkit.data.lerobot.writer import Writer

    writer = Writer.create(tmp_path / "source", recording.FPS, "testbot", recording.FEATURES)
    videos = {camera: recording.pictures(0, 8, camera) for camera in ("top", "wrist")}
    writer.add_episode(recording.columns(0, 8), videos, "push", {"initial_state": '{"seed": 3}'})
    writer.finalize()
    downsample(tmp_path / "source", tmp_path / "other", HALF)
    assert initial_states(Dataset.open(tmp_path / "other")) == []  # nobody says what its states are
    (tmp_path / "source" / "collection.json").write_text("{}")
    downsample(tmp_path / "source", tmp_path / "out", HALF)
    downsample(tmp_path / "out", tmp_path / "again", Downsampling(5, SPACE))
    for name in ("source", "out", "again"):
        assert initial_states(Dataset.open(tmp_path / name)) == [{"seed": 3}]


def test_an_interrupted_copy_goes_on(
    recorded: Path, halved: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Stopped(Exception):
        pass

    original = Recorder.add

    def stops(self: Recorder, *arguments: Any, **named: Any) -> None:
        original(self, *arguments, **named)
        raise Stopped

    with monkeypatch.context() as patch:
        patch.setattr(Recorder, "add", stops)
        with pytest.raises(Stopped):
            downsample(recorded, tmp_path / "out", HALF)
    assert not (tmp_path / "out" / "meta").exists()
    downsample(recorded, tmp_path / "out", HALF)
    assert Dataset.open(tmp_path / "out").fingerprint() == halved.fingerprint()


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        ((1, SPACE), r"by: expected at least 2, the number of steps that become one, got 1"),
        ((3, SPACE), r"10 frames per second by 3 are 3.333, .* whole number; give one of --by 2, 5, 10"),
        ((2, ActionSpace(("x",), ("delta",))), r"actions have 3 dimensions, 1 kinds were given"),
        ((2, SPACE, "", 0.0), r"downsample.radians: expected a finite number above 0, got 0"),
    ],
)
def test_refusals(recorded: Path, tmp_path: Path, asked: tuple[Any, ...], message: str) -> None:
    with pytest.raises(BadInput, match=message):
        downsample(recorded, tmp_path / "out", Downsampling(*asked))
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "give --recipe or --kinds, one of the two"),
        (["--recipe", "metaworld3", "--kinds", "delta"], "give --recipe or --kinds, one of the two"),
        (["--recipe", "metaworld3"], "actions have 3 dimensions, 4 kinds were given"),
        (["--kinds", "delta", "turn", "gripper"], "--kinds: unknown kind 'turn'; expected delta, absolute"),
        (["--kinds", "delta", "gripper"], "--kinds: 2 kinds for the 3 dimensions of an action"),
        (
            ["--kinds", "delta", "rotation", "gripper"],
            "1 dimensions of kind 'rotation' in a row, from 'y' on",
        ),
        (["--recipe", "metaworld9"], "metaworld9"),
    ],
)
def test_a_command_that_does_not_say_what_actions_mean(
    recorded: Path, tmp_path: Path, words: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    out = str(tmp_path / "out")
    assert main(["data", "downsample", str(recorded), "--by", "2", "--out", out, *words]) == 2
    assert message in " ".join(capsys.readouterr().err.split())
    assert not (tmp_path / "out").exists()


def test_the_command(recorded: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    words = ["--by", "5", "--kinds", "delta", "absolute", "gripper", "--robot", "slow"]
    assert main(["data", "downsample", str(recorded), "--out", str(out), *words]) == 0
    assert Dataset.open(out).fps == 2 and Dataset.open(out).robot_type == "slow"
    assert recipe("metaworld3").actions.kinds == ("delta",) * 3 + ("gripper",)
    assert main(["data", "downsample", str(recorded), "--out", str(recorded), *words]) == 2
