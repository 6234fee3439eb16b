"""Reading: datasets written by the real LeRobot, item by item as the real LeRobot reads them."""

from __future__ import annotations

import json
import pickle
import shutil
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from wamkit_client.types import BadInput

from wamkit.data.lerobot import dataset as lerobot
from wamkit.data.lerobot.dataset import Dataset
from wamkit.data.normalize import dataset_stats

FIXTURES = Path(__file__).parent / "fixtures"


@dataclass(frozen=True)
class Case:
    """A dataset, and what the real LeRobot reads from it."""

    root: Path
    version: str
    items: dict[str, np.ndarray]


@pytest.fixture(params=["v2.0", "v2.1", "v3.0", "v3.0-images"])
def case(request: pytest.FixtureRequest, tmp_path: Path) -> Case:
    written = "v2.1" if request.param == "v2.0" else request.param
    root = FIXTURES / written
    if request.param == "v2.0":
        root = as_v20(root, tmp_path / "v2.0")
    return Case(root, request.param.removesuffix("-images"), dict(np.load(FIXTURES / f"{written}.npz")))


def as_v20(source: Path, target: Path) -> Path:
    """v2.0 differs from v2.1 in its version and in where the statistics are; wamkit reads no statistics."""
    shutil.copytree(source, target)
    (target / "meta/episodes_stats.jsonl").unlink()
    (target / "meta/stats.json").write_text("{}")
    edit_info(target, codebase_version="v2.0")
    return target


def edit_info(root: Path, **changes: object) -> None:
    info = json.loads((root / "meta/info.json").read_text())
    (root / "meta/info.json").write_text(json.dumps(info | changes))


def test_facts(case: Case) -> None:
    dataset = Dataset.open(case.root)
    assert (dataset.version, dataset.fps, dataset.robot_type) == (case.version, 10, "testbot")
    assert dataset.cameras == ("top", "wrist")
    assert [(e.index, e.length, e.tasks) for e in dataset.episodes] == [
        (0, 12, ("push the button",)),
        (1, 9, ("open the drawer",)),
    ]
    assert dataset.total_steps == 21
    assert dataset.features["action"]["names"] == ["x", "y", "grip"]


def test_columns_and_instructions(case: Case) -> None:
    dataset = Dataset.open(case.root)
    for name in ("action", "observation.state", "timestamp", "index", "task_index"):
        read = np.concatenate([dataset.column(name, episode.index) for episode in dataset.episodes])
        assert read.dtype == case.items[name].dtype
        np.testing.assert_array_equal(read, case.items[name])
    told = [dataset.instruction(e.index, step) for e in dataset.episodes for step in range(e.length)]
    assert told == case.items["task"].tolist()


def test_frames_are_those_of_lerobot(case: Case) -> None:
    """Every pixel: its decoder and ours agree exactly."""
    dataset = Dataset.open(case.root)
    for camera in dataset.cameras:
        read = np.concatenate([dataset.frames(camera, e.index, range(e.length)) for e in dataset.episodes])
        np.testing.assert_array_equal(
            read[case.items["frame_rows"]], case.items[f"observation.images.{camera}"]
        )


def test_single_frames_are_those_of_whole_episodes(case: Case) -> None:
    dataset = Dataset.open(case.root)
    everything = dataset.frames("wrist", 1, range(9))
    np.testing.assert_array_equal(
        Dataset.open(case.root).frames("wrist", 1, [8, 3, 3]), everything[[8, 3, 3]]
    )


def test_reading_in_order_decodes_each_frame_once(recorded: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    decoded: list[int] = []
    real = lerobot.read_frames
    monkeypatch.setattr(
        lerobot, "read_frames", lambda path, times: decoded.append(len(times)) or real(path, times)
    )
    dataset = Dataset.open(recorded)
    for episode in dataset.episodes:
        for step in range(episode.length):
            dataset.frames("top", episode.index, [step])
    assert decoded == [1, 12, 1, 9, 1, 20]  # a first look, then the whole episode
    assert dataset._frames.currsize <= lerobot.FRAME_BYTES


def test_jumping_about_decodes_only_what_is_asked(recorded: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    decoded: list[int] = []
    real = lerobot.read_frames
    monkeypatch.setattr(
        lerobot, "read_frames", lambda path, times: decoded.append(len(times)) or real(path, times)
    )
    dataset = Dataset.open(recorded)
    for episode in (0, 1, 0, 2, 1):
        dataset.frames("top", episode, [0, 4])
    assert decoded == [2] * 5


def test_an_open_dataset_travels_to_another_process_without_what_it_holds(recorded: Path) -> None:
    dataset = Dataset.open(recorded)
    dataset.column("action", 0)
    copy = pickle.loads(pickle.dumps(dataset))
    assert dataset._columns.currsize > 0 == copy._columns.currsize
    np.testing.assert_array_equal(copy.frames("top", 1, [2]), dataset.frames("top", 1, [2]))


def test_what_is_shared_is_read_only(recorded: Path) -> None:
    dataset = Dataset.open(recorded)
    with pytest.raises(ValueError, match="read-only"):
        dataset.column("action", 0)[0] = 1
    with pytest.raises(ValueError, match="read-only"):
        dataset._every_frame("observation.images.top", 0)[0] = 1


def test_fingerprint_is_the_revision(recorded: Path, breakable: Path) -> None:
    before = Dataset.open(recorded).fingerprint()
    assert Dataset.open(breakable).fingerprint() == before  # a copy is the same data
    edit_info(breakable, robot_type="other")
    assert Dataset.open(breakable).fingerprint() != before


def test_task_text_in_an_ordinary_column_is_read(breakable: Path) -> None:
    """The real LeRobot would hand out the number here; `wamkit data check` says so."""
    table = pa.table({"task_index": [0, 1], "task": ["push the button", "open the drawer"]})
    pq.write_table(table, breakable / "meta/tasks.parquet")
    assert Dataset.open(breakable).instruction(1, 0) == "open the drawer"


def refused(root: Path, *words: str) -> None:
    with pytest.raises(BadInput) as error:
        Dataset.open(root)
    for word in words:
        assert word in str(error.value)


def test_what_cannot_be_opened(breakable: Path, tmp_path: Path) -> None:
    refused(tmp_path / "nothing", "meta/info.json", "is missing", "check the path")
    tasks = breakable / "meta/tasks.parquet"
    pq.write_table(pa.table({"task_index": [0, 1], "task": [0, 1]}), tasks)
    refused(breakable, "meta/tasks.parquet", "0.task: input should be a valid string, got 0", "in words")
    tasks.unlink()
    refused(breakable, "meta/tasks.parquet", "is missing")


def test_versions_and_keys(breakable: Path) -> None:
    info = (breakable / "meta/info.json").read_text()
    edit_info(breakable, codebase_version="v1.6")
    refused(breakable, "meta/info.json", "'v1.6'", "v2.0, v2.1, v3.0")
    (breakable / "meta/info.json").write_text(info.replace('"fps"', '"rate"'))
    refused(breakable, "meta/info.json", "'fps'")
    (breakable / "meta/info.json").write_text(info[:100])
    refused(breakable, "meta/info.json", "is not JSON")


def test_files(breakable: Path) -> None:
    data = breakable / "data/chunk-000/file-000.parquet"
    whole = data.read_bytes()
    data.write_bytes(whole[:-20])
    dataset = Dataset.open(breakable)
    with pytest.raises(BadInput, match=r"file-000\.parquet: is truncated"):
        dataset.column("action", 0)
    data.unlink()
    refused(breakable, "data/chunk-000/file-000.parquet", "is missing (episode 0)")
    data.write_bytes(whole)
    (breakable / "videos/observation.images.top/chunk-000/file-000.mp4").unlink()
    refused(breakable, "observation.images.top", "is missing")


def set_actions(root: Path, values: np.ndarray) -> None:
    """Other actions in the data file: [41, d]."""
    file = root / "data/chunk-000/file-000.parquet"
    table = pq.read_table(file)
    at = table.column_names.index("action")
    pq.write_table(table.set_column(at, "action", pa.array(list(values.astype(np.float32)))), file)


def stats(root: Path) -> None:
    """What encode and train begin with."""
    dataset = Dataset.open(root)
    dataset_stats(dataset, dataset.episodes)


def test_columns_of_another_width_are_refused_when_they_are_read(breakable: Path) -> None:
    set_actions(breakable, np.random.default_rng(0).normal(size=(41, 4)))
    words = r"file-000\.parquet: action has 4 dimension\(s\), meta/info\.json says 3; correct either"
    with pytest.raises(BadInput, match=words):
        Dataset.open(breakable).column("action", 0)
    with pytest.raises(BadInput, match=words):
        stats(breakable)


def test_numbers_that_are_not_finite_are_named_by_episode_and_step(breakable: Path) -> None:
    values = np.random.default_rng(0).normal(size=(41, 3))
    values[12 + 4, 2] = np.nan
    set_actions(breakable, values)
    words = r"file-000\.parquet: action is nan in episode 1, step 4, dimension 2; correct the value"
    with pytest.raises(BadInput, match=words):
        stats(breakable)


def test_every_row_of_a_column(recorded: Path) -> None:
    dataset = Dataset.open(recorded)
    rows = dataset.rows("action", dataset.episodes)
    np.testing.assert_array_equal(rows[12:21], dataset.column("action", 1))
    assert rows.shape == (41, 3) and dataset.rows("next.success", dataset.episodes[1:]).shape == (29, 1)


def test_episodes_that_share_frames_are_refused(breakable: Path) -> None:
    """With every from_timestamp 0, every episode was given the frames of the first."""
    file = breakable / "meta/episodes/chunk-000/file-000.parquet"
    table = pq.read_table(file)
    name = "videos/observation.images.wrist/from_timestamp"
    at = table.column_names.index(name)
    pq.write_table(table.set_column(at, name, pa.array([0.0, 0.0, 0.0])), file)
    refused(
        breakable,
        "meta/episodes: episode 1 begins at 0.0000 s of videos/observation.images.wrist/chunk-000/file-000.mp4",
        "before episode 0 ends there (1.2000 s): it would be given that episode's frames",
    )


def test_paths_that_lead_outside_are_refused(breakable: Path) -> None:
    (breakable.parent / "secret").write_text("x")
    edit_info(breakable, data_path="data/../../secret")
    refused(breakable, "meta/info.json", "'data/../../secret' does not stay in the folders data and videos")


def test_a_broken_video_names_episode_and_steps(breakable: Path) -> None:
    video = breakable / "videos/observation.images.top/chunk-000/file-000.mp4"
    video.write_bytes(video.read_bytes()[:2000])
    with pytest.raises(BadInput, match=r"file-000\.mp4: is truncated .*\(episode 1, steps 3 to 5\)"):
        Dataset.open(breakable).frames("top", 1, [3, 5])


def test_questions_that_have_no_answer(recorded: Path) -> None:
    dataset = Dataset.open(recorded)
    with pytest.raises(BadInput, match=r"no camera 'front'; it has \['top', 'wrist'\]"):
        dataset.frames("front", 0, [0])
    with pytest.raises(BadInput, match="no episode 7"):
        dataset.column("action", 7)
    with pytest.raises(BadInput, match="'force' is missing"):
        dataset.column("force", 0)
    with pytest.raises(IndexError, match="12 steps"):
        dataset.frames("top", 0, [12])


@pytest.mark.parametrize(
    ("columns_kept", "read"),
    [
        (2, ["index", "frame_index", "task_index", "frame_index"]),
        (0, ["index", "frame_index", "index", "task_index", "index", "frame_index"]),
    ],
)
def test_what_was_used_least_recently_is_read_again(
    recorded: Path, monkeypatch: pytest.MonkeyPatch, columns_kept: int, read: list[str]
) -> None:
    one_column, done = 41 * 8, []
    monkeypatch.setattr(lerobot, "COLUMN_BYTES", columns_kept * one_column)
    dataset = Dataset.open(recorded)
    dataset._rows(0)
    real = lerobot.read_parquet
    monkeypatch.setattr(lerobot, "read_parquet", lambda *of: done.extend(of[2]) or real(*of))
    for name in ("index", "frame_index", "index", "task_index", "index", "frame_index"):
        assert len(dataset.column(name, 0)) == 12
        assert dataset._columns.currsize <= columns_kept * one_column
    assert done == read


def test_memory_stays_bounded(recorded: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    one_episode = 12 * 32 * 48 * 3
    monkeypatch.setattr(lerobot, "FRAME_BYTES", 2 * one_episode)
    dataset = Dataset.open(recorded)
    for _ in range(3):
        for camera in dataset.cameras:
            for episode in dataset.episodes:
                for step in range(episode.length):
                    dataset.frames(camera, episode.index, [step])
                    assert dataset._frames.currsize <= 2 * one_episode
    assert dataset._frames.currsize > 0
