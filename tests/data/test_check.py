"""Each fault is found, by file, and nothing else is reported; a broken dataset never makes the check fail."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from wamkit_client.types import BadInput

from tests.data import recording
from wamkit.data.check import STATE, check, remarks
from wamkit.data.lerobot.dataset import Dataset
from wamkit.data.lerobot.video import VideoCodec, write_video
from wamkit.data.lerobot.writer import Writer

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
    assert check(recorded) == [] and remarks(recorded) == []


def test_a_dataset_without_proprio_is_sound_and_says_so(tmp_path: Path) -> None:
    """And each camera has its own size, and the rate is no whole number."""
    features = {name: feature for name, feature in recording.FEATURES.items() if name != STATE}
    features["observation.images.wrist"] = {"dtype": "video", "shape": [16, 24, 3]}
    writer = Writer.create(tmp_path, 12.5, "testbot", features)
    columns = recording.columns(0, 12)
    del columns[STATE]
    top, wrist = recording.pictures(0, 12), recording.pictures(0, 12, "wrist")[:, ::2, ::2]
    writer.add_episode(columns, {"top": top, "wrist": wrist}, "go")
    writer.finalize()
    assert check(tmp_path) == []
    assert remarks(tmp_path) == [
        "meta/info.json: no 'observation.state'; it trains policies without proprio only"
    ]
    dataset = Dataset.open(tmp_path)
    assert dataset.fps == 12.5 and STATE not in dataset.features
    assert [dataset.frames(camera, 0, [3]).shape for camera in ("top", "wrist")] == [
        (1, 32, 48, 3),
        (1, 16, 24, 3),
    ]
    with pytest.raises(BadInput, match=r"column 'observation.state' is missing"):
        dataset.column(STATE, 0)
    (tmp_path / INFO).unlink()
    assert remarks(tmp_path) == []


def test_a_dataset_without_actions_or_cameras_trains_nothing(breakable: Path) -> None:
    info(features={})(breakable)
    found = "\n".join(map(str, check(breakable)))
    assert "no feature 'action'; a policy cannot be trained" in found and "no camera; " in found


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


def episodes(name: str, values: list) -> Break:
    """Replace a column of meta/episodes."""

    def apply(root: Path) -> None:
        table = pq.read_table(root / EPISODES)
        at = table.column_names.index(name)
        pq.write_table(table.set_column(at, name, pa.array(values)), root / EPISODES)

    return apply


def start(*seconds: float) -> Break:
    return episodes("videos/observation.images.top/from_timestamp", list(seconds))


def end(*seconds: float) -> Break:
    return episodes("videos/observation.images.top/to_timestamp", list(seconds))


def wider(name: str, width: int) -> Break:
    """Vectors of another width in the data file."""

    def apply(root: Path) -> None:
        table = pq.read_table(root / DATA)
        values = list(np.random.default_rng(0).normal(size=(len(table), width)).astype(np.float32))
        at = table.column_names.index(name)
        pq.write_table(table.set_column(at, name, pa.array(values)), root / DATA)

    return apply


def feature(name: str, **changes: object) -> Break:
    def apply(root: Path) -> None:
        raw = json.loads((root / INFO).read_text())
        raw["features"][name] |= changes
        (root / INFO).write_text(json.dumps(raw))

    return apply


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
        ("action has 1 value(s)", "first in episode 1, frame 1", "correct"),
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
    "task is a number": (
        tasks(task_index=[0, 1], task=[0, 1]),
        TASKS,
        ("0.task: input should be a valid string, got 0", "in words"),
    ),
    "task as column": (
        tasks(task_index=[0, 1], task=["push the button", "open the drawer"]),
        TASKS,
        ("not the pandas index", "hands policies the number", "pandas: DataFrame"),
    ),
    "video missing": (remove(VIDEO), VIDEO, ("is missing",)),
    "video truncated": (truncate(VIDEO), VIDEO, ("truncated",)),
    "video short": (shorter_video, VIDEO, ("38 frames, its episodes have 41",)),
    "video short, where": (shorter_video, VIDEO, ("episode 2 lacks 3 frame(s), first frame 17",)),
    "video size": (smaller_pictures, VIDEO, ("images are 16x16", "says 32x48")),
    "video damaged": (damage, VIDEO, ("does not decode",)),
    "video damaged, where": (damage, VIDEO, ("episode 1 lacks", "and 1 more episodes")),
    "many problems": (info(fps=11), DATA, ("timestamps of episode 0 have 11 gap(s)", "or correct fps")),
    "stray": (stray, VIDEO.replace("file-000", "file-001"), ("belongs to no episode",)),
    "all begin at 0": (
        start(0.0, 0.0, 0.0),
        EPISODES,
        (f"episode 1 begins at 0.0000 s of {VIDEO}, before episode 0 ends", "that episode's frames"),
    ),
    "one frame early": (start(0.0, 1.1, 2.1), EPISODES, ("episode 1 begins at 1.1000 s", "(1.2000 s)")),
    "exchanged": (start(1.2, 0.0, 2.1), EPISODES, ("episode 0 has 12 steps", "from 1.2000 to 1.2000 s")),
    "another order": (
        lambda root: [change(root) for change in (start(0.9, 0.0, 2.1), end(2.1, 0.9, 4.1))],
        EPISODES,
        ("episode 1 begins at 0.0000 s", "before episode 0 ends"),
    ),
    "too short a piece": (
        end(1.1, 2.1, 4.1),
        EPISODES,
        ("episode 0 has 12 steps, 1.2000 s at 10 frames per second", "from 0.0000 to 1.1000 s"),
    ),
    "before the video": (start(-1.0, 1.2, 2.1), EPISODES, ("is -1 in episode 0",)),
    "no time": (start(float("nan"), 1.2, 2.1), EPISODES, ("is nan in episode 0",)),
    "never ends": (end(1.2, 2.1, float("nan")), EPISODES, ("episode 2 has 20 steps", "to nan s")),
    "begins in another file": (start(5.0, 6.2, 7.1), EPISODES, ("episode 0 has 12 steps",)),
    "listed twice": (episodes("episode_index", [0, 1, 1]), EPISODES, ("episode 1 is listed twice",)),
    "negative index": (episodes("episode_index", [-1, 0, 1]), EPISODES, ("episode -1 has length 12",)),
    "no step": (episodes("length", [12, 0, 20]), EPISODES, ("episode 1 has length 0",)),
    "endless": (episodes("length", [12, 2**62, 20]), EPISODES, (f"episode 1 has length {2**62}",)),
    "action of another width": (
        wider("action", 4),
        DATA,
        ("action has 4 dimension(s), meta/info.json says 3; correct either",),
    ),
    "vector as frame_index": (wider("frame_index", 2), DATA, ("frame_index has 2 dimension(s)",)),
    "task_index is no whole number": (
        lambda root: pq.write_table(
            (t := pq.read_table(root / DATA)).set_column(
                t.column_names.index("task_index"), "task_index", pa.array(np.zeros(41, np.float32))
            ),
            root / DATA,
        ),
        DATA,
        ("task_index is float32, expected whole numbers",),
    ),
    "outside": (
        info(data_path="../../etc/{chunk_index}{file_index}"),
        INFO,
        ("the path '../../etc/00' does not stay in the folders data and videos", "restore"),
    ),
    "outside, from inside": (info(data_path="data/../../passwd"), INFO, ("'data/../../passwd'",)),
    "absolute": (info(video_path="/etc/passwd"), INFO, ("'/etc/passwd' does not stay",)),
    "attributes": (
        info(data_path="data/{chunk_index.__class__}"),
        INFO,
        ("it may ask for chunk_index, file_index as numbers", "restore LeRobot's template"),
    ),
    "endless name": (
        info(data_path="data/{chunk_index:099999999999d}"),
        INFO,
        ("is 'data/{chunk_index:0999",),
    ),
    "no template": (info(video_path=None), INFO, ("video_path is missing",)),
    "fps NaN": (info(fps=float("nan")), INFO, ("fps: input should be", "got nan")),
    "fps infinite": (info(fps=float("inf")), INFO, ("fps: input should be", "got inf")),
    "no chunks": (
        info(chunks_size=0),
        INFO,
        ("chunks_size: input should be greater", "got 0"),
    ),
    "negative shape": (
        feature("action", shape=[-3]),
        INFO,
        ("action.shape.0: input should be greater", "got -3"),
    ),
    "leftover": (lambda root: (root / ".staging").mkdir(), ".staging", ("left over", "delete")),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_faults(fault: str, breakable: Path) -> None:
    apply, where, words = FAULTS[fault]
    apply(breakable)
    lines = [str(problem) for problem in check(breakable)]
    where = where if where != EPISODES else "meta/episodes"
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


def test_a_camera_that_leads_outside(breakable: Path, tmp_path: Path) -> None:
    """Its key becomes part of a path; a link of the same name would be the user's own."""
    raw = json.loads((breakable / INFO).read_text())
    raw["features"]["../../outside"] = raw["features"].pop("observation.images.top")
    (breakable / INFO).write_text(json.dumps(raw))
    table = pq.read_table(breakable / EPISODES)
    names = [name.replace("observation.images.top", "../../outside") for name in table.column_names]
    pq.write_table(table.rename_columns(names), breakable / EPISODES)
    (problem,) = check(breakable)
    assert "'videos/../../outside/chunk-000/file-000.mp4' does not stay in" in str(problem)


def test_spans_may_be_rounded(breakable: Path) -> None:
    """LeRobot adds up durations in floating point, also in float32."""
    start(*(np.float32([0.0, 1.2, 2.1]) + 3e-6).tolist())(breakable)
    end(*(np.float32([1.2, 2.1, 4.1]) - 3e-6).tolist())(breakable)
    assert check(breakable) == []
    episodes_without_ends = pq.read_table(breakable / EPISODES)
    kept = [name for name in episodes_without_ends.column_names if "to_timestamp" not in name]
    pq.write_table(episodes_without_ends.select(kept), breakable / EPISODES)
    assert check(breakable) == []


@pytest.mark.parametrize(
    ("tasks", "words"),
    [
        ('{"task_index": 0, "task": "\\ud83d"}', "0.task: value error.*surrogates"),
        ('{"task_index": 0}', "'0.task' is missing"),
        ('{"task_index": 0, "task": "a"}\n{"task_index": 0, "task": "b"}', "task 0 is there 2 times"),
        ("[0]", r"is not a file of JSON lines \(\[0\] is no object\)"),
    ],
)
def test_version_2_with_tasks_that_are_no_sentences(tmp_path: Path, tasks: str, words: str) -> None:
    root = Path(shutil.copytree(Path(__file__).parent / "fixtures/v2.1", tmp_path / "v2.1"))
    (root / "meta/tasks.jsonl").write_text(tasks)
    with pytest.raises(BadInput, match=r"meta/tasks\.jsonl: " + words):
        Dataset.open(root)
    assert [problem.where for problem in check(root)] == ["meta/tasks.jsonl"]


def test_version_2_with_numbers_that_cannot_be(tmp_path: Path) -> None:
    fixture = Path(__file__).parent / "fixtures/v2.1"
    lines = (fixture / "meta/episodes.jsonl").read_text()
    for number, (old, new, words) in enumerate(
        (
            ('"length": 9', '"length": -9', "episode 1 has length -9"),
            ('"length": 9', f'"length": 1{"0" * 400}', "episode 1 has length 1000"),
            ('"episode_index": 1', '"episode_index": 0', "episode 0 is listed twice"),
            ('"tasks": ["open', '"tasks": [7, "open', "got 7"),
            ("{", "[" * 100_000, "is not a file of JSON lines"),
            ("9", "9" * 5000, "is not a file of JSON lines"),
        )
    ):
        root = Path(shutil.copytree(fixture, tmp_path / str(number)))
        (root / "meta/episodes.jsonl").write_text(lines.replace(old, new, 1))
        (problem,) = check(root)
        assert problem.where == "meta/episodes.jsonl" and words in problem.what and len(str(problem)) < 300
        with pytest.raises(BadInput, match=words):
            Dataset.open(root)
    info(chunks_size=0)(root)
    (problem,) = check(root)
    assert "chunks_size: input should be greater than or equal to 1, got 0; correct" in str(problem)


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
        {"video_path": "videos/{video_key:03d}/{chunk_index}/{file_index}.mp4"},
        {"data_path": "data/{chunk_index!r}/{file_index}.parquet"},
        {"data_path": "data/{video_key}/{chunk_index}/{file_index}.parquet"},
        {"data_path": "data/{}/{0}.parquet"},
        {"data_path": "data/{episode_index:06d}.parquet"},
        {"data_path": "data/{chunk_index"},
        {"codebase_version": None},
    ],
)
def test_meta_of_the_wrong_kind(change: dict, breakable: Path) -> None:
    info(**change)(breakable)
    (problem,) = check(breakable)
    assert problem.where.startswith(INFO)
