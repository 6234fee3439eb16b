"""Reading real-robot recordings: every way of storing images, and one clear error for each way to be wrong."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import pytest
from wamkit_client.types import BadInput

from tests.convert import robot_hdf5
from tests.convert.robot_hdf5 import HEIGHT, STEPS, WIDTH, encoded, numbers, picture, store
from wamkit.convert.robot_hdf5 import check_alike, find_recordings, read_recording

HIGH = "observation/images/cam_high"


@pytest.mark.parametrize("how", ["variable", "padded", "opaque", "text"])
@pytest.mark.parametrize("form", ["JPEG", "PNG"])
def test_images_however_they_are_stored(tmp_path: Path, how: str, form: str) -> None:
    path = robot_hdf5.write(tmp_path, 3, how=how, form=form)
    recording = read_recording(path, cut_to_shortest=False)
    assert recording.cameras == {camera: (HEIGHT, WIDTH, form) for camera in robot_hdf5.CAMERAS}
    assert recording.instruction == "fold the towel" and recording.left_out == {}
    np.testing.assert_array_equal(recording.actions, numbers(3).astype(np.float32))
    np.testing.assert_array_equal(recording.states, numbers(103).astype(np.float32))
    for shift, camera in enumerate(robot_hdf5.CAMERAS):
        wanted = np.stack([picture(step, 20 * shift) for step in range(STEPS)]).astype(int)
        off = np.abs(recording.images(camera) - wanted).max()
        assert off <= (3 if form == "JPEG" else 0)


@pytest.mark.parametrize(
    ("task", "instruction"),
    [
        (b"fold the towel", "fold the towel"),
        ("towel_03@fold the towel", "fold the towel"),
        ("  fold\n", "fold"),
    ],
)
def test_instruction(tmp_path: Path, task: str | bytes, instruction: str) -> None:
    assert read_recording(robot_hdf5.write(tmp_path, 0, task=task), False).instruction == instruction


def test_what_was_observed_after_the_last_action_is_kept(tmp_path: Path) -> None:
    recording = read_recording(robot_hdf5.write(tmp_path, 0, extra_rows=1), cut_to_shortest=False)
    assert recording.left_out == {} and len(recording.actions) == STEPS
    assert recording.steps == len(recording.states) == len(recording.images("cam_high")) == STEPS + 1


def test_other_differences_are_cut_only_when_asked(tmp_path: Path) -> None:
    path = robot_hdf5.write(tmp_path, 0, extra_rows=2)
    with pytest.raises(BadInput, match=f"action {STEPS}, observation/state {STEPS + 2}"):
        read_recording(path, cut_to_shortest=False)
    recording = read_recording(path, cut_to_shortest=True)
    assert (len(recording.actions), recording.steps) == (STEPS, STEPS + 1)
    assert set(recording.left_out.values()) == {1}
    replace(path, "action", numbers(0, steps=STEPS + 3))  # one action more than observations
    with pytest.raises(BadInput, match="different numbers of rows"):
        read_recording(path, cut_to_shortest=False)


def replace(path: Path, key: str, values: object) -> None:
    with h5py.File(path, "a") as file:
        if key in file:
            del file[key]
        if values is not None:
            file[key] = values


def set_pictures(path: Path, pictures: list[bytes]) -> None:
    with h5py.File(path, "a") as file:
        del file[HIGH]
        store(file, "cam_high", pictures, "variable")


def bad_value(path: Path) -> None:
    rows = numbers(0)
    rows[4, 2] = np.nan
    replace(path, "action", rows)


def wrong_picture(data: bytes, step: int = 2) -> Callable[[Path], None]:
    whole = [encoded(picture(i)) for i in range(STEPS)]
    return lambda path: set_pictures(path, [data if i == step else whole[i] for i in range(STEPS)])


GREY = encoded(picture(0)[..., 0])
WHOLE = encoded(picture(2))
WIDE = encoded(np.concatenate([picture(2), picture(2)], axis=1))

BROKEN: dict[str, tuple[Callable[[Path], None], str]] = {
    "no task": (lambda p: h5py.File(p, "a").attrs.__delitem__("task"), "attribute 'task' is missing"),
    "empty task": (lambda p: h5py.File(p, "a").attrs.__setitem__("task", "x@ "), "attribute 'task'"),
    "no action": (lambda p: replace(p, "action", None), "no dataset 'action'"),
    "a value": (lambda p: replace(p, "action", 3.0), "no dataset 'action' with a row per step"),
    "no state": (lambda p: replace(p, "observation/state", None), "no dataset 'observation/state'"),
    "no cameras": (lambda p: replace(p, "observation/images", None), "no camera in observation/images"),
    "texts": (lambda p: replace(p, "action", np.array([b"a"] * STEPS)), r"action is \|S1"),
    "flat": (lambda p: replace(p, "action", np.zeros(STEPS)), r"action is float64 \[6\]"),
    "NaN": (bad_value, "action, step 4: dimension 2 is nan"),
    "too large": (lambda p: replace(p, "action", numbers(0) * 1e200), "action, step 0: dimension 0 is"),
    "no rows": (lambda p: replace(p, "action", np.zeros((0, 14))), "action has no rows"),
    "raw pixels": (
        lambda p: replace(p, HIGH, np.stack([picture(i) for i in range(STEPS)])),
        r"cam_high is uint8 \[6, 32, 48, 3\]; expected one encoded",
    ),
    "first one is odd": (wrong_picture(encoded(picture(0)[:, 1:]), 0), "32x47; videos need even sizes"),
    "empty picture": (wrong_picture(b""), "cam_high, step 2: the image does not decode .it is empty"),
    "no picture": (wrong_picture(b"RIFF" * 50), "cam_high, step 2: the image does not decode"),
    "truncated": (wrong_picture(WHOLE[: len(WHOLE) // 2]), "cam_high, step 2: the image does not decode"),
    "truncated, padded": (
        wrong_picture(WHOLE[: len(WHOLE) - 40].ljust(4000, b"\0")),
        "cam_high, step 2: the image does not decode .its end is missing",
    ),
    "grey": (wrong_picture(GREY), "cam_high, step 2: the image is L"),
    "another size": (wrong_picture(WIDE), "cam_high, step 2: the image is 32x96, the first 32x48"),
    "cut off": (lambda p: p.write_bytes(p.read_bytes()[:-900]), "cannot be read"),
    "no HDF5": (lambda p: p.write_text("hello"), "cannot be read"),
}


@pytest.mark.parametrize("what", BROKEN)
def test_one_clear_error(tmp_path: Path, what: str) -> None:
    path = robot_hdf5.write(tmp_path, 0)
    damage, message = BROKEN[what]
    damage(path)
    with pytest.raises(BadInput, match=message) as caught:
        recording = read_recording(path, cut_to_shortest=False)
        for camera in recording.cameras:
            recording.images(camera)
    assert str(path) in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"cameras": ("cam_high",)}, "cameras .'cam_high'., in episode_0.hdf5 cameras"),
        ({"cameras": ("cam_high", "cam_right_wrist")}, "cam_right_wrist"),
    ],
)
def test_cameras_that_differ(tmp_path: Path, change: dict[str, tuple[str, ...]], message: str) -> None:
    first = robot_hdf5.write(tmp_path, 0)
    other = robot_hdf5.write(tmp_path, 1, cameras=change["cameras"])
    with pytest.raises(BadInput, match=message) as caught:
        check_alike([read_recording(path, False) for path in (first, other)])
    assert str(other) in str(caught.value)


def test_sizes_and_dimensions_that_differ(tmp_path: Path) -> None:
    first, other = robot_hdf5.write(tmp_path, 0), robot_hdf5.write(tmp_path, 1)
    replace(other, "observation/state", numbers(0, dimensions=7))
    with pytest.raises(BadInput, match=r"observation/state has 7 dimensions, in episode_0.hdf5 14"):
        check_alike([read_recording(path, False) for path in (first, other)])
    set_pictures(first, [WIDE] * STEPS)
    with pytest.raises(BadInput, match=r"cam_high has images of 32x48, in episode_0.hdf5 images of 32x96"):
        check_alike([read_recording(path, False) for path in (first, other)])


def test_files_come_in_the_order_of_their_numbers(tmp_path: Path) -> None:
    for number in (10, 9, 100):
        robot_hdf5.write(tmp_path, number, steps=1)
    assert [path.stem for path in find_recordings(tmp_path)] == ["episode_9", "episode_10", "episode_100"]


def test_folders_that_cannot_be_converted(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="no such folder"):
        find_recordings(tmp_path / "nowhere")
    robot_hdf5.write(tmp_path / "below", 0, steps=1)
    with pytest.raises(BadInput, match=f"no recording found.*there is one below: name {tmp_path / 'below'}"):
        find_recordings(tmp_path)
    robot_hdf5.write(tmp_path / "below", "00", steps=1)
    with pytest.raises(BadInput, match="the same number"):
        find_recordings(tmp_path / "below")
    (tmp_path / "below/episode_00.hdf5").rename(tmp_path / "below/test.hdf5")
    with pytest.raises(BadInput, match=r"test.hdf5: expected a name like episode_12.hdf5"):
        find_recordings(tmp_path / "below")
