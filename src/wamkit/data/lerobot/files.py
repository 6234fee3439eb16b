"""The meta files of a LeRobot dataset, versions 2.0, 2.1 and 3.0: where everything is.

    v3.0   meta/tasks.parquet, meta/episodes/*/*.parquet; many episodes per data file and video
    v2.x   meta/tasks.jsonl, meta/episodes.jsonl; one data file and one video per episode

Both become the same `Episode`s. It does not open data files or videos.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from itertools import pairwise
from operator import itemgetter
from pathlib import Path, PurePosixPath
from typing import Annotated, Any

from pydantic import AfterValidator, Field, StrictInt, TypeAdapter

from wamkit.data.lerobot.disk import (
    RESTORE,
    Broken,
    column_names,
    expect,
    files_below,
    read_json,
    read_jsonl,
    read_rows,
    validated,
)

STAGING = ".staging"
CAMERA_PREFIX = "observation.images."
ACTION_STEPS = "action_steps"
"""Our own column of meta/episodes: how many steps have an action, where more were recorded after the last one."""
EPISODE_COLUMNS = (
    "episode_index",
    "tasks",
    "length",
    "dataset_from_index",
    "dataset_to_index",
    ACTION_STEPS,
)
"""Columns of meta/episodes that are of the format, or ours; so are those with a slash."""
TEXT_COLUMNS = ("__index_level_0__", "task")
"""Names under which pandas stores the task texts, the index of tasks.parquet."""

NUMBERS = ("frame_index", "episode_index", "index", "task_index")
"""Columns of whole numbers that every dataset has. `timestamp`, in seconds, is the fifth one."""

LONGEST = 10**7
"""Steps of an episode: at 50 Hz more than two days. A longer one is damage, not a recording."""
LATEST = 1e9
"""Seconds at which an episode may begin in its video."""

INFO = "meta/info.json"
CORRECT = f"correct {INFO}"
TEMPLATE = "restore LeRobot's template"
FIELD = re.compile(r"\{(\w+)(?::(?:0[1-9])?d)?\}")
"""A number in a path template: {chunk_index:03d}."""


@dataclass(frozen=True)
class Layout:
    """Where a version keeps tasks and episodes, and the numbers that its path templates are filled with."""

    tasks: str
    episodes: str
    path_fields: tuple[str, str]


V2 = Layout("meta/tasks.jsonl", "meta/episodes.jsonl", ("episode_chunk", "episode_index"))
V3 = Layout("meta/tasks.parquet", "meta/episodes", ("chunk_index", "file_index"))
LAYOUTS = {"v2.0": V2, "v2.1": V2, "v3.0": V3}

Feature = Mapping[str, Any]
"""How one column or camera is stored: "dtype", "shape", and often "names" and "info"."""


@dataclass(frozen=True)
class Info:
    """meta/info.json. features: by name; totals as the file states them; video_path: "" where there is none."""

    version: str
    fps: Annotated[float, Field(ge=1e-3, le=1e5)]
    features: Mapping[str, Feature]
    total_episodes: int
    total_frames: int
    total_tasks: int
    data_path: str
    chunks_size: Annotated[int, Field(ge=1)]
    robot_type: str = "unknown"
    video_path: str = ""

    @property
    def layout(self) -> Layout:
        return LAYOUTS[self.version]

    @property
    def cameras(self) -> dict[str, str]:
        """Feature key of each camera, by the camera's name."""
        keys = self._stored_as("video", "image")
        return {key.removeprefix(CAMERA_PREFIX).removeprefix("observation."): key for key in keys}

    @property
    def video_keys(self) -> tuple[str, ...]:
        """Features stored in video files."""
        return self._stored_as("video")

    @property
    def image_keys(self) -> tuple[str, ...]:
        """Features stored as encoded images in the data files."""
        return self._stored_as("image")

    def _stored_as(self, *dtypes: str) -> tuple[str, ...]:
        return tuple(key for key, feature in self.features.items() if feature["dtype"] in dtypes)


@dataclass(frozen=True)
class Span:
    """Where an episode's video is: file (relative to the root) and the seconds from its first frame to its end."""

    file: str
    start: float
    end: float


@dataclass(frozen=True)
class Episode:
    """index: `episode_index` in the data; file: data file relative to the root; videos: by feature key.

    actions: how many of its steps have an action; in most datasets all `length` of them. What was observed after the
    last action has rows too, which repeat the last action.
    """

    index: int
    length: int
    actions: int
    tasks: tuple[str, ...]
    file: str
    videos: Mapping[str, Span]


def first_users(episodes: tuple[Episode, ...]) -> dict[str, Episode]:
    """Every data file and video, with the first episode that needs it."""
    found: dict[str, Episode] = {}
    for episode in episodes:
        for file in (episode.file, *(span.file for span in episode.videos.values())):
            found.setdefault(file, episode)
    return found


def missing_files(root: Path, episodes: tuple[Episode, ...]) -> Iterator[Broken]:
    """What is wrong where a data file or video cannot be opened; each names the first episode that needs it."""
    for file, episode in sorted(first_users(episodes).items(), key=itemgetter(0)):
        try:
            expect(root, file)
        except Broken as broken:
            yield Broken(file, f"{broken.what} (episode {episode.index})", broken.remedy)


def image_size(feature: Feature) -> tuple[int, int]:
    """Height and width of a camera's images; some datasets write the channels first."""
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
    if (root / STAGING).exists() and not (root / INFO).exists():
        what = "is an unfinished recording"
        raise Broken(STAGING, what, "run the command that records it again, it goes on")
    raw = read_json(root, INFO, f"{root} must be a LeRobot dataset; check the path")
    version = raw.get("codebase_version")
    if version not in [*LAYOUTS]:  # which may be a list: not hashable
        what = f"codebase_version is {version!r:.60}"
        raise Broken(INFO, what, f"wamkit reads {', '.join(LAYOUTS)}; convert it")
    stated = {key: value for key, value in raw.items() if value not in (None, "")}
    info = validated(_INFO, stated | {"version": version}, INFO, CORRECT)
    if not info.robot_type.isprintable():
        raise Broken(INFO, f"robot_type is {info.robot_type!r:.60}", "write the robot's name")
    validated(_FEATURES, info.features, f"{INFO}: features", CORRECT)
    for name in info.cameras.values():
        if len(shape := info.features[name]["shape"]) != 3:
            what = f"feature {name!r:.60} has shape {shape!s:.60}"
            raise Broken(INFO, what, "images are [height, width, 3]")
    _expect_template("data_path", info.data_path, info.layout.path_fields)
    _expect_template("video_path", info.video_path.replace("{video_key}", "KEY"), info.layout.path_fields)
    if info.video_keys and not info.video_path:
        raise Broken(INFO, f"video_path is missing, and {info.video_keys[0]!r} is a video", TEMPLATE)
    return info


def _expect_template(key: str, template: str, fields: tuple[str, ...]) -> None:
    """Raises Broken for a path template that `format` would fill with anything but these fields.

    It would read attributes of the numbers, or write names of any length, if it was told to.
    """
    rest = FIELD.sub(lambda found: "" if found[1] in fields else found[0], template)
    if "{" in rest or "}" in rest:
        what = f"{key} is {template!r:.100}; it may ask for {', '.join(fields)} as numbers of some digits"
        raise Broken(INFO, what, TEMPLATE)


def read_tasks(root: Path, info: Info) -> dict[int, str]:
    """Task texts by task_index. Raises Broken where the file is unreadable or a text is not a text."""
    where = info.layout.tasks
    raw = _raw_tasks(root, where) if info.layout is V3 else read_jsonl(root, where)
    tasks = validated(_TASKS, raw, where, "write every instruction in words, with its number")
    for number, count in Counter(row.task_index for row in tasks).items():
        if count > 1:
            raise Broken(where, f"task {number} is there {count} times", "give every text its own number")
    return {row.task_index: row.task for row in tasks}


def _raw_tasks(root: Path, where: str) -> list[dict[str, Any]]:
    columns = column_names(root, where)
    text = next((name for name in TEXT_COLUMNS if name in columns), "")
    if not text or "task_index" not in columns:
        what = f"columns {columns!s:.100}"
        raise Broken(where, what, "expected task_index and the texts as pandas index")
    rows = read_rows(root, where, ["task_index", text])
    return [{"task_index": row["task_index"], "task": row[text]} for row in rows]


def read_episodes(root: Path, info: Info) -> tuple[Episode, ...]:
    """Every episode in order of its index. Raises Broken, also where two share an index or a piece of a video."""
    found = _episodes_v3(root, info) if info.layout is V3 else _episodes_v2(root, info)
    episodes = tuple(sorted(found, key=lambda episode: episode.index))
    where = info.layout.episodes
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


def _episodes_v2(root: Path, info: Info) -> Iterator[Episode]:
    for row in validated(_EPISODES, read_jsonl(root, V2.episodes), V2.episodes, RESTORE):
        place = _Place(row.episode_index // info.chunks_size, row.episode_index)
        yield _episode(row, dict.fromkeys(_parts(info), place), V2.episodes, info)


def _episodes_v3(root: Path, info: Info) -> Iterator[Episode]:
    """The places of an episode's rows and videos are columns: data/file_index, videos/KEY/file_index, ..."""
    parts = _parts(info)
    needed = ["episode_index", "tasks", "length"]
    needed += [f"{part}/{name}" for part in parts for name in V3.path_fields]
    needed += [f"{part}/from_timestamp" for part in parts[1:]]
    optional = [ACTION_STEPS, *(f"{part}/to_timestamp" for part in parts[1:])]
    for file in episode_files(root):
        there = column_names(root, file)
        raw = read_rows(root, file, [*needed, *(name for name in optional if name in there)])
        for row in raw:
            places: dict[str, dict[str, Any]] = {part: {} for part in parts}
            for part, _, name in (column.rpartition("/") for column in row if "/" in column):
                places[part][name] = row[f"{part}/{name}"]
            row["places"] = places
        for valid in validated(_EPISODES, raw, file, RESTORE):
            yield _episode(valid, valid.places, file, info)


def _parts(info: Info) -> list[str]:
    return ["data", *(f"videos/{key}" for key in info.video_keys)]


def episode_files(root: Path) -> list[str]:
    """The parquet files of meta/episodes (v3.0), relative to the root."""
    files = [file for file in files_below(root, V3.episodes) if file.endswith(".parquet")]
    if not files:
        raise Broken(V3.episodes, "no parquet file in it", "copy the folder again, or finish the recording")
    return files


def _episode(row: _EpisodeRow, places: Mapping[str, _Place], where: str, info: Info) -> Episode:
    index, length = row.episode_index, row.length
    if index < 0 or not 1 <= length <= LONGEST:
        what = f"episode {index!s:.40} has length {length!s:.40}"
        raise Broken(where, what, "number episodes from 0, and remove those without a step")
    actions = length if row.action_steps is None else row.action_steps
    if not 1 <= actions <= length:
        raise Broken(where, f"{ACTION_STEPS} of episode {index} is {actions}, it has {length} steps", RESTORE)
    videos = {}
    for key in info.video_keys:
        place = places[f"videos/{key}"]
        end = place.from_timestamp + length / info.fps if place.to_timestamp is None else place.to_timestamp
        videos[key] = Span(_path(info.video_path, place, info, video_key=key), place.from_timestamp, end)
    return Episode(index, length, actions, row.tasks, _path(info.data_path, places["data"], info), videos)


def _path(template: str, place: _Place, info: Info, **names: str) -> str:
    """A path relative to the root. Raises Broken where it leads anywhere but into data/ or videos/."""
    numbers = zip(info.layout.path_fields, (place.chunk_index, place.file_index), strict=True)
    path = PurePosixPath(template.format(**dict(numbers), **names))
    if path.parts[:1] not in (("data",), ("videos",)) or ".." in path.parts or not str(path).isprintable():
        what = f"the path {str(path)!r:.100} does not stay in the folders data and videos"
        raise Broken(INFO, what, TEMPLATE)
    return path.as_posix()


@dataclass(frozen=True)
class _FeatureForm:
    dtype: str
    shape: list[Annotated[StrictInt, Field(ge=1)]]


@dataclass(frozen=True)
class _Place:
    """Where a part of an episode is: the two numbers of its path, and the seconds in its video."""

    chunk_index: int
    file_index: int
    from_timestamp: float = 0.0
    to_timestamp: float | None = None


def _utf8(text: str) -> str:
    """ValueError for halves of characters, which JSON may hold."""
    return text.encode().decode()


@dataclass(frozen=True)
class _TaskRow:
    task_index: int
    task: Annotated[str, Field(strict=True), AfterValidator(_utf8)]


@dataclass(frozen=True)
class _EpisodeRow:
    episode_index: int
    tasks: tuple[str, ...]
    length: int
    action_steps: int | None = None
    places: Mapping[str, _Place] = field(default_factory=dict)


_INFO = TypeAdapter(Info).validate_python
_FEATURES = TypeAdapter(Mapping[str, _FeatureForm]).validate_python
_TASKS = TypeAdapter(list[_TaskRow]).validate_python
_EPISODES = TypeAdapter(list[_EpisodeRow]).validate_python
