"""A LeRobot dataset as it is on disk, read: versions 2.0, 2.1 and 3.0, the same to the reader.

Columns come as whole episodes, frames at steps. Nothing is converted, downloaded or substituted. Columns and cameras
may be read by other names than the files have (data/lerobot/columns.py).
Memory: columns, decoded frames and encoded images of image features are kept up to COLUMN_BYTES, FRAME_BYTES and
IMAGE_BYTES per open dataset; what was used least recently goes first, and what is larger than the limit is never kept.
It does not know about windows, policies or normalisation. Writing is data/lerobot/writer.py.
"""

from __future__ import annotations

import hashlib
import io
import math
import struct
from collections.abc import Mapping, Sequence
from operator import attrgetter
from pathlib import Path
from threading import Lock
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from cachetools import LRUCache, cachedmethod
from cachetools.keys import hashkey
from PIL import Image

from wamkit.data.lerobot.columns import NO_COLUMNS, Names, named
from wamkit.data.lerobot.disk import (
    RESTORE,
    Broken,
    column_names,
    expect,
    file_size,
    files_below,
    group_ends,
    inside,
    read_group,
    read_jsonl,
    read_parquet,
    read_rows,
)
from wamkit.data.lerobot.files import (
    EPISODE_COLUMNS,
    NUMBERS,
    V3,
    Episode,
    Info,
    episode_files,
    missing_files,
    read_episodes,
    read_info,
    read_tasks,
)
from wamkit.data.lerobot.video import read_frames

__all__ = ["Dataset", "Episode"]

COLUMN_BYTES = 512 * 2**20
FRAME_BYTES = 256 * 2**20
IMAGE_BYTES = 256 * 2**20
VALUE = bool | int | float | str


class Dataset:
    """An open dataset.

    root: its folder. version: "v2.0", "v2.1" or "v3.0". fps: frames (= control steps) per second.
    robot_type: the embodiment's name. features: as in meta/info.json, and those that names make of them.
    cameras: names without "observation.images.". camera_keys: their features. episodes: in order of their index.
    """

    def __init__(
        self, root: Path, info: Info, tasks: Mapping[int, str], episodes: tuple[Episode, ...], names: Names
    ):
        self.root, self.info, self.tasks, self.episodes, self.names = root, info, tasks, episodes, names
        self.version, self.fps, self.robot_type = info.version, info.fps, info.robot_type
        self.features, self.camera_keys = names.features, names.cameras
        self.cameras = tuple(names.cameras)
        self._by_index = {episode.index: episode for episode in episodes}
        self._columns: LRUCache[Any, np.ndarray] = LRUCache(COLUMN_BYTES, getsizeof=attrgetter("nbytes"))
        self._frames: LRUCache[Any, np.ndarray] = LRUCache(FRAME_BYTES, getsizeof=attrgetter("nbytes"))
        self._images: LRUCache[Any, pa.ChunkedArray] = LRUCache(IMAGE_BYTES, getsizeof=attrgetter("nbytes"))
        self._lock = Lock()  # held for a look into a cache, never while something is read
        self._row_slices: dict[Any, slice] = {}
        self._last_episode: dict[str, int] = {}

    def __reduce__(self) -> tuple[Any, ...]:
        """A copy in another process begins with empty caches."""
        return Dataset, (self.root, self.info, self.tasks, self.episodes, self.names)

    @classmethod
    def open(cls, path: str | Path, columns: Mapping[str, str] = NO_COLUMNS) -> Dataset:
        """The dataset at `path`; columns: where what is not under its usual name is (DataSpec.columns).

        BadInput where a meta file is unreadable or contradicts itself, where a data file or video is missing, and for
        columns that are not there.
        """
        root = Path(path)
        with inside(root):
            info = read_info(root)
            names = named(info, columns)
            dataset = cls(root, info, read_tasks(root, info), read_episodes(root, info), names)
            for broken in missing_files(root, dataset.episodes):
                raise broken
        if not dataset.episodes:
            raise Broken(str(root), "has no episode", "record at least one")
        return dataset

    def of(self, episodes: Sequence[Episode]) -> Dataset:
        """The same dataset with some of its episodes."""
        return Dataset(self.root, self.info, self.tasks, tuple(episodes), self.names)

    @property
    def parts(self) -> tuple[Dataset, ...]:
        """Itself; data/joined.py has several."""
        return (self,)

    @property
    def where(self) -> str:
        """For messages."""
        return str(self.root)

    def label(self, episode: int) -> str:
        """The name of an episode in messages and sample ids."""
        return str(episode)

    @property
    def total_steps(self) -> int:
        """Steps of all episodes."""
        return sum(episode.length for episode in self.episodes)

    def fingerprint(self) -> str:
        """The dataset's revision: a hash of the meta files and of every file's name and size."""
        digest = hashlib.sha256()
        with inside(self.root):
            for file in files_below(self.root, "meta", "data", "videos"):
                digest.update(f"{file}\0{file_size(self.root / file)}\0".encode())
                if file.startswith("meta/"):
                    with expect(self.root, file).open("rb") as content:
                        hashlib.file_digest(content, lambda: digest)
        return digest.hexdigest()

    def column(self, name: str, episode: int) -> np.ndarray:
        """A numeric column of a whole episode: [length] for scalars, [length, d] for vectors; read-only.

        Raises BadInput for an unknown column or episode, and where the file does not hold the episode's rows.
        """
        return _read_only(self.names.column(name, lambda column: self._stored(column, episode)))

    def _stored(self, name: str, episode: int) -> np.ndarray:
        file, rows = self._episode(episode).file, self._rows(episode)
        values: np.ndarray = self._read(file, name)
        if len(values) < rows.stop:
            what = f"column {name!r} has {len(values)} rows, episode {episode} ends at {rows.stop}"
            raise Broken(str(self.root / file), what, "copy or record the file again")
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
                raise Broken(str(self.root / episode.file), what, "correct the value, or omit the episode")
        return np.concatenate(parts)

    @property
    def episode_columns(self) -> tuple[str, ...]:
        """The extra columns of episodes in the meta files, which are not of the format; of v2.x those of one value."""
        with inside(self.root):
            if self.info.layout is V3:
                names = [
                    name for file in episode_files(self.root)[:1] for name in column_names(self.root, file)
                ]
            else:
                rows = read_jsonl(self.root, self.info.layout.episodes)
                names = [name for name in rows[0] if all(isinstance(row.get(name), VALUE) for row in rows)]
        return tuple(name for name in names if "/" not in name and name not in EPISODE_COLUMNS)

    def episode_column(self, name: str) -> list[Any]:
        """An extra column of episodes, one value per episode: of v3.0, `extra` of `Writer.add_episode`."""
        with inside(self.root):
            if self.info.layout is V3:
                files = episode_files(self.root)
                rows = [row for file in files for row in read_rows(self.root, file, ["episode_index", name])]
            else:
                rows = read_jsonl(self.root, self.info.layout.episodes)
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
        if camera not in self.camera_keys:
            raise Broken(str(self.root), f"has no camera {camera!r}", f"it has {list(self.cameras)}")
        key, found = self.camera_keys[camera], self._episode(episode)
        if not all(0 <= step < found.length for step in steps):
            raise IndexError(f"steps {list(steps)} of episode {episode}, which has {found.length} steps")
        visited, self._last_episode[camera] = self._last_episode.get(camera), episode
        whole = math.prod(self.features[key]["shape"]) * found.length
        if hashkey(key, episode) in self._frames or (visited == episode and whole <= FRAME_BYTES):
            frames: np.ndarray = self._every_frame(key, episode)
            return frames[list(steps)]
        return self._decode(key, found, steps)

    def _episode(self, index: int) -> Episode:
        if index not in self._by_index:
            raise Broken(str(self.root), f"has no episode {index}", f"it has {len(self.episodes)} episodes")
        return self._by_index[index]

    @cachedmethod(attrgetter("_row_slices"))
    def _rows(self, index: int) -> slice:
        """The rows of an episode in its data file."""
        episode = self._episode(index)
        rows = np.flatnonzero(self._read(episode.file, "episode_index") == index)
        if not len(rows) == episode.length > 0 or rows[-1] - rows[0] + 1 != episode.length:
            raise Broken(
                str(self.root / episode.file),
                f"{len(rows)} rows of episode {index}; expected {episode.length} in a row",
                "run `wamkit data check` and copy or record the file again",
            )
        return slice(int(rows[0]), int(rows[-1]) + 1)

    @cachedmethod(attrgetter("_columns"), lock=attrgetter("_lock"))
    def _read(self, file: str, name: str) -> np.ndarray:
        with inside(self.root):
            return _read_only(to_numpy(read_parquet(self.root, file, [name]), file, name, self.info))

    @cachedmethod(attrgetter("_frames"), lock=attrgetter("_lock"))
    def _every_frame(self, key: str, index: int) -> np.ndarray:
        episode = self._episode(index)
        return _read_only(self._decode(key, episode, range(episode.length)))

    def _decode(self, key: str, episode: Episode, steps: Sequence[int]) -> np.ndarray:
        if key not in episode.videos:
            return self._decode_images(key, episode, steps)
        span = episode.videos[key]
        try:
            return read_frames(self.root / span.file, [span.start + step / self.fps for step in steps])
        except Broken as broken:
            what = f"{broken.what} (episode {episode.index}, steps {min(steps)} to {max(steps)})"
            raise Broken(broken.where, what, f"run `wamkit data check`, {RESTORE}") from broken

    def _decode_images(self, key: str, episode: Episode, steps: Sequence[int]) -> np.ndarray:
        """Frames of an image feature: encoded images inside the data file."""
        first, images = self._rows(episode.index).start, []
        for step in steps:
            name = f"{key} of episode {episode.index} step {step}"
            with inside(self.root):
                images.append(decode_image(self._cell(episode.file, key, first + step), episode.file, name))
                if images[-1].shape != images[0].shape:
                    raise Broken(episode.file, f"{name} has another size than step {steps[0]}", RESTORE)
        return np.stack(images)

    def _cell(self, file: str, key: str, row: int) -> pa.Scalar:
        """An encoded image, of the row group that holds it: no more of the file is read."""
        ends = self._group_ends(file)
        group = int(np.searchsorted(ends, row, side="right"))
        return self._group(file, key, group)[row - (int(ends[group - 1]) if group else 0)]

    @cachedmethod(attrgetter("_columns"), lock=attrgetter("_lock"))
    def _group_ends(self, file: str) -> np.ndarray:
        return group_ends(self.root, file)

    @cachedmethod(attrgetter("_images"), lock=attrgetter("_lock"))
    def _group(self, file: str, key: str, group: int) -> pa.ChunkedArray:
        return read_group(self.root, file, key, group)


def _read_only(shared: np.ndarray) -> np.ndarray:
    shared.flags.writeable = False
    return shared


def decode_image(cell: pa.Scalar, file: str, where: str) -> np.ndarray:
    """A cell of an image feature, uint8 RGB [h, w, 3]. Raises Broken."""
    try:
        return np.asarray(Image.open(io.BytesIO(cell.as_py()["bytes"])).convert("RGB"))
    except (*UNDECODABLE, OverflowError, TypeError, KeyError) as error:
        raise Broken(file, f"{where} is no image", RESTORE) from error


UNDECODABLE = (OSError, SyntaxError, ValueError, EOFError, struct.error, Image.DecompressionBombError)
"""What Pillow raises for damaged images of one kind or another."""


def to_numpy(table: pa.Table, where: str, name: str, info: Info) -> np.ndarray:
    """A numeric column as [rows] or, for lists of equal length, [rows, d]; those of NUMBERS as integers [rows].

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
    is_list = any(test(array.type) for test in LISTS)
    values = array.flatten() if is_list else array
    if not any(test(values.type) for test in NUMERIC):
        raise Broken(where, f"column {name!r} is {array.type}", "expected numbers or vectors of numbers")
    if empty := array.null_count or values.null_count:
        raise Broken(where, f"column {name!r} has {empty} empty value(s)", "record the file again")
    numbers = np.array(values.to_numpy(zero_copy_only=False))
    if not is_list:
        return numbers
    lengths = np.unique(pc.list_value_length(array).to_numpy(zero_copy_only=False))
    if len(lengths) > 1:
        raise Broken(where, f"column {name!r} has vectors of different length", "record the file again")
    return numbers.reshape(len(array), *lengths)


LISTS = (pa.types.is_list, pa.types.is_large_list, pa.types.is_fixed_size_list)
NUMERIC = (pa.types.is_integer, pa.types.is_floating, pa.types.is_boolean)
