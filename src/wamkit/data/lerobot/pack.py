"""Staged episodes -> the files of a LeRobot v3.0 dataset.

Data: many episodes per parquet file, one row group each. Videos: many episodes per mp4, joined without
encoding again. Statistics: per episode in meta/episodes, of all frames in meta/stats.json. Task texts: a pandas
index. It does not know how episodes were recorded or staged (data/lerobot/writer.py).
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from wamkit_client.types import BadInput

from wamkit.data.lerobot.files import NUMBERS, TEXT_COLUMNS, V3
from wamkit.data.lerobot.video import ENCODERS, VideoCodec, join_videos, parameters
from wamkit.data.statistics import Stats
from wamkit.io.files import replace_text

CHUNK_FILES = 1000
DATA_MEGABYTES = 100
VIDEO_MEGABYTES = 200
DATA_PATH = "data/chunk-{chunk_index:03d}/file-{file_index:03d}.parquet"
VIDEO_PATH = "videos/{video_key}/chunk-{chunk_index:03d}/file-{file_index:03d}.mp4"
INDEX_FEATURES: dict[str, dict[str, Any]] = {
    name: {"dtype": dtype, "shape": [1], "names": None}
    for name, dtype in {"timestamp": "float32", **dict.fromkeys(NUMBERS, "int64")}.items()
}
COLUMN_TYPES = {name: pa.type_for_alias(name) for name in ("float32", "float64", "int32", "int64", "bool")}

Row = dict[str, Any]
"""One episode's row of meta/episodes, filled by the steps below."""


@dataclass(frozen=True)
class Plan:
    """What is recorded. features: name -> {"dtype", "shape", "names"}, without the index features."""

    fps: int | float  # a resumed recording must write 10 as 10, not as 10.0
    robot_type: str
    features: Mapping[str, Mapping[str, Any]]
    codec: VideoCodec

    @property
    def video_keys(self) -> tuple[str, ...]:
        """Features stored as videos."""
        return tuple(name for name, feature in self.features.items() if feature["dtype"] == "video")

    @property
    def columns(self) -> tuple[str, ...]:
        """Features stored as columns."""
        return tuple(name for name, feature in self.features.items() if feature["dtype"] != "video")


@dataclass(frozen=True)
class Staged:
    """One recorded episode, waiting in its folder. histograms: counts [3][256] of pixel values by video key."""

    folder: Path
    index: int
    length: int
    task: str
    extra: Mapping[str, Any]
    histograms: Mapping[str, list[list[int]]]


def pack(root: Path, plan: Plan, staged: Sequence[Staged]) -> None:
    """Write meta, data and videos of a v3.0 dataset into the folder `root`."""
    tasks = list(dict.fromkeys(episode.task for episode in staged))
    rows: list[Row] = [{"episode_index": e.index, "tasks": [e.task], "length": e.length} for e in staged]
    stats = _pack_data(root, plan, staged, tasks, rows)
    for key in plan.video_keys:
        stats[key] = _pack_videos(root, plan, key, staged, rows)
    for row, episode in zip(rows, staged, strict=True):
        row |= {"meta/episodes/chunk_index": 0, "meta/episodes/file_index": 0, **episode.extra}
    _write_table(root / "meta/episodes/chunk-000/file-000.parquet", pa.Table.from_pylist(rows))
    _write_table(root / V3.tasks, _tasks_table(tasks))
    for name, content in (("stats", stats), ("info", _info(plan, staged, len(tasks)))):
        replace_text(root / f"meta/{name}.json", json.dumps(content, indent=4))


def _pack_data(
    root: Path, plan: Plan, staged: Sequence[Staged], tasks: list[str], rows: list[Row]
) -> dict[str, Any]:
    """Write data/, note places and statistics of every episode in its row; returns the statistics of all."""
    features = {name: plan.features[name] for name in plan.columns} | INDEX_FEATURES
    schema = pa.schema([(name, column_type(name, feature)) for name, feature in features.items()])
    columns: dict[str, list[np.ndarray]] = {name: [] for name in features}
    first = 0
    sizes = [(episode.folder / "columns.parquet").stat().st_size for episode in staged]
    for target, place, group in _shared_files(root, DATA_PATH, sizes, DATA_MEGABYTES):
        with pq.ParquetWriter(target, schema, write_page_checksum=True) as writer:
            for episode in (staged[i] for i in group):
                table = _with_indices(episode, plan.fps, first, tasks.index(episode.task))
                table = table.select(schema.names).cast(schema)
                writer.write_table(table, row_group_size=episode.length)
                row = rows[episode.index]
                row |= {f"data/{name}": value for name, value in place.items()}
                row |= {"dataset_from_index": first, "dataset_to_index": first + episode.length}
                for name in features:
                    columns[name].append(_rows_of(table[name], episode.length))
                    row |= _stat_columns(name, _vector_stats(columns[name][-1]))
                first += episode.length
    return {name: _vector_stats(np.concatenate(parts)) for name, parts in columns.items()}


def _with_indices(episode: Staged, fps: float, first: int, task_index: int) -> pa.Table:
    """The episode's columns and the five that every dataset has."""
    table = pq.read_table(episode.folder / "columns.parquet")
    steps = np.arange(episode.length)
    indices = {
        "timestamp": (steps / fps).astype(np.float32),
        "frame_index": steps,
        "episode_index": np.full_like(steps, episode.index),
        "index": first + steps,
        "task_index": np.full_like(steps, task_index),
    }
    for name, values in indices.items():
        table = table.append_column(name, pa.array(values))
    return table


def _pack_videos(
    root: Path, plan: Plan, key: str, staged: Sequence[Staged], rows: list[Row]
) -> dict[str, Any]:
    """Write one camera's videos, note places and statistics in the rows; returns the statistics of all frames."""
    paths = [episode.folder / f"{key}.mp4" for episode in staged]
    sizes = [path.stat().st_size for path in paths]
    template = VIDEO_PATH.replace("{video_key}", key)
    kinds = [parameters(path) for path in paths]
    for target, place, group in _shared_files(root, template, sizes, VIDEO_MEGABYTES, kinds):
        join_videos([paths[i] for i in group], [staged[i].length for i in group], target)
        before = 0
        for i in group:
            after = before + staged[i].length
            times = {"from_timestamp": before / plan.fps, "to_timestamp": after / plan.fps}
            rows[i] |= {f"videos/{key}/{name}": value for name, value in (place | times).items()}
            rows[i] |= _stat_columns(key, _pixel_stats(np.array(staged[i].histograms[key]), staged[i].length))
            before = after
    histogram = np.sum([episode.histograms[key] for episode in staged], axis=0)
    return _pixel_stats(histogram, sum(episode.length for episode in staged))


def _shared_files(
    root: Path, template: str, sizes: Sequence[int], megabytes: float, kinds: Sequence[bytes] = ()
) -> Iterator[tuple[Path, dict[str, int], list[int]]]:
    """Of every file: its path, the numbers of its path, and the episodes that share it.

    These are neighbours of equal kind, together at most `megabytes` (a larger one stands alone).
    """
    groups: list[list[int]] = []
    for i, size in enumerate(sizes):
        last = groups[-1] if groups else []
        full = sum(sizes[j] for j in last) + size > megabytes * 2**20
        if not last or full or (kinds and kinds[i] != kinds[last[0]]):
            groups.append([])
        groups[-1].append(i)
    for number, group in enumerate(groups):
        place = dict(zip(V3.path_fields, divmod(number, CHUNK_FILES), strict=True))
        target = root / template.format(**place)
        target.parent.mkdir(parents=True, exist_ok=True)
        yield target, place, group


def _write_table(path: Path, table: pa.Table) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(table, path, write_page_checksum=True)


def _tasks_table(tasks: Sequence[str]) -> pa.Table:
    """Texts as the pandas index: as an ordinary column, LeRobot would hand policies the number for the text."""
    text_column = TEXT_COLUMNS[0]
    number = {"field_name": "task_index", "name": "task_index", "pandas_type": "int64", "numpy_type": "int64"}
    text = {"field_name": text_column, "name": None, "pandas_type": "unicode", "numpy_type": "object"}
    pandas = {
        "index_columns": [text_column],
        "column_indexes": [],
        "columns": [number | {"metadata": None}, text | {"metadata": None}],
        "creator": {"library": "pyarrow", "version": pa.__version__},
        "pandas_version": "2.2.3",
    }
    table = pa.table({"task_index": pa.array(range(len(tasks)), pa.int64()), text_column: tasks})
    return table.replace_schema_metadata({"pandas": json.dumps(pandas)})


def _info(plan: Plan, staged: Sequence[Staged], total_tasks: int) -> dict[str, Any]:
    described = {name: _described(feature, plan) for name, feature in plan.features.items()}
    return {
        "codebase_version": "v3.0",
        "robot_type": plan.robot_type,
        "total_episodes": len(staged),
        "total_frames": sum(episode.length for episode in staged),
        "total_tasks": total_tasks,
        "chunks_size": CHUNK_FILES,
        "data_files_size_in_mb": DATA_MEGABYTES,
        "video_files_size_in_mb": VIDEO_MEGABYTES,
        "fps": int(plan.fps) if plan.fps == int(plan.fps) else plan.fps,
        "splits": {"train": f"0:{len(staged)}"},
        "data_path": DATA_PATH,
        "video_path": VIDEO_PATH if plan.video_keys else None,
        "features": described | INDEX_FEATURES,
    }


def _described(feature: Mapping[str, Any], plan: Plan) -> dict[str, Any]:
    if feature["dtype"] != "video":
        return {"dtype": feature["dtype"], "shape": list(feature["shape"]), "names": feature.get("names")}
    height, width, channels = feature["shape"]
    codec = plan.codec
    info = {
        "video.height": height,
        "video.width": width,
        "video.codec": ENCODERS[codec.name],
        "video.pix_fmt": codec.pix_fmt,
        "video.is_depth_map": False,
        "video.fps": plan.fps,
        "video.channels": channels,
        "has_audio": False,
    }
    names = ["height", "width", "channels"]
    return {"dtype": "video", "shape": [height, width, channels], "names": names, "info": info}


def column_type(name: str, feature: Mapping[str, Any]) -> pa.DataType:
    """The parquet type of a feature; BadInput where its dtype cannot be written."""
    if feature["dtype"] not in COLUMN_TYPES:
        raise BadInput(
            f"feature {name}: dtype {feature['dtype']!r}; expected 'video' or one of {list(COLUMN_TYPES)}"
        )
    number = COLUMN_TYPES[feature["dtype"]]
    return number if list(feature["shape"]) == [1] else pa.list_(number, feature["shape"][0])


def _rows_of(column: pa.ChunkedArray, length: int) -> np.ndarray:
    array = column.combine_chunks()
    values = array.flatten() if pa.types.is_fixed_size_list(array.type) else array
    return values.to_numpy(zero_copy_only=False).reshape(length, -1)


def _vector_stats(rows: np.ndarray) -> dict[str, Any]:
    """Flat lists; extremes keep the column's type, and the count is a list too."""
    extremes = {"min": rows.min(axis=0).tolist(), "max": rows.max(axis=0).tolist()}
    return Stats.of(rows).to_dict() | extremes | {"count": [len(rows)]}


def _pixel_stats(histogram: np.ndarray, frames: int) -> dict[str, Any]:
    """Statistics of images, nested [3][1][1] as LeRobot stores them; the count is that of the frames."""
    values = Stats.of_pixels(histogram).to_dict()
    del values["count"]
    return {name: [[[v]] for v in channels] for name, channels in values.items()} | {"count": [frames]}


def _stat_columns(name: str, values: Mapping[str, Any]) -> Row:
    return {f"stats/{name}/{statistic}": value for statistic, value in values.items()}
