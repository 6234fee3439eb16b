"""Foreign recordings converted into a dataset one after the other, in order; what both HDF5 converters share.

The extra columns `source` and `source_index` say where an episode came from; conversion.json names all sources and
those that were discarded. It does not know any format.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from wamkit_client.types import BadInput

from wamkit.data.lerobot.pack import Staged
from wamkit.data.lerobot.recorder import ELSEWHERE, Episode, Format, Request, recording


def convert_sources(
    root: Path,
    form: Format,
    settings: Mapping[str, Any],
    sources: Sequence[str],
    read: Callable[[int], Episode | None],
) -> list[str]:
    """Record the episode of every source, in order; the names of those that `read` discarded.

    settings: what else the dataset depends on, recorded with every episode. read: the number of a source -> its
    episode; None discards it. Raises BadInput where the folder holds something else or another process records there,
    KeyboardInterrupt after Ctrl-C; recorded episodes are kept, and the same call resumes behind them.
    """
    request = Request(root, "conversion.json", asdict(form) | dict(settings))
    facts = request.finished()
    if facts is not None:
        if facts["sources"] != list(sources):
            raise BadInput(f"{root} holds a conversion of other sources; {ELSEWHERE}")
        discarded: list[str] = facts["discarded"]
        return discarded

    def done(staged: Sequence[Staged]) -> int:
        return _position(root, staged, sources)

    with recording(request, form, "convert", len(sources), done=done) as recorder:
        for number in range(recorder.done, len(sources)):
            episode = read(number)
            if episode is None:
                recorder.skip(sources[number])
            else:
                origin = {"source": sources[number], "source_index": number}
                extra = {**episode.extra, **origin, **settings}
                recorder.add(replace(episode, extra=extra), note=sources[number])
        kept = {episode.extra["source"] for episode in recorder.staged}
        if not kept:
            raise BadInput(
                f"{root}: all {len(sources)} episodes were discarded; there is nothing to train on"
            )
        discarded = [source for source in sources if source not in kept]
        recorder.facts.update(sources=list(sources), discarded=discarded)
    return discarded


def _position(root: Path, staged: Sequence[Staged], sources: Sequence[str]) -> int:
    """The number of the first source that was not read yet."""
    position = 0
    for episode in staged:
        source, position = episode.extra.get("source"), int(episode.extra.get("source_index", -1)) + 1
        if position > len(sources) or position < 1 or sources[position - 1] != source:
            raise BadInput(
                f"{root}: episode {episode.index} is of {source or 'another recording'}, which is not at that place "
                f"any more (the recordings changed since); {ELSEWHERE}"
            )
    return position
