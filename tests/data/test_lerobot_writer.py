"""Writing: exactly the files of v3.0, and nothing finished is lost whenever the process dies."""

from __future__ import annotations

import errno
import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from wamkit_client.types import BadInput

from tests.data import recording
from tests.until import until
from wamkit.data.check import check
from wamkit.data.lerobot import writer as lerobot_writer
from wamkit.data.lerobot.dataset import Dataset
from wamkit.data.lerobot.writer import Writer
from wamkit.io.files import LOCK

ROOT = Path(__file__).parents[2]


def test_what_was_written_is_read(recorded: Path) -> None:
    dataset = Dataset.open(recorded)
    assert dataset.fps == recording.FPS and dataset.robot_type == "testbot"
    for episode, length in enumerate(recording.LENGTHS):
        for name, values in recording.columns(episode, length).items():
            np.testing.assert_array_equal(dataset.column(name, episode), values)
        assert dataset.instruction(episode, length - 1) == recording.TASKS[episode]
        for camera in dataset.cameras:
            frames = dataset.frames(camera, episode, range(length)).astype(int)
            assert np.abs(frames - recording.pictures(episode, length, camera)).mean() < 4
    assert dataset.episode_column("initial_state") == [[0.5, 0.0], [0.5, 1.0], [0.5, 2.0]]
    assert dataset.episode_column("seed") == [0, 1, 2]


def test_data_file(recorded: Path) -> None:
    parquet = pq.ParquetFile(recorded / "data/chunk-000/file-000.parquet")
    groups = [parquet.metadata.row_group(i) for i in range(parquet.metadata.num_row_groups)]
    assert tuple(group.num_rows for group in groups) == recording.LENGTHS
    assert groups[0].column(0).compression == "SNAPPY"
    types = {field.name: str(field.type) for field in parquet.schema_arrow}
    assert types == {
        "action": "fixed_size_list<element: float>[3]",
        "observation.state": "fixed_size_list<element: float>[2]",
        "next.success": "bool",
        "timestamp": "float",
        "frame_index": "int64",
        "episode_index": "int64",
        "index": "int64",
        "task_index": "int64",
    }
    assert parquet.read(["index"])["index"].to_pylist() == list(range(sum(recording.LENGTHS)))


def test_tasks_are_the_pandas_index(recorded: Path) -> None:
    schema = pq.read_schema(recorded / "meta/tasks.parquet")
    assert json.loads(schema.metadata[b"pandas"])["index_columns"] == ["__index_level_0__"]
    table = pq.read_table(recorded / "meta/tasks.parquet").to_pydict()
    assert table == {"task_index": [0, 1], "__index_level_0__": ["push the button", "open the drawer"]}


def test_same_meta_columns_and_keys_as_the_real_lerobot(recorded: Path) -> None:
    """Against the dataset the real LeRobot wrote, for the features both have."""
    real = Path(__file__).parent / "fixtures/v3.0/meta"
    own = recorded / "meta"
    file = "episodes/chunk-000/file-000.parquet"

    def types(meta: Path) -> dict[str, str]:
        fields = pq.read_schema(meta / file)
        return {
            f.name: str(f.type)
            for f in fields
            if "next." not in f.name and f.name not in ("seed", "initial_state")
        }

    assert types(own) == types(real)

    def described(meta: Path) -> tuple[set[str], set[str]]:
        info = json.loads((meta / "info.json").read_text())
        camera = info["features"]["observation.images.top"]
        return set(info), set(camera) | set(camera["info"])

    assert described(own) == described(real)
    stats = json.loads((own / "stats.json").read_text())["observation.images.top"]
    expected = json.loads((real / "stats.json").read_text())["observation.images.top"]
    assert stats.keys() == expected.keys()
    assert {name: np.shape(value) for name, value in stats.items()} == {
        name: np.shape(value) for name, value in expected.items()
    }


def test_statistics(recorded: Path) -> None:
    rows = [recording.columns(e, length)["action"] for e, length in enumerate(recording.LENGTHS)]
    overall = json.loads((recorded / "meta/stats.json").read_text())
    np.testing.assert_allclose(
        overall["action"]["q90"], np.quantile(np.concatenate(rows).astype(np.float64), 0.9, axis=0)
    )
    episodes = pq.read_table(recorded / "meta/episodes/chunk-000/file-000.parquet").to_pylist()
    for episode, values in zip(episodes, rows, strict=True):
        np.testing.assert_allclose(episode["stats/action/std"], values.astype(np.float64).std(0))
        assert episode["stats/action/count"] == [len(values)]
        frames = recording.pictures(episode["episode_index"], len(values))
        mean = np.squeeze(episode["stats/observation.images.top/mean"])
        np.testing.assert_allclose(mean, frames.mean((0, 1, 2)) / 255)
        assert episode["stats/observation.images.top/count"] == [len(values)]


def test_large_recordings_are_split(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("wamkit.data.lerobot.pack.VIDEO_MEGABYTES", 0.01)
    monkeypatch.setattr("wamkit.data.lerobot.pack.DATA_MEGABYTES", 0.004)
    monkeypatch.setattr("wamkit.data.lerobot.pack.CHUNK_FILES", 2)
    root = recording.write(tmp_path / "split", episodes=6)
    files = {file.relative_to(root).as_posix() for file in root.rglob("data/*/*.parquet")}
    assert "data/chunk-001/file-000.parquet" in files
    assert len(list(root.rglob("observation.images.top/*/*.mp4"))) > 1
    assert check(root) == []
    frames = Dataset.open(root).frames("wrist", 4, range(9)).astype(int)
    assert np.abs(frames - recording.pictures(4, 9, "wrist")).mean() < 4


KILLED = """
import sys
from tests.data import recording
from tests.until import until
from wamkit.data.lerobot.writer import Writer
writer = Writer.create(sys.argv[1], recording.FPS, "testbot", recording.FEATURES)
for episode in range(10_000):
    recording.add(writer, episode)
"""


def test_staged_episodes_survive_a_kill(tmp_path: Path) -> None:
    root = tmp_path / "killed"
    process = subprocess.Popen([sys.executable, "-c", KILLED, str(root)], cwd=ROOT)
    until(lambda: process.poll() is not None or len(list(root.glob(".staging/*/episode.json"))) >= 4)
    process.kill()
    assert process.wait() == -signal.SIGKILL
    with pytest.raises(BadInput, match="unfinished recording"):
        Dataset.open(root)
    assert Writer.unfinished(root)
    writer = Writer.resume(root)
    kept = len(writer.staged)
    assert kept >= 3 and [episode.index for episode in writer.staged] == list(range(kept))
    assert writer.staged[2].extra == {"initial_state": [0.5, 2], "seed": 2}
    recording.add(writer, kept)
    writer.finalize()
    assert check(root) == []
    assert len(Dataset.open(root).episodes) == kept + 1
    assert not Writer.unfinished(root)


def begun(root: Path, episodes: int) -> Writer:
    writer = Writer.create(root, recording.FPS, "testbot", recording.FEATURES)
    for episode in range(episodes):
        recording.add(writer, episode)
    return writer


def seeds(writer: Writer) -> list[object]:
    return [episode.extra["seed"] for episode in writer.staged]


@pytest.mark.parametrize("lost", ["columns.parquet", "episode.json", "observation.images.top.mp4", "."])
def test_an_episode_that_was_taken_away_unfinished(tmp_path: Path, lost: str) -> None:
    """Two processes wrote the same draft; one renamed it before the other had written all files."""
    root = tmp_path / "dataset"
    begun(root, 4)
    damaged = root / ".staging" / "episode-000001"
    shutil.rmtree(damaged) if lost == "." else (damaged / lost).unlink()
    writer = Writer.resume(root)
    assert seeds(writer) == [0, 2, 3]
    recording.add(writer, 4)
    assert seeds(Writer.resume(root)) == [0, 2, 3, 4]
    repeated = Writer.resume(root, repeatable=True)
    assert seeds(repeated) == [0]
    for episode in (1, 2):
        recording.add(repeated, episode)
    assert seeds(Writer.resume(root, repeatable=True)) == [0, 1, 2]
    repeated.finalize()
    assert check(root) == []


def test_a_recording_that_was_killed_before_its_plan(tmp_path: Path) -> None:
    (tmp_path / ".staging").mkdir()
    (tmp_path / ".staging" / "plan.draft").write_text('{"fps": ')
    (tmp_path / LOCK).touch()
    writer = begun(tmp_path, 1)
    writer.finalize()
    assert check(tmp_path) == []


def test_a_recording_that_was_killed_at_its_very_end(tmp_path: Path, recorded: Path) -> None:
    root = tmp_path / "dataset"
    shutil.copytree(recorded, root)
    (root / ".staging" / "episode-000003.draft").mkdir(parents=True)
    assert Writer.finished(root) and check(root) == []
    assert not Writer.finished(tmp_path / "nothing")
    shutil.rmtree(root / "data")
    with pytest.raises(BadInput, match=rf"meta/ is there, data/ is not; remove {root}"):
        Writer.finished(root)


def test_a_full_disk_costs_nothing_that_was_written(disk: Callable[[str], Path]) -> None:
    folder = disk("256k")
    root = folder / "dataset"
    writer = begun(root, 3)
    filler = folder / "filler"

    def fill(left: int) -> None:
        filler.write_bytes(b"")
        free = os.statvfs(folder)
        filler.write_bytes(bytes(free.f_bavail * free.f_frsize - left))

    page = os.sysconf("SC_PAGE_SIZE")
    for pages in (0, 1, 2):  # no room for columns, for the first video, for the second
        fill(pages * page)
        for work in (lambda: recording.add(writer, 3), writer.finalize):
            with pytest.raises(OSError, match="No space left") as caught:
                work()
            assert caught.value.errno == errno.ENOSPC
            names = [f"episode-00000{number}" for number in range(3)]
            assert sorted(path.name for path in root.glob(".staging/*")) == [*names, "plan.json"]
    filler.unlink()
    again = Writer.resume(root)
    recording.add(again, 3)
    assert seeds(again) == [0, 1, 2, 3]
    again.finalize()
    assert check(root) == []


def test_a_kill_while_finalizing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """After each of the renames that make the dataset appear."""
    root = tmp_path / "dataset"
    writer = Writer.create(root, recording.FPS, "testbot", recording.FEATURES)
    recording.add(writer, 0)
    recording.add(writer, 1)
    real = os.replace
    for survived in range(3):
        allowed = iter([True] * survived)

        def replace(source: Path, target: Path, allowed=allowed) -> None:
            if not next(allowed, False):
                raise KeyboardInterrupt
            real(source, target)

        monkeypatch.setattr(lerobot_writer.os, "replace", replace)
        with pytest.raises(KeyboardInterrupt):
            Writer.resume(root).finalize()
        monkeypatch.undo()
        assert Writer.unfinished(root) and len(Writer.resume(root).staged) == 2
    Writer.resume(root).finalize()
    assert check(root) == []


def test_folders(tmp_path: Path, recorded: Path) -> None:
    with pytest.raises(BadInput, match="is not empty"):
        Writer.create(recorded, 10, "testbot", recording.FEATURES)
    with pytest.raises(BadInput, match="no unfinished recording"):
        Writer.resume(recorded)
    writer = Writer.create(tmp_path / "empty", 10, "testbot", recording.FEATURES)
    with pytest.raises(BadInput, match="no episode was added"):
        writer.finalize()
    recording.add(writer, 0)
    writer.finalize()
    for again in (writer.finalize, lambda: recording.add(writer, 1)):
        with pytest.raises(BadInput, match="finalized already"):
            again()


@pytest.mark.parametrize(
    ("name", "feature", "message"),
    [
        ("index", {"dtype": "int64", "shape": [1]}, "is added by the writer"),
        ("observation.images.a", {"dtype": "video", "shape": [3, 32, 32]}, r"expected \[height, width, 3\]"),
        ("front", {"dtype": "video", "shape": [32, 32, 3]}, "observation.images"),
        ("pose", {"dtype": "float32", "shape": [4, 4]}, "flatten it"),
        ("note", {"dtype": "string", "shape": [1]}, "expected 'video' or one of"),
    ],
)
def test_features_that_cannot_be_written(tmp_path: Path, name: str, feature: dict, message: str) -> None:
    with pytest.raises(BadInput, match=message):
        Writer.create(tmp_path / "dataset", 10, "testbot", {name: feature})
    assert not (tmp_path / "dataset").exists()


def test_episodes_that_are_refused_leave_nothing(tmp_path: Path) -> None:
    writer = Writer.create(tmp_path / "dataset", 10, "testbot", recording.FEATURES)
    columns, top, wrist = recording.columns(0, 5), recording.pictures(0, 5), recording.pictures(0, 5, "wrist")
    videos = {"top": top, "wrist": wrist}
    nan = columns | {"action": np.where(np.arange(5)[:, None] == 3, np.nan, columns["action"])}
    for message, arguments in {
        "no task text": (columns, videos, " "),
        r"\['observation.images.wrist'\] are missing": (columns, {"top": top}, "go"),
        "'force'": (columns | {"force": columns["action"]}, videos, "go"),
        r"action is \[2\] per step; expected \[3\]": (columns | {"action": np.zeros((5, 2))}, videos, "go"),
        "same number above 0": (columns, {"top": top[:4], "wrist": wrist}, "go"),
        "not finite at step 3": (nan, videos, "go"),
    }.items():
        with pytest.raises(BadInput, match=message):
            writer.add_episode(*arguments)
    writer.add_episode(columns, videos, "go", {"seed": 1})
    with pytest.raises(BadInput, match=r"expected \['seed'\] as in episode 0"):
        writer.add_episode(columns, videos, "go", {"state": 1})
    assert len(Writer.resume(tmp_path / "dataset").staged) == 1


def test_staging_is_gone_and_files_have_their_places(recorded: Path) -> None:
    assert sorted(path.name for path in recorded.iterdir()) == ["data", "meta", "videos"]
    assert not list(recorded.rglob("*.draft"))
