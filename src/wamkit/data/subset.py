"""Which episodes of a dataset are read: by number, by task, by success (wamkit.subset.Subset)."""

from __future__ import annotations

import difflib
import re
from collections.abc import Mapping, Sequence
from fnmatch import fnmatchcase

import numpy as np
from wamkit_client.types import BadInput

from wamkit.data.lerobot.columns import near, numeric_columns
from wamkit.data.lerobot.dataset import Dataset, Episode
from wamkit.subset import EVERY, Subset

RANGE = re.compile(r"(?P<first>\d*)(?P<colon>:?)(?P<end>\d*)")


def subset(dataset: Dataset, only: Subset) -> Dataset:
    """The dataset with the episodes that are asked for, in its order.

    BadInput for an episode, task or column that is not there, and where no episode is left.
    """
    if only == EVERY:
        return dataset
    chosen: Sequence[Episode] = dataset.episodes
    if only.episodes:
        numbers = _numbers(dataset, only.episodes)
        chosen = [episode for episode in chosen if episode.index in numbers]
    if only.tasks:
        texts = _texts(dataset, only.tasks)
        chosen = [episode for episode in chosen if not texts.isdisjoint(episode.tasks)]
    if only.success:
        succeeded = _succeeded(dataset, only.success)
        chosen = [episode for episode in chosen if episode.index in succeeded]
    if not chosen:
        raise BadInput(
            f"{dataset.where}: none of {len(dataset.episodes)} episodes is left (data.only: {only.described}); ask for "
            "others, or omit this dataset"
        )
    return dataset.of(chosen)


def _numbers(dataset: Dataset, asked: Sequence[str]) -> set[int]:
    """The episodes of numbers and ranges, all of which must be there."""
    there = {episode.index for episode in dataset.episodes}
    last = max(there)
    found: set[int] = set()
    for words in asked:
        match = RANGE.fullmatch(words)
        if not match or not (match["first"] or match["colon"]):
            raise BadInput(f"data.only.episodes: {words!r} is no number or range; give 7, 0:200, 100: or :50")
        first = int(match["first"] or 0)
        end = int(match["end"] or last + 1) if match["colon"] else first + 1
        if not first < end <= last + 1:
            raise BadInput(
                f"{dataset.where}: data.only.episodes {words}: the dataset has episodes 0 to {last}; "
                f"give a range within 0:{last + 1} (the end of a range is not in it)"
            )
        found |= there & {*range(first, end)}
    return found


def _texts(dataset: Dataset, asked: Sequence[str]) -> set[str]:
    """The instructions of texts, numbers and patterns, each of which must be that of a task."""
    found: set[str] = set()
    for words in asked:
        texts = _matching(dataset.tasks, words)
        if not texts:
            meant = difflib.get_close_matches(words, dataset.tasks.values(), n=1)
            listed = "; ".join(f"{number} {text!r}" for number, text in sorted(dataset.tasks.items())[:10])
            raise BadInput(
                f"{dataset.where}: data.only.tasks: no task {words!r}; "
                + (f"did you mean {meant[0]!r}? " if meant else "")
                + f"give a text, a number or a pattern of its {len(dataset.tasks)} tasks: {listed}"
                + ("; ..." if len(dataset.tasks) > 10 else "")
            )
        found.update(texts)
    return found


def _matching(tasks: Mapping[int, str], words: str) -> list[str]:
    if words in tasks.values():
        return [words]
    if words.isdecimal():
        return [text for number, text in tasks.items() if number == int(words)]
    return [text for text in tasks.values() if fnmatchcase(text, words)]


def _succeeded(dataset: Dataset, column: str) -> set[int]:
    """The episodes in which a column of steps, or of meta/episodes, is ever true."""
    if column in dataset.features:
        flags = {e.index: dataset.column(column, e.index) for e in dataset.episodes}
    elif column in dataset.episode_columns:
        values = dataset.episode_column(column)
        flags = {e.index: np.array(value) for e, value in zip(dataset.episodes, values, strict=True)}
    else:
        known = (*numeric_columns(dataset.features), *dataset.episode_columns)
        raise BadInput(f"{dataset.where}: data.only.success: no column {column!r}; {near(column, known)}")
    for index, flag in flags.items():
        if not np.isin(flag, (0, 1)).all():
            raise BadInput(
                f"{dataset.where}: data.only.success: column {column!r} of episode {index} is not true or false (1 or "
                "0) everywhere; name a column that says where the robot succeeded"
            )
    return {index for index, flag in flags.items() if flag.any()}
