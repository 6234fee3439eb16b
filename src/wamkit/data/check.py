"""What is wrong with a dataset, found before a training run finds it: everything is read, every frame decoded.

Each problem names the file, relative to the dataset, what is wrong and the remedy. Nothing is repaired. It does not
know about policies.
"""

from __future__ import annotations

import json
from collections.abc import Container, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate, groupby
from operator import attrgetter
from pathlib import Path

import numpy as np

from wamkit.data.conventions import columns_flag, proposal
from wamkit.data.lerobot.columns import SOURCES, Names, named, numeric_columns
from wamkit.data.lerobot.dataset import decode_image, to_numpy
from wamkit.data.lerobot.disk import (
    RESTORE,
    Broken,
    files_below,
    group_ends,
    read_group,
    read_parquet,
)
from wamkit.data.lerobot.files import (
    INFO,
    NUMBERS,
    STAGING,
    TEXT_COLUMNS,
    V3,
    Episode,
    Feature,
    Info,
    dimension_names,
    first_users,
    image_size,
    missing_files,
    read_episodes,
    read_info,
    read_tasks,
)
from wamkit.data.lerobot.video import NO_INDEX, TOLERANCE, scan
from wamkit.data.statistics import STILL
from wamkit.io.progress import bar

FEW = 5
"""Problems of single episodes that are listed for one file; the others are counted."""

STATE = SOURCES["proprio"]

Columns = Mapping[str, np.ndarray]
Problems = Iterator[Broken]


def check(path: str | Path) -> list[Broken]:
    """Every problem of the dataset at `path`; an empty list where it is sound. Raises nothing on a broken one."""
    return list(_caught(_problems(Path(path))))


def remarks(path: str | Path) -> list[str]:
    """What is no problem of a dataset but decides what it can train. Empty where meta/info.json cannot be read."""
    try:
        proposed = proposal(read_info(Path(path)))
    except Broken:
        return []
    found = []
    if proposed.columns:
        taken = ", ".join(
            f"{name} is {column!r} ({proposed.reasons[name]})" for name, column in proposed.columns.items()
        )
        found.append(f"{INFO}: by the names of columns, {taken}; train with {columns_flag(proposed.columns)}")
    if "proprio" in proposed.missing:
        found.append(f"{INFO}: no {STATE!r}; it trains policies without proprio only")
    return found


def _caught(problems: Problems) -> Problems:
    """The problems, and at their end the one that stopped the search."""
    try:
        yield from problems
    except Broken as broken:
        yield broken


def _problems(root: Path) -> Problems:
    info = read_info(root)
    yield from _features(info)
    episodes = read_episodes(root, info)
    yield from _counts(root, info, episodes)
    needed = first_users(episodes)
    yield from _unused(root, needed)
    try:
        tasks = read_tasks(root, info)
    except Broken as broken:
        tasks = {}
        yield broken
    else:
        yield from _caught(_tasks(root, info, tasks))
    missing = list(missing_files(root, episodes))
    yield from missing
    usable = needed.keys() - {problem.where for problem in missing}
    firsts = accumulate((episode.length for episode in episodes), initial=0)
    numbered = dict(zip((episode.index for episode in episodes), firsts, strict=False))
    names = named(info, proposal(info).columns)
    yield from _data(_Meta(root, info, episodes, tasks, numbered, names), usable)
    yield from _videos(root, info, episodes, usable)


@dataclass(frozen=True)
class _Meta:
    """What the meta files say.

    firsts: the first row of each episode in the dataset, by the episode's index. names: where its actions are.
    """

    root: Path
    info: Info
    episodes: Sequence[Episode]
    tasks: Mapping[int, str]
    firsts: Mapping[int, int]
    names: Names


def _features(info: Info) -> Problems:
    if "action" in proposal(info).missing:
        there = numeric_columns(info.features)
        remedy = (
            f"say which it is: --data.columns action=COLUMN, of {', '.join(there)}" if there else "record it"
        )
        yield Broken(INFO, "no feature 'action'", f"a policy cannot be trained without; {remedy}")
    if not info.cameras:
        yield Broken(INFO, "no camera", "a policy cannot be trained without; record at least one")


def _counts(root: Path, info: Info, episodes: Sequence[Episode]) -> Problems:
    where = info.layout.episodes
    frames = sum(episode.length for episode in episodes)
    for name, stated, found in (
        ("episodes", info.total_episodes, len(episodes)),
        ("frames", info.total_frames, frames),
    ):
        if stated != found:
            what = f"total_{name} is {stated}, {where} lists {found}"
            yield Broken(INFO, what, f"correct it, or restore the missing {name}")
    indices = [episode.index for episode in episodes]
    if indices != list(range(len(indices))):
        yield Broken(where, "episode indices are not 0, 1, 2, ... without gap", RESTORE)
    if (root / STAGING).exists():
        yield Broken(STAGING, "is left over from a recording that was stopped at its very end", "delete it")


def _unused(root: Path, needed: Iterable[str]) -> Problems:
    """Data files and videos that belong to no episode."""
    there = {file for file in files_below(root, "data", "videos") if file.endswith((".parquet", ".mp4"))}
    for file in sorted(there.difference(needed)):
        yield Broken(file, "belongs to no episode", "restore meta/episodes, or delete the file")


def _tasks(root: Path, info: Info, tasks: Mapping[int, str]) -> Problems:
    where = info.layout.tasks
    if info.total_tasks != len(tasks):
        yield Broken(INFO, f"total_tasks is {info.total_tasks}, {where} lists {len(tasks)}", "correct it")
    if not tasks:
        yield Broken(where, "no task text", "a policy is told what to do in words; add them")
    for index, task in tasks.items():
        if not task.strip():
            yield Broken(where, f"task {index} has no text", "write the instruction in words")
    if info.layout is V3 and not _is_index(root, where):
        yield Broken(
            where,
            "the texts are an ordinary column, not the pandas index, so LeRobot hands policies the number",
            "write it with pandas: DataFrame({'task_index': numbers}, index=texts).to_parquet(...)",
        )


def _is_index(root: Path, file: str) -> bool:
    """Whether the pandas metadata names the text column as index."""
    metadata = read_parquet(root, file).schema.metadata or {}
    try:
        described = json.loads(metadata.get(b"pandas", b"{}"))
    except (ValueError, RecursionError):
        return False
    index = described.get("index_columns") if isinstance(described, dict) else None
    return isinstance(index, list) and any(name in index for name in TEXT_COLUMNS)


def _data(meta: _Meta, usable: Container[str]) -> Problems:
    """Problems of the data files; the range of the actions is that of all episodes that could be read."""
    ranges: list[np.ndarray] = []
    by_file = attrgetter("file")
    for file, members in groupby(sorted(meta.episodes, key=by_file), key=by_file):
        if file in usable:
            yield from _caught(_data_file(meta, file, list(members), ranges))
    if len({found.shape for found in ranges}) == 1:
        yield from _still(meta.names.features["action"], np.min(ranges, axis=0)[0], np.max(ranges, axis=0)[1])


def _data_file(meta: _Meta, file: str, members: Sequence[Episode], ranges: list[np.ndarray]) -> Problems:
    """Problems of one data file and of its episodes; appends the least and greatest actions [2, a] to `ranges`."""
    columns = _columns(meta.root, file, meta.info)
    of_images = list(_images(meta.root, meta.info, file, columns))
    rows, expected = len(columns["episode_index"]), sum(episode.length for episode in members)
    if rows != expected:
        yield Broken(file, f"{rows} rows, its episodes have {expected}", RESTORE)
    yield from _values(file, columns)
    yield from of_images
    found = [problem for episode in members for problem in _episode(episode, meta, columns)]
    yield from found[:FEW]
    if len(found) > FEW:
        what = f"{len(found) - FEW} more problems of its episodes"
        yield Broken(file, what, "correct the first ones and check again")
    if "action" in meta.names.features and rows:
        actions = meta.names.column("action", columns.__getitem__).reshape(rows, -1)
        ranges.append(np.stack([np.nanmin(actions, axis=0), np.nanmax(actions, axis=0)]))


def _columns(root: Path, file: str, info: Info) -> Columns:
    """All numeric columns of a data file. Raises Broken."""
    others = ("video", "image", "string")
    numeric = [name for name, feature in info.features.items() if feature["dtype"] not in others]
    table = read_parquet(root, file, list(dict.fromkeys([*numeric, "timestamp", *NUMBERS])))
    return {name: to_numpy(table, file, name, info) for name in table.column_names}


def _values(file: str, columns: Columns) -> Problems:
    for name, values in columns.items():
        if np.issubdtype(values.dtype, np.floating) and not np.isfinite(values).all():
            bad = np.argwhere(~np.isfinite(values.reshape(len(values), -1)))
            row = bad[0][0]
            place = f"first in episode {columns['episode_index'][row]}, frame {columns['frame_index'][row]}"
            what = f"{name} has {len(bad)} value(s) that are NaN or infinite, {place}"
            yield Broken(file, what, "correct these values, or omit the episode")


def _images(root: Path, info: Info, file: str, columns: Columns) -> Problems:
    """Problems of images inside a data file: every one is decoded."""
    for key in info.image_keys:
        expected = image_size(info.features[key])
        problems, row = [], 0
        for group in range(len(group_ends(root, file))):
            for cell in read_group(root, file, key, group):
                place = f"{key} of episode {columns['episode_index'][row]} step {columns['frame_index'][row]}"
                row += 1
                try:
                    found = decode_image(cell, file, place).shape[:2]
                except Broken as broken:
                    problems.append(broken.what)
                    continue
                if found != expected:
                    problems.append(f"{place} is {_size(found)}, {INFO} says {_size(expected)}")
        yield from _first(file, problems, "more like it")


def _first(file: str, found: Sequence[str], others: str) -> Problems:
    """The first problem of a kind, and how many others there are."""
    if found:
        more = f" (and {len(found) - 1} {others})" if len(found) > 1 else ""
        yield Broken(file, found[0] + more, RESTORE)


def _size(image: tuple[int, ...]) -> str:
    return "x".join(map(str, image))


def _episode(episode: Episode, meta: _Meta, columns: Columns) -> Problems:
    """Problems of one episode's rows in its data file."""
    where, name, fps = episode.file, f"episode {episode.index}", meta.info.fps
    first = meta.firsts[episode.index]
    rows = np.flatnonzero(columns["episode_index"] == episode.index)
    if len(rows) != episode.length:
        yield Broken(where, f"{name} has {len(rows)} rows, meta says {episode.length}", RESTORE)
    if len(rows) == 0:
        return
    if rows[-1] - rows[0] + 1 != len(rows):
        yield Broken(where, f"the rows of {name} are not together", "sort by episode_index and frame_index")
    if (columns["frame_index"][rows] != np.arange(len(rows))).any():
        yield Broken(where, f"frame_index of {name} is not 0, 1, 2, ...", "sort the rows, or record it again")
    elif (columns["index"][rows] != first + np.arange(len(rows))).any():
        yield Broken(where, f"index of {name} does not count from {first}", "number the rows of the dataset")
    timestamps = columns["timestamp"][rows].astype(np.float64)
    gaps = np.flatnonzero(np.abs(np.diff(timestamps, prepend=-1 / fps) - 1 / fps) > TOLERANCE)
    if len(gaps):
        at, before = gaps[0], timestamps[gaps[0] - 1] if gaps[0] else 0.0
        yield Broken(
            where,
            f"timestamps of {name} have {len(gaps)} gap(s), first {timestamps[at] - before:.4f} s before frame {at}, "
            f"expected {1 / fps if at else 0:.4f} s",
            f"record at a steady {fps:g} frames per second, or correct fps",
        )
    unknown = sorted(set(columns["task_index"][rows].tolist()) - meta.tasks.keys())
    if unknown and meta.tasks:
        yield Broken(where, f"{name} has task {unknown[0]}, which has no text", "add it to meta/tasks")


def _still(feature: Feature, low: np.ndarray, high: np.ndarray) -> Problems:
    names = dimension_names(feature, len(low))
    for dim in np.flatnonzero(high - low < STILL):
        label = f" ({names[dim]})" if names[dim] else ""
        what = f"action dimension {dim}{label} is always {low[dim]:g}"
        yield Broken("data", what, "omit it from the action, or record data in which it moves")


def _videos(root: Path, info: Info, episodes: Sequence[Episode], usable: Container[str]) -> Problems:
    """Problems of the video files: every frame is decoded."""
    users: dict[tuple[str, str], list[Episode]] = {}
    for episode in episodes:
        for key, span in episode.videos.items():
            if span.file in usable:
                users.setdefault((key, span.file), []).append(episode)
    with bar("check", len(users), unit="video") as advance:
        for (key, file), members in users.items():
            try:
                yield from _video(root, info, key, file, members)
            except Broken as broken:
                yield Broken(file, broken.what, NO_INDEX)
            advance(1)


def _video(root: Path, info: Info, key: str, file: str, members: Sequence[Episode]) -> Problems:
    found = scan(root / file)
    if found.damage:
        yield Broken(file, found.damage, RESTORE)
    size, stated = (found.height, found.width), image_size(info.features[key])
    if size != stated:
        what = f"images are {_size(size)}, {INFO} says {_size(stated)}"
        yield Broken(file, what, "correct the shape, or record it again")
    expected = sum(episode.length for episode in members)
    if len(found.times) != expected and not found.damage:
        yield Broken(file, f"{len(found.times)} frames, its episodes have {expected}", RESTORE)
    times = np.sort(np.array([*found.times, np.inf]))
    incomplete = []
    for episode in members:
        asked = episode.videos[key].start + np.arange(episode.length) / info.fps
        lacking = np.flatnonzero(times[np.searchsorted(times, asked - TOLERANCE)] > asked + TOLERANCE)
        if len(lacking):
            first = f"first frame {lacking[0]} at {asked[lacking[0]]:.4f} s"
            incomplete.append(f"episode {episode.index} lacks {len(lacking)} frame(s), {first}")
    yield from _first(file, incomplete, "more episodes")
