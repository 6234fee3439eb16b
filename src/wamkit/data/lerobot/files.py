"""The meta files of a LeRobot dataset, versions 2.0, 2.1 and 3.0: where everything lies.

    v3.0   meta/tasks.parquet, meta/episodes/*/*.parquet; many episodes per data file and video
    v2.x   meta/tasks.jsonl, meta/episodes.jsonl; one data file and one video per episode

Both become the same `Episode`s. It does not open data files or videos.
"""

from __future__ import annotations

import string
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path, PurePosixPath
from typing import Any

from pydantic import StrictInt, TypeAdapter

from wamkit.data.lerobot.disk import (
    RESTORE,
    Broken,
    column_names,
    read_json,
    read_jsonl,
    read_rows,
    sizes,
    validated,
)

STAGING = ".staging"
CAMERA_PREFIX = "observation.images."
ACTION_STEPS = "action_steps"
"""Column of meta/episodes, of ours, where steps were recorded after the last action."""
VERSIONS = ("v2.0", "v2.1", "v3.0")
TEXT_COLUMNS = ("__index_level_0__", "task")
"""Names under which pandas stores the task texts, the index of tasks.parquet."""

NUMBERS = ("frame_index", "episode_index", "index", "task_index")
"""Columns of every dataset that count: one whole number a row. `timestamp` stands beside them, in seconds."""

FPS = (1e-3, 1e5)
LONGEST = 10**7
"""Steps of an episode: at 50 Hz more than two days. Longer ones are no recording but damage."""

LATEST = 1e9
"""Seconds at which an episode may begin in its video."""

INFO = "meta/info.json"
EPISODES_V2 = "meta/episodes.jsonl"
EPISODES_V3 = "meta/episodes"


Feature = Mapping[str, Any]
"""How one column or camera is stored: "dtype", "shape", and often "names" and "info"."""


@dataclass(frozen=True)
class Info:
    """meta/info.json. features: by name; totals as the file states them; video_path: "" where there is none."""

    version: str
    fps: float
    robot_type: str
    features: Mapping[str, Feature]
    total_episodes: int
    total_frames: int
    total_tasks: int
    data_path: str
    video_path: str
    chunks_size: int

    @property
    def cameras(self) -> dict[str, str]:
        """Feature key of each camera, by the camera's name."""
        return {
            key.removeprefix(CAMERA_PREFIX).removeprefix("observation."): key
            for key, feature in self.features.items()
            if feature["dtype"] in ("video", "image")
        }

    @property
    def video_keys(self) -> tuple[str, ...]:
        """Features stored in video files."""
        return tuple(key for key, feature in self.features.items() if feature["dtype"] == "video")


@dataclass(frozen=True)
class Span:
    """Where an episode's video is: file (relative to the root) and the seconds from its first frame to its end."""

    file: str
    start: float
    end: float


@dataclass(frozen=True)
class Episode:
    """index: `episode_index` in the data; file: data file relative to the root; videos: by feature key.

    actions: how many of its steps have an action, `length` in most datasets. What was seen after the last action has a
    row too, in which the last action stands again.
    """

    index: int
    length: int
    actions: int
    tasks: tuple[str, ...]
    file: str
    videos: Mapping[str, Span]


def picture_size(feature: Feature) -> tuple[int, int]:
    """Height and width of a camera's pictures; some datasets write the channels first."""
    shape, names = feature["shape"], feature.get("names")
    channels_first = isinstance(names, list) and str(names[:1]).startswith("['channel")
    return (shape[1], shape[2]) if channels_first else (shape[0], shape[1])


def dimension_names(feature: Feature, width: int) -> tuple[str, ...]:
    """One name per dimension of a column; "" for all where there is not exactly one for each.

    Datasets write a list, LeRobot's older {"motors": [...]}, {"x": 0, "y": 1}, or null.
    """
    names = feature.get("names")
    if isinstance(names, dict) and sorted(map(str, names.values())) == sorted(map(str, range(width))):
        names = [name for _, name in sorted((int(at), name) for name, at in names.items())]
    elif isinstance(names, dict):
        names = [name for group in names.values() if isinstance(group, list) for name in group]
    found = tuple(map(str, names)) if isinstance(names, list) else ()
    return found if len(found) == width else ("",) * width


def dimension_labels(feature: Feature, width: int) -> tuple[str, ...]:
    """What a reader is shown of each dimension: its name, or its number where it has none."""
    return tuple(name or str(number) for number, name in enumerate(dimension_names(feature, width)))


def read_info(root: Path) -> Info:
    """meta/info.json, with every key wamkit needs. Raises Broken."""
    remedy = f"{root} must be a LeRobot dataset; check the path"
    if (root / STAGING).exists() and not (root / INFO).exists():
        raise Broken(
            STAGING, "is an unfinished recording", "run the command that records it again, it goes on"
        )
    raw = read_json(root, INFO, remedy)
    version = raw.get("codebase_version")
    if version not in VERSIONS:
        raise Broken(
            INFO, f"codebase_version is {version!r:.60}", f"wamkit reads {', '.join(VERSIONS)}; convert it"
        )
    # a robot without a name, a dataset without videos
    absent = {"robot_type": "unknown", "video_path": ""}
    facts = {name: value for name, value in absent.items() if raw.get(name) in (None, "")}
    info = validated(_INFO, raw | facts | {"version": version}, INFO, remedy)
    if not info.robot_type.isprintable():
        raise Broken(INFO, f"robot_type is {info.robot_type!r:.60}", "write the robot's name")
    validated(_FEATURES, info.features, f"{INFO}: features", remedy)
    for name, feature in info.features.items():
        _expect_shape(name, feature)
    if not FPS[0] <= info.fps <= FPS[1]:
        raise Broken(INFO, f"fps is {info.fps}", "write the frames per second of the recording")
    if info.chunks_size < 1:
        raise Broken(INFO, f"chunks_size is {info.chunks_size}", "LeRobot writes 1000")
    _expect_template("data_path", info.data_path, _fields(info.version))
    _expect_template("video_path", info.video_path, {*_fields(info.version), "video_key"})
    if info.video_keys and not info.video_path:
        raise Broken(INFO, f"video_path is missing, and {info.video_keys[0]!r} is a video", TEMPLATE)
    return info


def _expect_shape(name: str, feature: Feature) -> None:
    shape = feature["shape"]
    if feature["dtype"] in ("video", "image") and len(shape) != 3:
        raise Broken(INFO, f"feature {name!r:.60} has shape {shape!s:.60}", "pictures are [height, width, 3]")
    if min(shape, default=1) < 1:
        raise Broken(INFO, f"feature {name!r:.60} has shape {shape!s:.60}", "write numbers above 0")


def _fields(version: str) -> set[str]:
    """What the path templates of a version are filled with."""
    return {"chunk_index", "file_index"} if version == "v3.0" else {"episode_chunk", "episode_index"}


def _expect_template(key: str, template: str, fields: set[str]) -> None:
    """Raises Broken for a path template that asks for anything else than these fields, as numbers of some digits."""
    try:
        parts = list(string.Formatter().parse(template))
    except ValueError as error:
        raise Broken(INFO, f"{key} {template!r:.100} is no path template ({error})", TEMPLATE) from error
    for _, name, form, conversion in parts:
        forms = ("",) if name == "video_key" else DIGITS
        if name is not None and (name not in fields or form not in forms or conversion):
            what = f"{key} {template!r:.100} asks for {name!r:.40}; it may have {sorted(fields)}"
            raise Broken(INFO, what, TEMPLATE)


TEMPLATE = "restore LeRobot's template"
DIGITS = ("", "d", *(f"0{count}d" for count in range(1, 10)))


def read_tasks(root: Path, info: Info) -> dict[int, str]:
    """Task texts by task_index. Raises Broken where the file is unreadable or a text is not a text."""
    if info.version == "v3.0":
        where = "meta/tasks.parquet"
        columns = column_names(root, where)
        text = [name for name in TEXT_COLUMNS if name in columns]
        if not text or "task_index" not in columns:
            raise Broken(
                where, f"columns {columns!s:.100}", "expected task_index and the texts as pandas index"
            )
        rows = read_rows(root, where, ["task_index", text[0]])
        raw = [{"task_index": row["task_index"], "task": row[text[0]]} for row in rows]
    else:
        where = "meta/tasks.jsonl"
        raw = read_jsonl(root, where)
    for row in raw:
        if type(row.get("task", "")) is not str or not _is_text(row.get("task", "")):
            what = f"task {row.get('task_index')!r:.40} is {row['task']!r:.60}, not a sentence"
            raise Broken(where, what, "write the instruction in words")
    tasks = validated(_TASKS, raw, where, RESTORE)
    for number, count in Counter(row.task_index for row in tasks).items():
        if count > 1:
            raise Broken(where, f"task {number} is there {count} times", "give every text its own number")
    return {row.task_index: row.task for row in tasks}


def _is_text(text: str) -> bool:
    """Whether it can be written as UTF-8; JSON may hold halves of characters."""
    return not any("\ud800" <= letter <= "\udfff" for letter in text)


def read_episodes(root: Path, info: Info) -> tuple[Episode, ...]:
    """Every episode in order of its index. Raises Broken, also where two share an index or a piece of a video."""
    found = _episodes_v3(root, info) if info.version == "v3.0" else _episodes_v2(root, info)
    episodes = tuple(sorted(found, key=lambda episode: episode.index))
    where = EPISODES_V3 if info.version == "v3.0" else EPISODES_V2
    for episode, after in pairwise(episodes):
        if episode.index == after.index:
            raise Broken(where, f"episode {episode.index} is listed twice", RESTORE)
    for key in info.video_keys:
        _expect_disjoint(where, key, info.fps, episodes)
    return episodes


def _expect_disjoint(where: str, key: str, fps: float, episodes: tuple[Episode, ...]) -> None:
    """Raises Broken unless the episodes of a video file follow each other, each as long as its steps."""
    half = 0.5 / fps
    previous: dict[str, Episode] = {}
    for episode in episodes:
        span, needed = episode.videos[key], episode.length / fps
        if not -half <= span.start <= LATEST:
            what = f"from_timestamp of {key} is {span.start:g} in episode {episode.index}"
            raise Broken(where, what, "write the second at which the episode begins in its video")
        if not span.end >= span.start + needed - half:
            what = (
                f"episode {episode.index} has {episode.length} steps, {needed:.4f} s at {fps:g} frames per second, but "
                f"its piece of {span.file} is from {span.start:.4f} to {span.end:.4f} s"
            )
            raise Broken(where, what, "correct the timestamps, or record it again")
        before = previous.get(span.file, episode)
        if before is not episode and span.start < before.videos[key].end - half:
            what = (
                f"episode {episode.index} begins at {span.start:.4f} s of {span.file}, before episode {before.index} "
                f"ends there ({before.videos[key].end:.4f} s): it would be given that episode's frames"
            )
            raise Broken(where, what, "correct from_timestamp, or convert or record the dataset again")
        previous[span.file] = episode


def episode_files(root: Path) -> list[str]:
    """The parquet files of meta/episodes (v3.0), relative to the root."""
    files = sorted(file for file in sizes(root, (EPISODES_V3,)) if file.endswith(".parquet"))
    if not files:
        raise Broken(EPISODES_V3, "no parquet file in it", "copy the folder again, or finish the recording")
    return files


def _episode_rows(raw: list[dict[str, Any]], where: str) -> list[_EpisodeRow]:
    rows = validated(_EPISODES, raw, where, RESTORE)
    for row in rows:
        if row.episode_index < 0 or not 1 <= row.length <= LONGEST:
            what = f"episode {row.episode_index!s:.40} has length {row.length!s:.40}"
            raise Broken(where, what, "number episodes from 0, and remove those without a step")
    return rows


def _episodes_v3(root: Path, info: Info) -> Iterator[Episode]:
    own = ["episode_index", "tasks", "length"]
    places = ["data", *(f"videos/{key}" for key in info.video_keys)]
    indices = [f"{place}/{name}" for place in places for name in ("chunk_index", "file_index")]
    starts = [f"videos/{key}/from_timestamp" for key in info.video_keys]
    for file in episode_files(root):
        there = column_names(root, file)
        acting = [name for name in (ACTION_STEPS,) if name in there]
        ends = [end for key in info.video_keys if (end := f"videos/{key}/to_timestamp") in there]
        raw = read_rows(root, file, [*own, *acting, *indices, *starts, *ends])
        rows = _episode_rows([{name: row[name] for name in own} for row in raw], file)
        files = validated(_INDICES, [{name: row[name] for name in indices} for row in raw], file, RESTORE)
        seconds = validated(
            _SECONDS, [{name: row[name] for name in (*starts, *ends)} for row in raw], file, RESTORE
        )
        acted = validated(_INDICES, [{name: row[name] for name in acting} for row in raw], file, RESTORE)
        for row, at, time, act in zip(rows, files, seconds, acted, strict=True):
            yield Episode(
                index=row.episode_index,
                length=row.length,
                actions=_actions(act, row, file),
                tasks=row.tasks,
                file=_place(info.data_path, at, "data"),
                videos={
                    key: _span(
                        _place(info.video_path, at, f"videos/{key}", video_key=key), time, key, row, info
                    )
                    for key in info.video_keys
                },
            )


def _actions(acted: Mapping[str, int], row: _EpisodeRow, where: str) -> int:
    actions = acted.get(ACTION_STEPS, row.length)
    if not 1 <= actions <= row.length:
        what = f"{ACTION_STEPS} of episode {row.episode_index} is {actions}, it has {row.length} steps"
        raise Broken(where, what, RESTORE)
    return actions


def _place(template: str, indices: Mapping[str, int], part: str, **values: str) -> str:
    chunk, file = indices[f"{part}/chunk_index"], indices[f"{part}/file_index"]
    return _filled(template, chunk_index=chunk, file_index=file, **values)


def _span(file: str, seconds: Mapping[str, float], key: str, row: _EpisodeRow, info: Info) -> Span:
    """The end follows from the length where the dataset does not state it."""
    start = seconds[f"videos/{key}/from_timestamp"]
    return Span(file, start, seconds.get(f"videos/{key}/to_timestamp", start + row.length / info.fps))


def _episodes_v2(root: Path, info: Info) -> Iterator[Episode]:
    for row in _episode_rows(read_jsonl(root, EPISODES_V2), EPISODES_V2):
        index = row.episode_index
        place = {"episode_chunk": index // info.chunks_size, "episode_index": index}
        yield Episode(
            index=index,
            length=row.length,
            actions=row.length,
            tasks=row.tasks,
            file=_filled(info.data_path, **place),
            videos={
                key: Span(_filled(info.video_path, video_key=key, **place), 0.0, row.length / info.fps)
                for key in info.video_keys
            },
        )


def _filled(template: str, **values: Any) -> str:
    """A path relative to the root. Raises Broken where it leads anywhere but into data/ or videos/."""
    path = PurePosixPath(template.format(**values))
    if path.parts[:1] not in (("data",), ("videos",)) or ".." in path.parts or not str(path).isprintable():
        what = f"the path {str(path)!r:.100} does not stay in the folders data and videos"
        raise Broken(INFO, what, TEMPLATE)
    return path.as_posix()


@dataclass(frozen=True)
class _FeatureForm:
    dtype: str
    shape: list[StrictInt]


@dataclass(frozen=True)
class _TaskRow:
    task_index: int
    task: str


@dataclass(frozen=True)
class _EpisodeRow:
    episode_index: int
    tasks: tuple[str, ...]
    length: int


_INFO = TypeAdapter(Info).validate_python
_FEATURES = TypeAdapter(Mapping[str, _FeatureForm]).validate_python
_TASKS = TypeAdapter(list[_TaskRow]).validate_python
_EPISODES = TypeAdapter(list[_EpisodeRow]).validate_python
_INDICES = TypeAdapter(list[dict[str, int]]).validate_python
_SECONDS = TypeAdapter(list[dict[str, float]]).validate_python
