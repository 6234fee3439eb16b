"""Links are followed, what is not there is named, and single pictures cost neither the whole file nor its memory."""

from __future__ import annotations

import io
import json
import re
import shutil
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from tests.data import recording
from wamkit.data.check import check
from wamkit.data.lerobot import dataset as lerobot
from wamkit.data.lerobot.dataset import Dataset
from wamkit.data.lerobot.disk import Broken, expect, files_below

DATA = "data/chunk-000/file-000.parquet"
TOP = "videos/observation.images.top"
PARTS = ("meta", "data", "videos")
VIDEO = f"{TOP}/chunk-000/file-000.mp4"


def moved(path: Path, target: Path) -> None:
    """The file or folder at another place, and a link to it here."""
    path.rename(target)
    path.symlink_to(target)


def test_linked_files_and_folders_are_as_good_as_the_real_ones(
    breakable: Path, recorded: Path, tmp_path: Path
) -> None:
    moved(breakable / TOP, tmp_path / "camera")
    moved(breakable / DATA, tmp_path / "data.parquet")
    moved(breakable / "meta/episodes", tmp_path / "episodes")
    assert check(breakable) == []
    linked, real = Dataset.open(breakable), Dataset.open(recorded)
    np.testing.assert_array_equal(linked.frames("top", 1, [3]), real.frames("top", 1, [3]))
    assert linked.fingerprint() == real.fingerprint()


def test_links_that_lead_back_end(breakable: Path, recorded: Path) -> None:
    (breakable / TOP / "up").symlink_to("..")
    (breakable / "data/all").symlink_to(breakable)
    files = files_below(breakable, *PARTS)
    assert {*files_below(recorded, *PARTS)} < {*files} and len(files) < 50
    Dataset.open(breakable).fingerprint()
    assert all("belongs to no episode" in str(problem) for problem in check(breakable))


@pytest.mark.parametrize(
    ("place", "target", "words"),
    [
        (DATA, "gone", "is missing: it is a symbolic link to gone, where nothing is"),
        (VIDEO, "/gone/file.mp4", "is missing: it is a symbolic link to /gone/file.mp4, where nothing is"),
        (VIDEO, "file-000.mp4", "is a symbolic link that leads to itself"),
        (TOP, "gone", f"is missing: {TOP} is a symbolic link to gone, where nothing is"),
        ("meta/tasks.parquet", "gone", "is missing: it is a symbolic link to gone, where nothing is"),
        ("meta/info.json", "gone", "is missing: it is a symbolic link to gone, where nothing is"),
    ],
)
def test_links_that_lead_nowhere_are_named(
    place: str, target: str, words: str, breakable: Path, tmp_path: Path
) -> None:
    (breakable / place).rename(tmp_path / "taken away")
    (breakable / place).symlink_to(target)
    with pytest.raises(Broken, match=re.escape(words)) as error:
        Dataset.open(breakable)
    for found in (error.value, *check(breakable)[:1]):
        assert words in str(found) and "; repair the link" in str(found)


def test_what_is_no_file_is_named(breakable: Path) -> None:
    (breakable / DATA).unlink()
    (breakable / DATA).mkdir()
    with pytest.raises(Broken, match="is a folder where a file is needed"):
        expect(breakable, DATA)
    with pytest.raises(Broken, match=r"meta/info\.json/deeper: is missing"):
        expect(breakable, "meta/info.json/deeper")
    with pytest.raises(Broken, match=r"cannot be read \(file name too long\)"):
        expect(breakable, "a" * 300)


@pytest.mark.parametrize("file", [DATA, VIDEO, "meta/info.json", "meta/tasks.parquet"])
def test_a_pointer_of_git_lfs_says_git_lfs_pull(file: str, breakable: Path) -> None:
    (breakable / file).write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n")
    words = f"{file}: is a Git LFS pointer, not the file itself"
    with pytest.raises(Broken, match=re.escape(words)) as error:
        Dataset.open(breakable)
    assert "git lfs pull" in str(error.value)
    (problem,) = check(breakable)
    assert str(problem).startswith(words) and "git lfs pull" in str(problem)


EPISODES, LENGTH, SIZE = 12, 20, 64


def with_pictures(root: Path, row_group: int) -> Path:
    """A dataset whose camera is an image feature: noise, which does not compress; many episodes in one file."""
    random = np.random.default_rng(0)
    recording.write(root, episodes=1)
    shutil.rmtree(root / "videos")
    info = json.loads((root / "meta/info.json").read_text())
    info |= {"total_episodes": EPISODES, "total_frames": EPISODES * LENGTH, "video_path": None}
    info["features"].pop("observation.images.wrist")
    info["features"]["observation.images.top"] = {"dtype": "image", "shape": [SIZE, SIZE, 3], "names": None}
    (root / "meta/info.json").write_text(json.dumps(info))
    rows = EPISODES * LENGTH
    steps = np.arange(rows)
    pictures = random.integers(0, 256, (rows, SIZE, SIZE, 3), dtype=np.uint8)
    cells = []
    for pixels in pictures:
        buffer = io.BytesIO()
        Image.fromarray(pixels).save(buffer, "PNG")
        cells.append({"bytes": buffer.getvalue(), "path": None})
    table = {
        "action": list(random.normal(size=(rows, 3)).astype(np.float32)),
        "observation.state": list(random.normal(size=(rows, 2)).astype(np.float32)),
        "next.success": steps % LENGTH == LENGTH - 1,
        "observation.images.top": cells,
        "timestamp": (steps % LENGTH / recording.FPS).astype(np.float32),
        "frame_index": steps % LENGTH,
        "episode_index": steps // LENGTH,
        "index": steps,
        "task_index": np.zeros(rows, np.int64),
    }
    pages = {"use_dictionary": False, "data_page_size": 2**14}  # as long pictures fill them: a few in a page
    pq.write_table(pa.table(table), root / DATA, row_group_size=row_group, **pages)
    episodes = {
        "episode_index": np.arange(EPISODES),
        "tasks": [["push the button"]] * EPISODES,
        "length": np.full(EPISODES, LENGTH),
        "data/chunk_index": np.zeros(EPISODES, np.int64),
        "data/file_index": np.zeros(EPISODES, np.int64),
    }
    pq.write_table(pa.table(episodes), root / "meta/episodes/chunk-000/file-000.parquet")
    np.save(root / "pictures.npy", pictures)
    return root


def bytes_read() -> int:
    """Bytes this process has read so far."""
    return int(re.findall(r"rchar: (\d+)", Path("/proc/self/io").read_text())[0])


@pytest.mark.parametrize("row_group", [LENGTH, EPISODES * LENGTH], ids=["group per episode", "one group"])
def test_a_picture_in_a_file_of_many_episodes_is_not_paid_with_the_file(
    row_group: int, tmp_path: Path
) -> None:
    root = with_pictures(tmp_path / "dataset", row_group)
    assert check(root) == []
    dataset, pictures = Dataset.open(root), np.load(root / "pictures.npy")
    order = np.random.default_rng(0).permutation(EPISODES).tolist()
    for episode in order:  # pictures right, columns held
        frames = dataset.frames("top", episode, [7, 2, 7])
        np.testing.assert_array_equal(frames, pictures[episode * LENGTH + np.array([7, 2, 7])])
    whole, before = (root / DATA).stat().st_size, bytes_read()
    for episode in order:
        dataset.frames("top", episode, [LENGTH // 2])
    share = (bytes_read() - before) / (EPISODES * whole)
    assert share < 0.1, f"{share:.2f} of the file per picture"


def test_encoded_pictures_are_kept_within_bounds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = with_pictures(tmp_path / "dataset", LENGTH)
    episode = LENGTH * SIZE * SIZE * 3  # noise is as large encoded
    monkeypatch.setattr(lerobot, "IMAGE_BYTES", 3 * episode)
    dataset = Dataset.open(root)
    for number in [*range(EPISODES), 0]:
        dataset.frames("top", number, [0])
        assert 0 < dataset._images.currsize <= 3 * episode
    before = bytes_read()
    dataset.frames("top", 1, [0])  # let go in between: its row group is read again, and no more
    assert bytes_read() - before < 2 * episode


def test_pictures_that_do_not_decode_or_have_another_size_are_found(tmp_path: Path) -> None:
    root = with_pictures(tmp_path / "dataset", LENGTH)
    table = pq.read_table(root / DATA)
    cells = table["observation.images.top"].to_pylist()
    cells[LENGTH + 3] = {"bytes": cells[LENGTH + 3]["bytes"][:400], "path": None}
    buffer = io.BytesIO()
    Image.fromarray(np.zeros((8, 9, 3), np.uint8)).save(buffer, "PNG")
    cells[LENGTH + 4] = {"bytes": buffer.getvalue(), "path": None}
    at = table.column_names.index("observation.images.top")
    field = table.field(at)
    pq.write_table(table.set_column(at, field, pa.array(cells, field.type)), root / DATA, row_group_size=50)
    (problem,) = check(root)
    assert "observation.images.top of episode 1 step 3 is no image (and 1 more like it)" in str(problem)
    dataset = Dataset.open(root)
    with pytest.raises(Broken, match="of episode 1 step 3 is no image"):
        dataset.frames("top", 1, [2, 3])
    with pytest.raises(Broken, match="episode 1 step 4 has another size than step 2"):
        Dataset.open(root).frames("top", 1, [2, 4])
