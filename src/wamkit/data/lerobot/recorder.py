"""Episodes recorded into a dataset one by one, by a command that may be interrupted and run again.

A JSON file beside the dataset holds the request, that is everything the episodes depend on, and once all of them are
recorded what became of it. Running the same request again resumes an unfinished dataset and leaves a finished one
alone; any other request is refused. It does not know where episodes come from.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from threading import Event
from typing import Any

import numpy as np
from wamkit_client.types import BadInput

from wamkit.data.lerobot.files import STAGING
from wamkit.data.lerobot.pack import Staged
from wamkit.data.lerobot.writer import Writer
from wamkit.io.differences import differing
from wamkit.io.files import only_writer, replace_text
from wamkit.io.interrupt import stop_request, stopped
from wamkit.io.progress import Advance, bar
from wamkit.io.records import read_record

KEPT = "finished episodes are kept"
ELSEWHERE = "choose another folder or remove this one"
NO_FACTS: Mapping[str, Any] = {}


@dataclass(frozen=True)
class Format:
    """What every episode of a dataset has. features: as in Writer.create."""

    fps: float
    robot_type: str
    features: Mapping[str, Mapping[str, Any]]


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


@dataclass(frozen=True)
class Request:
    """A dataset to be recorded.

    name: of the file beside it, "collection.json" or "conversion.json". asked: what the episodes depend on, as JSON;
    the file begins with it.
    """

    root: Path
    name: str
    asked: Mapping[str, Any]

    @property
    def file(self) -> Path:
        """The file beside the dataset."""
        return self.root / self.name

    @property
    def kind(self) -> str:
        """What such a dataset is called."""
        return self.file.stem

    def finished(self) -> dict[str, Any] | None:
        """The facts of the finished dataset, None where it is not finished.

        Raises BadInput where the folder holds another dataset, or what was begun for another request.
        """
        facts = self._facts()
        if not Writer.finished(self.root):
            return None
        if facts is None:
            raise BadInput(
                f"{self.root} holds a dataset that is not a {self.kind} ({self.name} is missing); {ELSEWHERE}"
            )
        return facts

    def _facts(self) -> dict[str, Any] | None:
        if not self.file.exists():
            return None
        facts = read_record(
            self.file, dict, f"restore it, or remove the folder and run the {self.kind} again"
        )
        there = {name: facts.get(name) for name in self.asked}
        for name, recorded, asked in differing(there, json.loads(json.dumps(self.asked))):
            raise BadInput(
                f"{self.root} holds a {self.kind} with {name.removeprefix('request.')} = {recorded!r}, asked for "
                f"{asked!r}; {ELSEWHERE}"
            )
        return facts


class Recorder:
    """A dataset that is being recorded; `recording` makes it.

    facts: what the request's file will hold in the end; the caller adds what became of the request.
    done: what earlier runs recorded, in units of the progress bar.
    """

    def __init__(
        self, writer: Writer, facts: dict[str, Any], done: int, stop: Event, advance: Advance
    ) -> None:
        self.facts, self.done = facts, done
        self._writer, self._stop, self._advance = writer, stop, advance

    @property
    def staged(self) -> Sequence[Staged]:
        """The episodes recorded so far, by earlier runs too."""
        return self._writer.staged

    def add(self, episode: Episode, note: str) -> None:
        """Record one; it then survives a kill. KeyboardInterrupt where Ctrl-C was pressed meanwhile."""
        self._writer.add_episode(episode.columns, episode.videos, episode.task, episode.extra)
        self.skip(note)

    def skip(self, note: str) -> None:
        """Count one for which nothing is recorded. KeyboardInterrupt as `add`."""
        self._advance(1, note=note)
        self.expect_no_stop()

    def expect_no_stop(self) -> None:
        """KeyboardInterrupt where Ctrl-C was pressed."""
        if self._stop.is_set():
            raise stopped(KEPT)


@contextmanager
def recording(
    request: Request,
    form: Format,
    label: str,
    total: int,
    *,
    about: Mapping[str, Any] = NO_FACTS,
    done: Callable[[Sequence[Staged]], int] = len,
) -> Iterator[Recorder]:
    """Begin or resume a dataset; after the block it is finished.

    label, total: of the progress bar. done: how much of it the episodes of earlier runs are. about: further facts for
    its file. Raises BadInput where the folder holds something else or another process records there. Where the block
    raises BadInput before any episode was recorded, the folder is removed.
    """
    root, facts = request.root, {**request.asked, **about}
    with only_writer(root, "records"):
        writer = _writer(request, form)
        replace_text(request.file, json.dumps(facts, indent=1))
        try:
            position = done(writer.staged)
            with (
                stop_request(KEPT) as stop,
                bar(label, total, unit="episodes", done=position) as advance,
            ):
                yield Recorder(writer, facts, position, stop, advance)
        except BadInput:
            if not writer.staged:
                shutil.rmtree(root)  # holds nothing but what this call began
            raise
        replace_text(request.file, json.dumps(facts, indent=1))
        writer.finalize()


def _writer(request: Request, form: Format) -> Writer:
    root, ours = request.root, request.file.exists()
    if Writer.unfinished(root):
        if ours:
            return Writer.resume(root, repeatable=True)
        if Writer.resume(root).staged:
            raise BadInput(f"{root} holds an unfinished recording that is not a {request.kind}; {ELSEWHERE}")
        shutil.rmtree(root / STAGING)  # killed before the request was written
    elif ours and not Writer.finished(root):
        Writer.clear(root, request.name)
    return Writer.create(root, form.fps, form.robot_type, form.features)
