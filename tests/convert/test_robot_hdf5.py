"""Real-robot recordings become a dataset that reads the same, whatever happens on the way."""

from __future__ import annotations

import os
import shutil
import signal
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from wamkit_client.types import BadInput

from tests.convert import robot_hdf5
from tests.convert.robot_hdf5 import CAMERAS, HEIGHT, STEPS, WIDTH, numbers, picture
from tests.processes import Running, command
from wamkit.cli import main
from wamkit.convert.robot_hdf5 import robot_to_lerobot
from wamkit.data.actions import ActionSpace
from wamkit.data.check import check
from wamkit.data.clips import Clips
from wamkit.data.lerobot.dataset import Dataset
from wamkit.data.lerobot.writer import Writer
from wamkit.data.normalize import dataset_stats
from wamkit.data.official_statistics import window_stats
from wamkit.io.files import AGAIN, only_writer
from wamkit.io.progress import console
from wamkit.types import DataSpec

SETTINGS: dict[str, Any] = {"fps": 30, "robot": "two_arms"}


@pytest.fixture
def recorded(tmp_path: Path) -> Path:
    """Three recordings, the last one in another way."""
    folder = tmp_path / "recordings"
    robot_hdf5.write(folder, 2)
    robot_hdf5.write(folder, 10, extra_rows=1, how="padded", form="PNG", task="open the box")
    robot_hdf5.write(folder, 9, steps=STEPS + 4)
    return folder


def convert(source: Path, out: Path, **changes: object) -> str:
    """What is printed."""
    with console.capture() as printed:
        robot_to_lerobot(source, out, **SETTINGS | changes)
    return printed.get()


def content(out: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(out)): path.read_bytes() for path in sorted(out.rglob("*")) if path.is_file()
    }


def test_the_dataset_is_the_recordings(recorded: Path, tmp_path: Path) -> None:
    printed = convert(recorded, tmp_path / "out")
    dataset = Dataset.open(tmp_path / "out")
    assert check(tmp_path / "out") == []
    assert (dataset.fps, dataset.robot_type, tuple(dataset.cameras)) == (30, "two_arms", CAMERAS)
    assert [episode.length for episode in dataset.episodes] == [STEPS, STEPS + 4, STEPS + 1]
    assert [episode.actions for episode in dataset.episodes] == [STEPS, STEPS + 4, STEPS]
    assert [dataset.instruction(i, 0) for i in range(3)] == [
        "fold the towel",
        "fold the towel",
        "open the box",
    ]
    assert dataset.episode_column("source") == ["episode_2.hdf5", "episode_9.hdf5", "episode_10.hdf5"]
    assert dataset.episode_column("rows_left_out") == [0, 0, 0]
    for i, (number, steps) in enumerate(((2, STEPS), (9, STEPS + 4), (10, STEPS))):
        actions, seen = dataset.column("action", i), steps + (i == 2)
        np.testing.assert_array_equal(actions[:steps], numbers(number, steps=steps).astype(np.float32))
        np.testing.assert_array_equal(actions[steps:], actions[steps - 1 : seen - 1])
        states = numbers(number + 100, steps=seen)
        np.testing.assert_array_equal(dataset.column("observation.state", i), states.astype(np.float32))
        for shift, camera in enumerate(CAMERAS):
            wanted = np.stack([picture(step, 20 * shift) for step in range(seen)]).astype(int)
            assert np.abs(dataset.frames(camera, i, range(seen)) - wanted).max() < 12
    words = " ".join(printed.replace("│", " ").split())
    steps, pixels = 3 * STEPS + 5, f"{HEIGHT}x{WIDTH}"
    for said in (
        f"3: episode_2.hdf5 .. episode_10.hdf5, {steps} steps",
        "30 Hz as asked",
        f"cam_high {pixels} JPEG",
        "channels RGB as encoded",
        "2 x fold the towel 1 x open the box",
        "observed after the last action 1 step in episode_10.hdf5; its action does not count",
        f"13 {numbers_range(recorded, 13)}",
    ):
        assert said in words, words


def numbers_range(folder: Path, dim: int) -> str:
    columns = []
    for key in ("action", "observation/state"):
        values = []
        for path in folder.iterdir():
            with h5py.File(path) as file:
                values += file[key][:, dim].astype(np.float32).tolist()
        columns.append(f"{min(values):.4g} .. {max(values):.4g}")
    return " ".join(columns)


@pytest.mark.parametrize("seen_after", [0, 1])
def test_windows_are_those_of_the_published_reader(tmp_path: Path, seen_after: int) -> None:
    """It counts min(states - frames, actions - chunk + 1) whole windows, of a clip as long as its chunk."""
    robot_hdf5.write(tmp_path / "recordings", 0, steps=9, extra_rows=seen_after)
    convert(tmp_path / "recordings", tmp_path / "out")
    dataset = Dataset.open(tmp_path / "out")
    spec = DataSpec(
        views=CAMERAS,
        canvas="horizontal",
        view_height=HEIGHT,
        view_width=WIDTH,
        hz=30.0,
        frame_times=(0.0, 2 / 30, 4 / 30),
        chunk_seconds=4 / 30,
        proprio_dim=14,
        action_dim=14,
        whole_windows=True,
    )
    space = ActionSpace(tuple(map(str, range(14))), ("absolute",) * 14)
    clips = Clips(dataset, spec, space)
    assert len(clips) == min(9 + seen_after - 4, 9 - 3)
    last = clips.sample(len(clips) - 1)
    assert not last.action_is_pad.any() and not last.frame_is_pad.any()
    actions = numbers(0, steps=9).astype(np.float32)
    np.testing.assert_array_equal(last.actions[0], actions[len(clips) - 1 :][:4])
    padded = Clips(dataset, replace(spec, whole_windows=False), space)
    assert len(padded) == 9  # what was seen after the last action begins no sample
    assert padded.sample(8).action_is_pad[0].tolist() == [False, True, True, True]
    assert padded.sample(8).frame_is_pad[0].tolist() == [False, True, True]
    stats = dataset_stats(dataset, dataset.episodes)
    assert (stats["action"].count, stats["proprio"].count) == (9, 9 + seen_after)
    states = numbers(100, steps=9 + seen_after).astype(np.float32)
    windows = np.stack([states[i : i + 5] for i in range(len(clips))]).astype(np.float64)
    published = window_stats(dataset, dataset.episodes, spec)["proprio"]
    np.testing.assert_allclose(published.mean, windows.mean((0, 1)), rtol=1e-12)


def test_red_stays_red_unless_asked(tmp_path: Path) -> None:
    """Two recordings of a red scene, one of them encoded with its channels the wrong way round."""
    backwards = slice(None, None, -1)
    robot_hdf5.write(tmp_path / "rgb", 0)
    robot_hdf5.write(tmp_path / "bgr", 0, channels=backwards)
    convert(tmp_path / "rgb", tmp_path / "plain")
    convert(tmp_path / "bgr", tmp_path / "swapped", swap_red_blue=True)
    for out in ("plain", "swapped"):
        red, green, blue = Dataset.open(tmp_path / out).frames("cam_high", 0, [0])[0].mean((0, 1))
        assert red > 190 and green < 60 and blue < 60
    with pytest.raises(BadInput, match="swap_red_blue"):
        convert(tmp_path / "rgb", tmp_path / "plain", swap_red_blue=True)


def test_interrupted_work_goes_on_and_ends_the_same(
    recorded: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    convert(recorded, tmp_path / "whole")
    add = Writer.add_episode

    def interrupted(writer: Writer, *arguments: object) -> int:
        index = add(writer, *arguments)  # type: ignore[arg-type]
        os.kill(os.getpid(), signal.SIGINT)  # Ctrl-C while an episode is written
        return index

    monkeypatch.setattr(Writer, "add_episode", interrupted)
    for expected in (1, 2):
        with pytest.raises(KeyboardInterrupt, match="run the same command again"):
            convert(recorded, tmp_path / "out")
        assert len(Writer.resume(tmp_path / "out").staged) == expected
    monkeypatch.setattr(Writer, "add_episode", add)
    convert(recorded, tmp_path / "out")
    assert content(tmp_path / "out") == content(tmp_path / "whole")


def test_a_killed_conversion_ends_the_same(tmp_path: Path) -> None:
    """The command, killed in the middle of an episode and at its end, and the finished one once more."""
    source, out = tmp_path / "recordings", tmp_path / "out"
    for number in range(8):
        robot_hdf5.write(source, number)
    convert_to = ["wamkit", "convert", "hdf5", str(source)]
    assert command([*convert_to, str(tmp_path / "whole")], tmp_path).status == 0
    for staged, at in ((2, ".draft/*.mp4"), (4, "")):
        process = Running([*convert_to, str(out)], tmp_path, f"*/episode-00000{staged}{at}", signal.SIGKILL)
        assert process.end().status == -signal.SIGKILL
        assert len(list(out.glob(".staging/episode-*[0-9]"))) == staged and not (out / "meta").exists()
    assert command([*convert_to, str(out)], tmp_path).status == 0
    assert content(out) == content(tmp_path / "whole")
    assert command([*convert_to, str(out)], tmp_path).status == 0
    assert content(out) == content(tmp_path / "whole")


def test_one_conversion_at_a_time(recorded: Path, tmp_path: Path) -> None:
    convert(recorded, tmp_path / "whole")
    with (
        only_writer(tmp_path / "out", "records"),
        pytest.raises(BadInput, match="out: another process records here"),
    ):
        convert(recorded, tmp_path / "out")
    convert(recorded, tmp_path / "out")
    assert content(tmp_path / "out") == content(tmp_path / "whole")


@pytest.mark.parametrize(
    "how", ["incomplete", "missing", "nothing staged", "half a plan", "left beside meta"]
)
def test_what_two_conversions_broke_is_mended(
    recorded: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    out = tmp_path / "out"
    convert(recorded, tmp_path / "whole")
    staging = out / ".staging"
    if how == "left beside meta":
        convert(recorded, out)
        (staging / "packed").mkdir(parents=True)
        (staging / "packed" / "left").touch()
    else:

        def killed(writer: Writer) -> None:
            raise KeyboardInterrupt

        with monkeypatch.context() as patched:
            patched.setattr(Writer, "finalize", killed)
            with pytest.raises(KeyboardInterrupt):
                convert(recorded, out)
    match how:
        case "incomplete":
            (staging / "episode-000001" / "observation.images.cam_high.mp4").unlink()
        case "missing":
            shutil.rmtree(staging / "episode-000001")
        case "nothing staged":
            shutil.rmtree(staging)
        case "half a plan":
            (staging / "plan.json").rename(staging / "plan.draft")
    convert(recorded, out)
    assert content(out) == content(tmp_path / "whole")


def test_a_full_disk_is_one_message_and_the_same_command_resumes(
    recorded: Path, tmp_path: Path, disk: Callable[[str], Path], capsys: pytest.CaptureFixture[str]
) -> None:
    folder = disk("512k")
    filler = folder / "filler"
    convert(recorded, tmp_path / "whole", fps=30.0)
    filler.write_bytes(bytes(400 * 1024))
    words = ["convert", "hdf5", str(recorded), str(folder / "out"), "--fps", "30", "--robot", "two_arms"]
    assert main(words) == 2
    said = " ".join(capsys.readouterr().err.split())
    assert "the disk is full" in said and AGAIN in said
    filler.unlink()
    assert main(words) == 0
    assert content(folder / "out") == content(tmp_path / "whole")


def test_a_finished_dataset_is_left_alone(recorded: Path, tmp_path: Path) -> None:
    convert(recorded, tmp_path / "out")
    before = content(tmp_path / "out")
    convert(recorded, tmp_path / "out")
    assert content(tmp_path / "out") == before
    for settings, what in (
        ({"fps": 50}, "fps"),
        ({"robot": "other"}, "robot_type"),
    ):
        with pytest.raises(BadInput, match=f"holds a conversion with {what}"):
            convert(recorded, tmp_path / "out", **settings)
    robot_hdf5.write(recorded, 11)
    with pytest.raises(BadInput, match="a conversion of other sources"):
        convert(recorded, tmp_path / "out")


def test_a_broken_recording_costs_nothing_that_was_written(recorded: Path, tmp_path: Path) -> None:
    """What the first look cannot see: a picture in the middle. The others go on without it."""
    path = recorded / "episode_9.hdf5"
    with h5py.File(path, "a") as file:
        file["observation/images/cam_high"][3] = np.frombuffer(b"\xff\xd8no picture", np.uint8)
    with pytest.raises(BadInput, match=r"episode_9.hdf5: observation/images/cam_high, step 3"):
        convert(recorded, tmp_path / "out")
    assert len(Writer.resume(tmp_path / "out").staged) == 1
    path.unlink()
    convert(recorded, tmp_path / "out")
    assert Dataset.open(tmp_path / "out").episode_column("source") == ["episode_2.hdf5", "episode_10.hdf5"]


def test_nothing_is_written_where_the_first_look_finds_something(recorded: Path, tmp_path: Path) -> None:
    robot_hdf5.write(recorded, 11, cameras=("cam_high",))
    with pytest.raises(BadInput, match=r"episode_11.hdf5"):
        convert(recorded, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_an_unfinished_conversion_of_something_else(recorded: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    broken = robot_hdf5.write(recorded, 11)
    with h5py.File(broken, "a") as file:
        file["observation/images/cam_high"][1] = np.zeros(0, np.uint8)
    with pytest.raises(BadInput, match="step 1"):
        convert(recorded, out)
    for settings, what in (
        ({"fps": 50}, "fps = 30, asked for 50"),
        ({"swap_red_blue": True}, "swap_red_blue = False"),
    ):
        with pytest.raises(BadInput, match=f"holds a conversion with {what}"):
            convert(recorded, out, **settings)
    robot_hdf5.write(recorded, 3)  # would come between those that are written
    with pytest.raises(BadInput, match=r"is of episode_9.hdf5, which is not at that place any more"):
        convert(recorded, out)
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine/notes.txt").write_text("keep")
    with pytest.raises(BadInput, match="not empty"):
        convert(recorded, tmp_path / "mine")
    assert (tmp_path / "mine/notes.txt").read_text() == "keep"


@pytest.mark.parametrize("fps", [0.0, float("nan"), float("inf"), -5.0])
def test_a_rate_that_is_none(recorded: Path, tmp_path: Path, fps: float) -> None:
    with pytest.raises(BadInput, match="fps"):
        convert(recorded, tmp_path / "out", fps=fps)
