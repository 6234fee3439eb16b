"""Each fault is found, by file, and nothing else is reported; a broken data set never makes the check fail."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.data import recording
from wamkit.data.check import check
from wamkit.data.video import VideoCodec, write_video

DATA = "data/chunk-000/file-000.parquet"
EPISODES = "meta/episodes/chunk-000/file-000.parquet"
TASKS = "meta/tasks.parquet"
VIDEO = "videos/observation.images.top/chunk-000/file-000.mp4"
INFO = "meta/info.json"
Break = Callable[[Path], None]


@pytest.mark.parametrize("fixture", ["v2.1", "v3.0", "v3.0-images"])
def test_what_the_real_lerobot_wrote_is_sound(fixture: str) -> None:
    assert check(Path(__file__).parent / "fixtures" / fixture) == []


def test_what_we_wrote_is_sound(recorded: Path) -> None:
    assert check(recorded) == []


def truncate(file: str, keep: float = 0.5) -> Break:
    def apply(root: Path) -> None:
        content = (root / file).read_bytes()
        (root / file).write_bytes(content[: int(len(content) * keep)])

    return apply


def remove(file: str) -> Break:
    return lambda root: (root / file).unlink()


def column(name: str, change: Callable[[np.ndarray], np.ndarray]) -> Break:
    """Replace a column of the data file."""

    def apply(root: Path) -> None:
        table = pq.read_table(root / DATA)
        at = table.column_names.index(name)
        old = table[name].combine_chunks()
        is_vector = pa.types.is_fixed_size_list(old.type)
        values = old.flatten() if is_vector else old
        new = pa.array(change(values.to_numpy(zero_copy_only=False).copy()), values.type)
        new = pa.FixedSizeListArray.from_arrays(new, old.type.list_size) if is_vector else new
        pq.write_table(table.set_column(at, table.field(at), new), root / DATA)

    return apply


def put(at: int, value: float) -> Callable[[np.ndarray], np.ndarray]:
    def change(values: np.ndarray) -> np.ndarray:
        values[at] = value
        return values

    return change


def every(step: int, first: int, value: float) -> Callable[[np.ndarray], np.ndarray]:
    def change(values: np.ndarray) -> np.ndarray:
        values[first::step] = value
        return values

    return change


def late(values: np.ndarray) -> np.ndarray:
    values[5:12] += 0.3  # episode 0 pauses before frame 5
    return values


def rows(keep: slice) -> Break:
    def apply(root: Path) -> None:
        table = pq.read_table(root / DATA)
        pq.write_table(table.slice(keep.start or 0, keep.stop), root / DATA)

    return apply


def drop_column(file: str, name: str) -> Break:
    return lambda root: pq.write_table(pq.read_table(root / file).drop_columns([name]), root / file)


def info(**changes: object) -> Break:
    def apply(root: Path) -> None:
        (root / INFO).write_text(json.dumps(json.loads((root / INFO).read_text()) | changes))

    return apply


def tasks(**columns: list) -> Break:
    return lambda root: pq.write_table(pa.table(columns), root / TASKS)


def shorter_video(root: Path) -> None:
    frames = np.concatenate([recording.pictures(e, n) for e, n in enumerate(recording.LENGTHS)])
    write_video(root / VIDEO, frames[:-3], recording.FPS, VideoCodec())


def smaller_pictures(root: Path) -> None:
    write_video(root / VIDEO, np.zeros((41, 16, 16, 3), np.uint8), recording.FPS, VideoCodec())


def damage(root: Path) -> None:
    content = bytearray((root / VIDEO).read_bytes())
    middle = content.index(b"moov") // 2
    content[middle : middle + middle // 2] = bytes(
        middle // 2
    )  # several pictures, lengths of their parts too
    (root / VIDEO).write_bytes(bytes(content))


def stray(root: Path) -> None:
    shutil.copy(root / VIDEO, root / VIDEO.replace("file-000", "file-001"))


FAULTS: dict[str, tuple[Break, str, tuple[str, ...]]] = {
    "info missing": (remove(INFO), INFO, ("is missing",)),
    "info truncated": (truncate(INFO), INFO, ("is not JSON",)),
    "info episodes": (info(total_episodes=7), INFO, ("total_episodes is 7", "lists 3")),
    "info frames": (info(total_frames=99), INFO, ("total_frames is 99", "lists 41")),
    "info tasks": (info(total_tasks=5), INFO, ("total_tasks is 5", "lists 2")),
    "episodes missing": (remove(EPISODES), "meta/episodes", ("no parquet file",)),
    "episodes truncated": (truncate(EPISODES), EPISODES, ("truncated",)),
    "episodes column": (drop_column(EPISODES, "length"), EPISODES, ("'length' is missing",)),
    "data missing": (remove(DATA), DATA, ("is missing", "copy or record")),
    "data truncated": (truncate(DATA), DATA, ("truncated", "no footer")),
    "data column": (drop_column(DATA, "action"), DATA, ("'action' is missing",)),
    "rows": (rows(slice(0, 38)), DATA, ("38 rows, its episodes have 41",)),
    "rows of an episode": (rows(slice(0, 38)), DATA, ("episode 2 has 17 rows, meta says 20",)),
    "frame order": (column("frame_index", put(3, 9)), DATA, ("frame_index of episode 0",)),
    "index": (column("index", put(3, 9)), DATA, ("index of episode 0 does not count from 0",)),
    "gap": (
        column("timestamp", late),
        DATA,
        ("episode 0", "first 0.4000 s before frame 5", "expected 0.1000 s"),
    ),
    "first timestamp": (column("timestamp", put(12, 0.05)), DATA, ("episode 1", "before frame 0")),
    "NaN": (
        column("action", put(3 * 13 + 1, np.nan)),
        DATA,
        ("action has 1 value(s)", "first in episode 1, frame 1", "mend"),
    ),
    "still action": (
        column("action", every(3, 2, 0.25)),
        "data",
        ("action dimension 2 (grip) is always 0.25",),
    ),
    "unknown task": (column("task_index", put(12, 9)), DATA, ("episode 1 has task 9", "meta/tasks")),
    "tasks missing": (remove(TASKS), TASKS, ("is missing",)),
    "tasks truncated": (truncate(TASKS), TASKS, ("truncated",)),
    "task without text": (
        tasks(task_index=[0, 1], __index_level_0__=["push", ""]),
        TASKS,
        ("task 1 has no text", "in words"),
    ),
    "task is a number": (tasks(task_index=[0, 1], task=[0, 1]), TASKS, ("task 0 is 0, not a sentence",)),
    "task as column": (
        tasks(task_index=[0, 1], task=["push the button", "open the drawer"]),
        TASKS,
        ("not the pandas index", "hands policies the number", "pandas: DataFrame"),
    ),
    "video missing": (remove(VIDEO), VIDEO, ("is missing",)),
    "video truncated": (truncate(VIDEO), VIDEO, ("truncated",)),
    "video short": (shorter_video, VIDEO, ("38 frames, its episodes have 41",)),
    "video short, where": (shorter_video, VIDEO, ("episode 2 lacks 3 frame(s), first frame 17",)),
    "video size": (smaller_pictures, VIDEO, ("pictures are 16x16", "says 32x48")),
    "video damaged": (damage, VIDEO, ("does not decode",)),
    "video damaged, where": (damage, VIDEO, ("episode 1 lacks", "and 1 more episodes")),
    "many problems": (info(fps=11), DATA, ("timestamps of episode 0 have 11 gap(s)", "or correct fps")),
    "stray": (stray, VIDEO.replace("file-000", "file-001"), ("belongs to no episode",)),
    "leftover": (lambda root: (root / ".staging").mkdir(), ".staging", ("left over", "delete")),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_faults(fault: str, breakable: Path) -> None:
    apply, where, words = FAULTS[fault]
    apply(breakable)
    lines = [str(problem) for problem in check(breakable)]
    assert any(where in line and all(word in line for word in words) for line in lines), "\n".join(lines)
    assert all("\n" not in line and len(line) < 300 for line in lines)
    assert len(lines) <= 5  # one fault does not drown the reader


def test_several_faults_are_all_found(breakable: Path) -> None:
    for fault in ("NaN", "video missing", "info tasks", "task without text"):
        FAULTS[fault][0](breakable)
    found = "\n".join(map(str, check(breakable)))
    for words in ("action has 1 value", f"{VIDEO}: is missing", "total_tasks", "task 1 has no text"):
        assert words in found


def test_an_unfinished_recording(breakable: Path) -> None:
    (breakable / ".staging").mkdir()
    shutil.rmtree(breakable / "meta")
    (problem,) = check(breakable)
    assert (
        "unfinished recording" in problem.what and "run the command that records it again" in problem.remedy
    )


def test_not_a_data_set(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("hello")
    for path in (tmp_path, tmp_path / "nothing", tmp_path / "file"):
        (problem,) = check(path)
        assert problem.where == INFO


def test_version_2(tmp_path: Path) -> None:
    root = Path(shutil.copytree(Path(__file__).parent / "fixtures/v2.1", tmp_path / "v2.1"))
    (root / "meta/tasks.jsonl").write_text('{"task_index": 0, "task": ""}\n{"task_index": 1, "task": "go"}\n')
    (root / "videos/chunk-000/observation.images.top/episode_000001.mp4").unlink()
    (root / "data/chunk-000/episode_000000.parquet").write_bytes(b"PAR1")
    found = "\n".join(map(str, check(root)))
    for words in (
        "task 0 has no text",
        "episode_000001.mp4: is missing",
        "episode_000000.parquet: is truncated",
    ):
        assert words in found


@pytest.mark.parametrize("file", [INFO, EPISODES, TASKS, DATA, VIDEO])
def test_any_damage_is_reported_and_none_stops_the_check(file: str, recorded: Path, tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    root = Path(shutil.copytree(recorded, tmp_path / "damaged"))
    content = np.frombuffer((recorded / file).read_bytes(), np.uint8)
    for _ in range(25):
        damaged = content.copy()
        at = random.integers(len(damaged))
        damaged[at : at + 8] = random.integers(0, 256, len(damaged[at : at + 8]))
        (root / file).write_bytes(damaged.tobytes())
        check(root)


@pytest.mark.parametrize(
    "change",
    [
        {"fps": "fast"},
        {"fps": 0},
        {"features": []},
        {"features": {"action": 3}},
        {"features": {"observation.images.top": {"dtype": "video", "shape": []}}},
        {"total_frames": None},
        {"video_path": "videos/{camera}.mp4"},
        {"data_path": "data/{chunk_index"},
        {"codebase_version": None},
    ],
)
def test_meta_of_the_wrong_kind(change: dict, breakable: Path) -> None:
    info(**change)(breakable)
    (problem,) = check(breakable)
    assert problem.where.startswith(INFO)
