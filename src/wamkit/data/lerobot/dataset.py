"""A LeRobot dataset as it lies on disk, read: versions 2.0, 2.1 and 3.0, alike to the reader.

Columns come whole episodes at a time, frames come at steps. Nothing is converted, downloaded or substituted.
Memory: columns, decoded frames and encoded pictures of image features are kept up to COLUMN_BYTES, FRAME_BYTES and
PICTURE_BYTES per open dataset.
It does not know about windows, policies or normalisation. Writing is data/lerobot/writer.py.
"""

from __future__ import annotations

import hashlib
import io
import math
import struct
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from PIL import Image

from wamkit.data.lerobot.disk import Broken, expect, group_ends, read_group, read_parquet, read_rows, sizes
from wamkit.data.lerobot.files import (
    NUMBERS,
    Episode,
    Info,
    episode_files,
    read_episodes,
    read_info,
    read_tasks,
)
from wamkit.data.lerobot.video import BrokenVideo, read_frames
from wamkit.data.lerobot.writer import Writer
from wamkit.data.recent import Recent

__all__ = ["Dataset", "Episode", "Writer"]

COLUMN_BYTES = 512 * 2**20
FRAME_BYTES = 256 * 2**20
PICTURE_BYTES = 256 * 2**20


class Dataset:
    """An opened dataset.

    root: its folder. version: "v2.0", "v2.1" or "v3.0". fps: frames (= control steps) per second.
    robot_type: the embodiment's name. features: as in meta/info.json.
    cameras: names without "observation.images.". episodes: in order of their index.
    """

    def __init__(self, root: Path, info: Info, tasks: Mapping[int, str], episodes: tuple[Episode, ...]):
        self.root, self.info, self.tasks, self.episodes = root, info, tasks, episodes
        self.version, self.fps, self.robot_type = info.version, info.fps, info.robot_type
        self.features, self.cameras = info.features, tuple(info.cameras)
        self._by_index = {episode.index: episode for episode in episodes}
        self._columns = Recent(COLUMN_BYTES)
        self._frames = Recent(FRAME_BYTES)
        self._pictures = Recent(PICTURE_BYTES)
        self._row_slices: dict[int, slice] = {}
        self._last_episode: dict[str, int] = {}

    @classmethod
    def open(cls, path: str | Path) -> Dataset:
        """The dataset at `path`. BadInput where a meta file is unreadable or contradicts itself (lerobot_files), and
        where a data file or video is missing."""
        root = Path(path)
        with _below(root):
            info = read_info(root)
            dataset = cls(root, info, read_tasks(root, info), read_episodes(root, info))
            for file, episode in first_users(dataset.episodes).items():
                try:
                    expect(root, file)
                except Broken as broken:
                    what = f"{broken.what} (episode {episode.index})"
                    raise Broken(file, what, broken.remedy) from broken
        if not dataset.episodes:
            raise Broken(str(root), "has no episode", "record at least one")
        return dataset

    @property
    def parts(self) -> tuple[Dataset, ...]:
        """The folders it is of: itself (data/joined.py has several)."""
        return (self,)

    @property
    def where(self) -> str:
        """For messages."""
        return str(self.root)

    def label(self, episode: int) -> str:
        """What names an episode."""
        return str(episode)

    @property
    def total_steps(self) -> int:
        """Steps of all episodes."""
        return sum(episode.length for episode in self.episodes)

    def fingerprint(self) -> str:
        """The dataset's revision: a hash of the meta files and of every file's name and size."""
        digest = hashlib.sha256()
        with _below(self.root):
            for file, size in sorted(sizes(self.root).items()):
                digest.update(f"{file}\0{size}\0".encode())
                if file.startswith("meta/"):
                    with expect(self.root, file).open("rb") as content:
                        hashlib.file_digest(content, lambda: digest)
        return digest.hexdigest()

    def column(self, name: str, episode: int) -> np.ndarray:
        """A numeric column of a whole episode: [length] for scalars, [length, d] for vectors; read-only.

        Raises BadInput for an unknown column or episode, and where the file does not hold the episode's rows.
        """
        found = self._episode(episode)
        rows = self._rows(found)
        values = self._columns.get((found.file, name), lambda: self._read(found.file, name))
        if len(values) < rows.stop:
            what = f"column {name!r} has {len(values)} rows, episode {episode} ends at {rows.stop}"
            raise Broken(str(self.root / found.file), what, "copy or record the file again")
        return values[rows]

    def rows(self, name: str, episodes: Sequence[Episode]) -> np.ndarray:
        """A numeric column of some episodes, one after the other: [steps, d].

        Raises BadInput as `column`, and where a value is not finite.
        """
        parts = []
        for episode in episodes:
            values = self.column(name, episode.index)
            parts.append(values.reshape(len(values), -1))
            if not np.isfinite(parts[-1]).all():
                step, dim = np.argwhere(~np.isfinite(parts[-1]))[0]
                what = f"{name} is {parts[-1][step, dim]} in episode {episode.index}, step {step}, dimension {dim}"
                raise Broken(str(self.root / episode.file), what, "mend the value, or leave the episode out")
        return np.concatenate(parts)

    def episode_column(self, name: str) -> list[Any]:
        """An extra column of meta/episodes (v3.0), one value per episode: `extra` of `Writer.add_episode`."""
        with _below(self.root):
            rows = [
                row
                for file in episode_files(self.root)
                for row in read_rows(self.root, file, ["episode_index", name])
            ]
        values = {row["episode_index"]: row[name] for row in rows}
        return [values[episode.index] for episode in self.episodes]

    def instruction(self, episode: int, step: int) -> str:
        """What the robot is told at a step. BadInput where the task has no text."""
        index = int(self.column("task_index", episode)[step])
        task = self.tasks.get(index, "")
        if not task.strip():
            raise Broken(
                str(self.root),
                f"episode {episode} step {step}: task {index} has no text",
                f"add the instruction of task {index} to meta/tasks",
            )
        return task

    def frames(self, camera: str, episode: int, steps: Sequence[int]) -> np.ndarray:
        """Frames at steps of an episode: uint8 RGB [n, h, w, 3].

        A first visit decodes only these frames. A second visit in a row to the same episode decodes it whole
        and keeps it (FRAME_BYTES in all), so that reading windows in order decodes every frame once.
        Raises BadInput for an unknown camera or episode, and for a frame that does not decode.
        """
        if camera not in self.info.cameras:
            raise Broken(str(self.root), f"has no camera {camera!r}", f"it has {list(self.cameras)}")
        key, found = self.info.cameras[camera], self._episode(episode)
        if not all(0 <= step < found.length for step in steps):
            raise IndexError(f"steps {list(steps)} of episode {episode}, which has {found.length} steps")
        visited, self._last_episode[camera] = self._last_episode.get(camera), episode
        whole = math.prod(self.features[key]["shape"]) * found.length
        if (camera, episode) in self._frames or (visited == episode and whole <= FRAME_BYTES):
            everything = self._frames.get(
                (camera, episode), lambda: self._decode(key, found, range(found.length))
            )
            return everything[list(steps)]
        return self._decode(key, found, steps)

    def _episode(self, index: int) -> Episode:
        if index not in self._by_index:
            raise Broken(str(self.root), f"has no episode {index}", f"it has {len(self.episodes)} episodes")
        return self._by_index[index]

    def _rows(self, episode: Episode) -> slice:
        """The rows of the episode's data file that are the episode's."""
        if episode.index in self._row_slices:
            return self._row_slices[episode.index]
        file = episode.file
        of_rows = self._columns.get((file, "episode_index"), lambda: self._read(file, "episode_index"))
        rows = np.flatnonzero(of_rows == episode.index)
        if not len(rows) == episode.length > 0 or rows[-1] - rows[0] + 1 != episode.length:
            raise Broken(
                str(self.root / file),
                f"{len(rows)} rows of episode {episode.index}; expected {episode.length} in a row",
                "run `wamkit data check` and copy or record the file again",
            )
        self._row_slices[episode.index] = slice(int(rows[0]), int(rows[-1]) + 1)
        return self._row_slices[episode.index]

    def _read(self, file: str, name: str) -> np.ndarray:
        with _below(self.root):
            return to_numpy(read_parquet(self.root, file, [name]), file, name, self.info)

    def _decode(self, key: str, episode: Episode, steps: Sequence[int]) -> np.ndarray:
        if key in episode.videos:
            span = episode.videos[key]
            try:
                return read_frames(self.root / span.file, [span.start + step / self.fps for step in steps])
            except BrokenVideo as broken:
                what = f"{broken.what} (episode {episode.index}, steps {min(steps)} to {max(steps)})"
                raise Broken(
                    str(broken.path), what, "run `wamkit data check`, copy or record it again"
                ) from broken
        return self._decode_images(key, episode, steps)

    def _decode_images(self, key: str, episode: Episode, steps: Sequence[int]) -> np.ndarray:
        """Frames of an image feature: encoded pictures inside the data file."""
        first, pictures = self._rows(episode).start, []
        for step in steps:
            where = f"{key} of episode {episode.index} step {step}"
            with _below(self.root):
                pictures.append(picture(self._cell(episode.file, key, first + step), episode.file, where))
                if pictures[-1].shape != pictures[0].shape:
                    what = f"{where} has another size than step {steps[0]}"
                    raise Broken(episode.file, what, "record it again")
        return np.stack(pictures)

    def _cell(self, file: str, key: str, row: int) -> pa.Scalar:
        """An encoded picture; the row group that holds it is kept (PICTURE_BYTES in all)."""
        ends = self._columns.get((file, "ends of row groups"), lambda: group_ends(self.root, file))
        group = int(np.searchsorted(ends, row, side="right"))
        cells = self._pictures.get((file, key, group), lambda: read_group(self.root, file, key, group))
        return cells[row - (int(ends[group - 1]) if group else 0)]


def picture(cell: pa.Scalar, file: str, where: str) -> np.ndarray:
    """A cell of an image feature, uint8 RGB [h, w, 3]. Raises Broken."""
    try:
        return np.asarray(Image.open(io.BytesIO(cell.as_py()["bytes"])).convert("RGB"))
    except (*UNDECODABLE, OverflowError, TypeError, KeyError) as error:
        raise Broken(file, f"{where} is no picture", "record it again") from error


UNDECODABLE = (OSError, SyntaxError, ValueError, EOFError, struct.error, Image.DecompressionBombError)
"""What Pillow raises for damaged pictures of one kind or another."""


def first_users(episodes: Sequence[Episode]) -> dict[str, Episode]:
    """Every data file and video, with the first episode that needs it."""
    found: dict[str, Episode] = {}
    for episode in episodes:
        for file in (episode.file, *(span.file for span in episode.videos.values())):
            found.setdefault(file, episode)
    return found


@contextmanager
def _below(root: Path) -> Iterator[None]:
    """Errors inside name files relative to the root; outside, they name the whole path."""
    try:
        yield
    except Broken as broken:
        raise Broken(str(root / broken.where), broken.what, broken.remedy) from broken


def to_numpy(table: pa.Table, where: str, name: str, info: Info) -> np.ndarray:
    """A numeric column as [rows] or, for lists of equal length, [rows, d]; a counting one as integers [rows].

    Raises Broken, also where it is not as wide as its feature.
    """
    values = _numbers(table[name].combine_chunks(), where, name)
    got = values.shape[1] if values.ndim == 2 else 1
    counts = name in NUMBERS or name == "timestamp"
    shape = [1] if counts else info.features[name]["shape"] if name in info.features else [got]
    if got != math.prod(shape):
        what = f"{name} has {got} dimension(s), meta/info.json says {math.prod(shape)}"
        raise Broken(where, what, "correct either")
    if name in NUMBERS and not np.issubdtype(values.dtype, np.integer):
        raise Broken(where, f"{name} is {values.dtype}, expected whole numbers", "record the file again")
    return values.reshape(-1) if counts else values


def _numbers(array: pa.Array, where: str, name: str) -> np.ndarray:
    kinds = pa.types
    is_list = (
        kinds.is_list(array.type) or kinds.is_large_list(array.type) or kinds.is_fixed_size_list(array.type)
    )
    values = array.flatten() if is_list else array
    if not (kinds.is_integer(values.type) or kinds.is_floating(values.type) or kinds.is_boolean(values.type)):
        raise Broken(where, f"column {name!r} is {array.type}", "expected numbers or vectors of numbers")
    empty = array.null_count or values.null_count
    if empty:
        raise Broken(where, f"column {name!r} has {empty} empty value(s)", "record the file again")
    if not is_list:
        return np.array(values.to_numpy(zero_copy_only=False))
    lengths = np.unique(pc.list_value_length(array).to_numpy(zero_copy_only=False))
    if len(lengths) > 1:
        raise Broken(where, f"column {name!r} has vectors of different length", "record the file again")
    return np.array(values.to_numpy(zero_copy_only=False)).reshape(len(array), *lengths)
