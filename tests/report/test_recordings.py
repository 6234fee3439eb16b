"""Recordings are read as they were written, or refused by name."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from wamkit_client.envs.base import Task
from wamkit_client.types import BadInput

from tests.report.slider import LENGTH, REPLAN, evaluation, record
from wamkit.report.recordings import Recording, read_recording
from wamkit.report.results import RESULTS
from wamkit.report.rollouts import first_of_tasks, shown_recordings
from wamkit.report.watched import query_at


def read(path: Path) -> Recording:
    return read_recording(path, "slide", 3, "slide it", "robot")


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / record(tmp_path, Task("slide", "slide it"), 3)["recording"]


def test_a_recording_says_what_happened(path: Path) -> None:
    recording = read(path)
    assert recording.steps == LENGTH and recording.success
    assert recording.query_steps.tolist() == list(range(0, LENGTH, REPLAN))
    assert [recording.query_of(step) for step in (0, 3, 4, LENGTH)] == [0, 0, 1, LENGTH // REPLAN - 1]
    assert query_at(recording, 1 / 3) == 8 and query_at(recording, 1.0) == LENGTH - REPLAN


def test_a_clip_is_what_the_cameras_saw(path: Path) -> None:
    recording = read(path)
    with np.load(path) as arrays:
        clip = recording.clip(4, (0, 8), ("wrist", "front"))
        assert list(clip.views) == ["wrist", "front"]
        assert np.array_equal(clip.views["front"][0], arrays["view_front"][[4, 12]])
        assert np.array_equal(clip.proprio[0], arrays["proprio"][4])
    assert (clip.instructions, clip.embodiments) == (("slide it",), ("robot",))
    with pytest.raises(BadInput, match="no view 'back'"):
        recording.clip(0, (0,), ("back",))


@pytest.mark.parametrize("share", [0.0, 0.3, 0.9, 0.999])
def test_a_truncated_file_is_named(path: Path, share: float) -> None:
    whole = path.read_bytes()
    path.write_bytes(whole[: int(share * len(whole))])
    with pytest.raises(BadInput, match=r"slide_3\.npz: the recording is truncated or damaged"):
        read(path)


def test_a_file_with_damaged_pixels_is_named(path: Path) -> None:
    whole = bytearray(path.read_bytes())
    whole[200:260] = bytes(60)
    path.write_bytes(bytes(whole))
    with pytest.raises(BadInput, match=r"slide_3\.npz: the recording is truncated or damaged"):
        read(path)


def test_a_missing_file_is_named(path: Path) -> None:
    path.unlink()
    with pytest.raises(BadInput, match=r"slide_3\.npz: the recording is missing"):
        read(path)


@pytest.mark.parametrize(
    ("key", "value", "complaint"),
    [
        ("query_path", None, "no array 'query_path'"),
        ("proprio", np.zeros((3, 3)), "'proprio' has 3 rows, 'display' 25"),
        ("view_front", np.zeros((24, 8, 8, 3), np.uint8), "'view_front' has 24 rows"),
        ("query_path", np.zeros((2, 6, 2)), "'query_path' is .* for 6 queries"),
        ("query_path", np.zeros((6, 6, 3)), "'query_path' is .* for 6 queries"),
    ],
)
def test_arrays_that_do_not_fit_are_named(
    path: Path, key: str, value: np.ndarray | None, complaint: str
) -> None:
    with np.load(path) as file:
        arrays = dict(file)
    del arrays[key]
    np.savez(path, **arrays, **({} if value is None else {key: value}))
    with pytest.raises(BadInput, match=rf"slide_3\.npz: {complaint}"):
        read(path)


def test_a_success_per_task_is_shown_and_one_failure(tmp_path: Path) -> None:
    results = evaluation(tmp_path, "slide", "shove")
    rows = {(row["task"], row["seed"]): row for row in results["episodes"]}
    rows["slide", 0]["status"] = rows["shove", 1]["status"] = "failure"
    shown = chosen(results, tmp_path)
    assert [(one.task, one.seed) for one in shown] == [("slide", 1), ("shove", 0), ("slide", 0)]
    assert shown[0].instruction == "slide slide" and shown[0].embodiment == "robot"
    assert [(one.task, one.seed) for one in first_of_tasks(shown)] == [("slide", 1), ("shove", 0)]
    rows["shove", 0]["status"] = "failure"  # now a failure is shown anyway
    assert [(one.task, one.seed) for one in chosen(results, tmp_path)] == [
        ("slide", 1),
        ("shove", 0),
    ]
    for row in results["episodes"]:
        row["recording"] = ""
    assert chosen(results, tmp_path) == []


def chosen(results: dict[str, Any], folder: Path) -> list[Recording]:
    return shown_recordings(RESULTS.validate_python(results), folder)
