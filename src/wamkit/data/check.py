"""What is wrong with a dataset, found before a training run finds it: everything is read, every frame decoded.

Each problem names the file, what is wrong and the remedy. It repairs nothing and does not know about policies.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence, Set
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path

import numpy as np

from wamkit.data.lerobot.dataset import first_users, picture, to_numpy
from wamkit.data.lerobot.disk import Broken, expect, group_ends, read_group, read_parquet, sizes
from wamkit.data.lerobot.files import (
    NUMBERS,
    STAGING,
    TEXT_COLUMNS,
    Episode,
    Info,
    dimension_names,
    picture_size,
    read_episodes,
    read_info,
    read_tasks,
)
from wamkit.data.lerobot.video import TOLERANCE, BrokenVideo, scan
from wamkit.data.statistics import STILL
from wamkit.io.progress import bar

AGAIN = "copy or record it again"
FEW = 5
"""Problems of single episodes that are listed for one file; the others are counted."""

Columns = Mapping[str, np.ndarray]


@dataclass(frozen=True)
class Problem:
    """where: file, relative to the dataset. what: what is wrong. remedy: what to do."""

    where: str
    what: str
    remedy: str

    def __str__(self) -> str:
        return f"{self.where}: {self.what}; {self.remedy}"


def check(path: str | Path) -> list[Problem]:
    """Every problem of the dataset at `path`; an empty list where it is sound. Raises nothing on a broken one."""
    root = Path(path)
    problems: list[Problem] = []
    try:
        info = read_info(root)
        problems += _features(info)
        episodes = read_episodes(root, info)
        problems += _counts(root, info, episodes)
        problems += _strays(root, episodes)
    except Broken as broken:
        return [*problems, _problem(broken)]
    tasks: dict[int, str] = {}
    try:
        tasks = read_tasks(root, info)
        problems += _language(root, info, tasks)
    except Broken as broken:
        problems.append(_problem(broken))
    absent = _absent(root, episodes)
    problems += absent
    unusable = {problem.where for problem in absent}
    problems += _data(root, info, episodes, tasks, unusable)
    problems += _videos(root, info, episodes, unusable)
    return problems


def _problem(broken: Broken) -> Problem:
    return Problem(broken.where, broken.what, broken.remedy)


def _features(info: Info) -> Iterator[Problem]:
    where = "meta/info.json"
    for name in ("action", "observation.state"):
        if name not in info.features:
            yield Problem(where, f"no feature {name!r}", "a policy cannot be trained without; record it")
    if not info.cameras:
        yield Problem(where, "no camera", "a policy cannot be trained without; record at least one")


def _counts(root: Path, info: Info, episodes: tuple[Episode, ...]) -> Iterator[Problem]:
    meta = "meta/episodes" if info.version == "v3.0" else "meta/episodes.jsonl"
    frames = sum(episode.length for episode in episodes)
    for name, stated, found in (
        ("episodes", info.total_episodes, len(episodes)),
        ("frames", info.total_frames, frames),
    ):
        if stated != found:
            what = f"total_{name} is {stated}, {meta} lists {found}"
            yield Problem("meta/info.json", what, f"correct it, or restore the missing {name}")
    indices = [episode.index for episode in episodes]
    if indices != list(range(len(indices))):
        yield Problem(meta, "episode indices are not 0, 1, 2, ... without gap", AGAIN)
    if (root / STAGING).exists():
        yield Problem(STAGING, "is left over from a recording that was stopped at its very end", "delete it")


def _language(root: Path, info: Info, tasks: Mapping[int, str]) -> Iterator[Problem]:
    where = "meta/tasks.parquet" if info.version == "v3.0" else "meta/tasks.jsonl"
    if info.total_tasks != len(tasks):
        yield Problem(
            "meta/info.json", f"total_tasks is {info.total_tasks}, {where} lists {len(tasks)}", "correct it"
        )
    if not tasks:
        yield Problem(where, "no task text", "a policy is told what to do in words; add them")
    for index, task in tasks.items():
        if not task.strip():
            yield Problem(where, f"task {index} has no text", "write the instruction in words")
    if info.version == "v3.0" and not _is_index(root, where):
        yield Problem(
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


def _strays(root: Path, episodes: Sequence[Episode]) -> Iterator[Problem]:
    """Files that are there but belong to no episode."""
    endings = {"data": ".parquet", "videos": ".mp4"}
    there = {
        file for part, ending in endings.items() for file in sizes(root, (part,)) if file.endswith(ending)
    }
    for file in sorted(there - first_users(episodes).keys()):
        yield Problem(file, "belongs to no episode", "restore meta/episodes, or delete the file")


def _absent(root: Path, episodes: Sequence[Episode]) -> list[Problem]:
    """Files that an episode needs and that are not there."""
    found = []
    for file in sorted(first_users(episodes)):
        try:
            expect(root, file)
        except Broken as broken:
            found.append(_problem(broken))
    return found


def _data(
    root: Path, info: Info, episodes: tuple[Episode, ...], tasks: Mapping[int, str], unusable: Set[str]
) -> Iterator[Problem]:
    """Problems of the data files; the range of the actions is that of all episodes that could be read."""
    lows, highs = [], []
    firsts = np.cumsum([0, *(episode.length for episode in episodes)])
    first_index = {episode.index: int(first) for episode, first in zip(episodes, firsts, strict=False)}
    files = groupby(sorted(episodes, key=lambda episode: episode.file), key=lambda episode: episode.file)
    for file, group in files:
        if file in unusable:
            continue
        try:
            columns = _columns(root, file, info)
            of_pictures = list(_pictures(root, info, file, columns))
        except Broken as broken:
            yield _problem(broken)
            continue
        members = list(group)
        rows, expected = len(columns["episode_index"]), sum(episode.length for episode in members)
        if rows != expected:
            yield Problem(file, f"{rows} rows, its episodes have {expected}", AGAIN)
        yield from _values(file, columns)
        yield from of_pictures
        of_episodes = [p for e in members for p in _episode(e, info, columns, tasks, first_index[e.index])]
        yield from of_episodes[:FEW]
        if len(of_episodes) > FEW:
            what = f"{len(of_episodes) - FEW} more problems of its episodes"
            yield Problem(file, what, "mend the first ones and check again")
        if "action" in columns and rows:
            lows.append(np.nanmin(columns["action"].reshape(rows, -1), axis=0))
            highs.append(np.nanmax(columns["action"].reshape(rows, -1), axis=0))
    if len({len(low) for low in lows}) == 1:
        yield from _still(info, np.min(lows, axis=0), np.max(highs, axis=0))


def _columns(root: Path, file: str, info: Info) -> Columns:
    """All numeric columns of a data file. Raises Broken."""
    numeric = [
        name
        for name, feature in info.features.items()
        if feature["dtype"] not in ("video", "image", "string")
    ]
    table = read_parquet(root, file, list(dict.fromkeys([*numeric, "timestamp", *NUMBERS])))
    return {name: to_numpy(table, file, name, info) for name in table.column_names}


def _values(file: str, columns: Columns) -> Iterator[Problem]:
    for name, values in columns.items():
        if np.issubdtype(values.dtype, np.floating) and not np.isfinite(values).all():
            bad = np.argwhere(~np.isfinite(values.reshape(len(values), -1)))
            row = bad[0][0]
            place = f"first in episode {columns['episode_index'][row]}, frame {columns['frame_index'][row]}"
            what = f"{name} has {len(bad)} value(s) that are NaN or infinite, {place}"
            yield Problem(file, what, "mend these values, or leave the episode out")


def _pictures(root: Path, info: Info, file: str, columns: Columns) -> Iterator[Problem]:
    """Problems of pictures inside a data file: every one is decoded."""
    for key in (key for key, feature in info.features.items() if feature["dtype"] == "image"):
        problems, row = [], 0
        for group in range(len(group_ends(root, file))):
            for cell in read_group(root, file, key, group):
                place = f"{key} of episode {columns['episode_index'][row]} step {columns['frame_index'][row]}"
                row += 1
                try:
                    found, expected = (
                        picture(cell, file, place).shape[:2],
                        picture_size(info.features[key]),
                    )
                    if found != expected:
                        problems.append(f"{place} is {_size(found)}, meta/info.json says {_size(expected)}")
                except Broken as broken:
                    problems.append(broken.what)
        if problems:
            more = f" (and {len(problems) - 1} more like it)" if len(problems) > 1 else ""
            yield Problem(file, problems[0] + more, AGAIN)


def _size(picture: tuple[int, ...]) -> str:
    return "x".join(map(str, picture))


def _episode(
    episode: Episode, info: Info, columns: Columns, tasks: Mapping[int, str], first: int
) -> Iterator[Problem]:
    """Problems of one episode's rows in its data file."""
    where, name = episode.file, f"episode {episode.index}"
    rows = np.flatnonzero(columns["episode_index"] == episode.index)
    if len(rows) != episode.length:
        yield Problem(where, f"{name} has {len(rows)} rows, meta says {episode.length}", AGAIN)
    if len(rows) == 0:
        return
    if rows[-1] - rows[0] + 1 != len(rows):
        yield Problem(where, f"the rows of {name} are not together", "sort by episode_index and frame_index")
    if (columns["frame_index"][rows] != np.arange(len(rows))).any():
        yield Problem(
            where, f"frame_index of {name} is not 0, 1, 2, ...", "sort the rows, or record it again"
        )
    elif (columns["index"][rows] != first + np.arange(len(rows))).any():
        yield Problem(where, f"index of {name} does not count from {first}", "number the rows of the dataset")
    timestamps = columns["timestamp"][rows].astype(np.float64)
    gaps = np.flatnonzero(np.abs(np.diff(timestamps, prepend=-1 / info.fps) - 1 / info.fps) > TOLERANCE)
    if len(gaps):
        at, before = gaps[0], timestamps[gaps[0] - 1] if gaps[0] else 0.0
        step = timestamps[at] - before
        yield Problem(
            where,
            f"timestamps of {name} have {len(gaps)} gap(s), first {step:.4f} s before frame {at}, "
            f"expected {1 / info.fps if at else 0:.4f} s",
            f"record at a steady {info.fps:g} frames per second, or correct fps",
        )
    unknown = sorted(set(columns["task_index"][rows].tolist()) - tasks.keys())
    if unknown and tasks:
        yield Problem(
            where, f"{name} has task {unknown[0]}, of which no text is known", "add it to meta/tasks"
        )


def _still(info: Info, low: np.ndarray, high: np.ndarray) -> Iterator[Problem]:
    names = dimension_names(info.features["action"], len(low))
    for dim in np.flatnonzero(high - low < STILL):
        label = f" ({names[dim]})" if names[dim] else ""
        what = f"action dimension {dim}{label} is always {low[dim]:g}"
        yield Problem("data", what, "leave it out of the action, or record data in which it moves")


def _videos(root: Path, info: Info, episodes: tuple[Episode, ...], unusable: Set[str]) -> Iterator[Problem]:
    """Problems of the video files: every frame is decoded."""
    users: dict[tuple[str, str], list[Episode]] = {}
    for episode in episodes:
        for key, span in episode.videos.items():
            if span.file not in unusable:
                users.setdefault((key, span.file), []).append(episode)
    with bar("check", len(users), unit="video") as advance:
        for (key, file), members in users.items():
            yield from _video(root, info, key, file, members)
            advance(1)


def _video(root: Path, info: Info, key: str, file: str, members: list[Episode]) -> Iterator[Problem]:
    try:
        found = scan(root / file)
    except BrokenVideo as broken:
        yield Problem(file, broken.what, "copy or record it again (an unfinished recording has no index)")
        return
    if found.damage:
        yield Problem(file, found.damage, AGAIN)
    height, width = picture_size(info.features[key])
    if (found.height, found.width) != (height, width):
        what = f"pictures are {found.height}x{found.width}, meta/info.json says {height}x{width}"
        yield Problem(file, what, "correct the shape, or record it again")
    expected = sum(episode.length for episode in members)
    if len(found.times) != expected and not found.damage:
        yield Problem(file, f"{len(found.times)} frames, its episodes have {expected}", AGAIN)
    times = np.sort(np.array([*found.times, np.inf]))
    incomplete = []
    for episode in members:
        asked = episode.videos[key].start + np.arange(episode.length) / info.fps
        lacking = np.flatnonzero(times[np.searchsorted(times, asked - TOLERANCE)] > asked + TOLERANCE)
        if len(lacking):
            first = f"first frame {lacking[0]} at {asked[lacking[0]]:.4f} s"
            incomplete.append(f"episode {episode.index} lacks {len(lacking)} frame(s), {first}")
    if incomplete:
        others = f" (and {len(incomplete) - 1} more episodes)" if len(incomplete) > 1 else ""
        yield Problem(file, incomplete[0] + others, AGAIN)
