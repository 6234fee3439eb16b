"""Episodes of another format taken into a dataset one by one; interrupted work goes on, finished work is left alone.

Where an episode came from stands in its extra columns `source` and `source_index`; `conversion.json` beside a
finished dataset names all sources, and those that were discarded. It does not know any other format.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from wamkit_client.types import BadInput

from wamkit.data.lerobot.writer import Writer
from wamkit.io.files import only_writer, replace_file
from wamkit.io.interrupt import stop_request, stopped
from wamkit.io.progress import bar
from wamkit.io.records import read_record

KEPT = "finished episodes are kept"
FACTS = "conversion.json"
ELSEWHERE = "choose another folder or remove this one"


@dataclass(frozen=True)
class Target:
    """The dataset to be. features: as in Writer.create. settings: what else its contents depend on."""

    root: Path
    fps: float
    robot_type: str
    features: Mapping[str, Mapping[str, Any]]
    settings: Mapping[str, Any]


@dataclass(frozen=True)
class Episode:
    """The arguments of Writer.add_episode."""

    columns: Mapping[str, np.ndarray]
    videos: Mapping[str, np.ndarray]
    task: str
    extra: Mapping[str, Any]


def vector(dimensions: int, names: Sequence[str] | None) -> dict[str, Any]:
    """The feature of a column of float32 rows; names: of its dimensions, where they are known."""
    return {"dtype": "float32", "shape": [dimensions], "names": list(names) if names else None}


def video(height: int, width: int) -> dict[str, Any]:
    """The feature of a camera."""
    return {"dtype": "video", "shape": [height, width, 3], "names": ["height", "width", "channels"]}


def import_episodes(
    target: Target, sources: Sequence[str], read: Callable[[int], Episode | None]
) -> list[str]:
    """Write the episode of every source, in order; the names of those that `read` discarded.

    read: the number of a source -> its episode; None discards it. Raises BadInput where the folder holds something
    else or another process records there, KeyboardInterrupt after Ctrl-C; written episodes stay, and the same call goes
    on behind them.
    """
    request = _request(target, sources)
    if Writer.finished(target.root):
        return _discarded(target.root, request)
    with only_writer(target.root, "records"):
        return _import(target, request, sources, read)


def _import(
    target: Target, request: Mapping[str, Any], sources: Sequence[str], read: Callable[[int], Episode | None]
) -> list[str]:
    writer = _writer(target, request)
    first = _position(writer, sources)
    with (
        stop_request(KEPT) as stop,
        bar("convert", len(sources), unit="episodes", done=first) as advance,
    ):
        for number in range(first, len(sources)):
            episode = read(number)
            if episode is not None:
                came_from = {"source": sources[number], "source_index": number}
                extra = dict(episode.extra) | came_from | dict(target.settings)
                writer.add_episode(episode.columns, episode.videos, episode.task, extra)
            if stop.is_set():
                raise stopped(KEPT)
            advance(1, note=sources[number])
    kept = {episode.extra["source"] for episode in writer.staged}
    discarded = [source for source in sources if source not in kept]
    if not kept:
        raise BadInput(
            f"{target.root}: all {len(sources)} episodes were discarded; there is nothing to train on"
        )
    facts = json.dumps({**request, "discarded": discarded}, indent=1)
    replace_file(target.root / FACTS, facts.encode())
    writer.finalize()
    return discarded


def _request(target: Target, sources: Sequence[str]) -> dict[str, Any]:
    numbers = {"fps": target.fps, "robot_type": target.robot_type, "features": dict(target.features)}
    return numbers | dict(target.settings) | {"sources": list(sources)}


def _discarded(root: Path, request: Mapping[str, Any]) -> list[str]:
    """What a conversion of the same request left out. BadInput where the folder holds another."""
    if not (root / FACTS).exists():
        raise BadInput(f"{root} holds a dataset that was not converted ({FACTS} is missing); {ELSEWHERE}")
    facts = read_record(root / FACTS, dict, f"restore it; {ELSEWHERE}")
    for name, value in request.items():
        if facts.get(name) != value:
            raise BadInput(f"{root} holds a conversion with other {name}; {ELSEWHERE}")
    discarded: list[str] = facts["discarded"]
    return discarded


def _writer(target: Target, request: Mapping[str, Any]) -> Writer:
    if not Writer.unfinished(target.root):
        if (target.root / FACTS).exists() and not Writer.finished(target.root):
            _discarded(target.root, request)
            Writer.clear(target.root, FACTS)
        return Writer.create(target.root, target.fps, target.robot_type, target.features)
    writer = Writer.resume(target.root, repeatable=True)
    there = {
        "fps": writer.plan.fps,
        "robot_type": writer.plan.robot_type,
        "features": dict(writer.plan.features),
    }
    for episode in writer.staged[:1]:
        there |= {name: episode.extra.get(name) for name in target.settings}
    asked = _request(target, [])
    for name, value in there.items():
        if value != asked[name]:
            raise BadInput(
                f"{target.root} was begun with {name} = {value}, asked for {asked[name]}; {ELSEWHERE}"
            )
    return writer


def _position(writer: Writer, sources: Sequence[str]) -> int:
    """The number of the first source that was not looked at yet."""
    position = 0
    for episode in writer.staged:
        source, position = episode.extra.get("source"), int(episode.extra.get("source_index", -1)) + 1
        if position > len(sources) or position < 1 or sources[position - 1] != source:
            raise BadInput(
                f"{writer.root}: episode {episode.index} is of {source or 'another recording'}, which is not at that "
                f"place any more (the recordings changed since); {ELSEWHERE}"
            )
    return position
