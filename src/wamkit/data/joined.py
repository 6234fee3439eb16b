"""Several datasets of one robot, read as one: their episodes one after the other, in the order of the folders.

A single folder is a `Dataset`, as ever. It does not know about weights of a mixture: every step counts once.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
from wamkit_client.types import BadInput

from wamkit.data.lerobot.columns import NO_COLUMNS, SOURCES
from wamkit.data.lerobot.dataset import Dataset, Episode
from wamkit.data.subset import subset
from wamkit.subset import EVERY, Subset


class Joined:
    """As `Dataset`, but for what a folder has of its own. Episodes are numbered on.

    parts: the datasets. features, info: of the first. tasks: of all, numbered on.
    Raises BadInput where they do not agree in rate, robot, cameras or dimensions.
    """

    def __init__(self, parts: Sequence[Dataset]) -> None:
        self.parts, first = tuple(parts), parts[0]
        for other in self.parts[1:]:
            _expect_alike(first, other)
        self.info, self.features, self.cameras = first.info, first.features, first.cameras
        self.camera_keys = first.camera_keys
        self.fps, self.robot_type = first.fps, first.robot_type
        self.version = ", ".join(sorted({part.version for part in self.parts}))
        self.where = ", ".join(part.where for part in self.parts)
        self.tasks = dict(enumerate(chain(*(part.tasks.values() for part in self.parts))))
        self._own = [(part, episode) for part in self.parts for episode in part.episodes]
        self.episodes = tuple(replace(episode, index=i) for i, (_, episode) in enumerate(self._own))
        names = [part.root.name for part in self.parts]
        self._names = names if len({*names}) == len(names) else [str(part.root) for part in self.parts]

    @property
    def total_steps(self) -> int:
        """Steps of all episodes."""
        return sum(part.total_steps for part in self.parts)

    def label(self, episode: int) -> str:
        """The episode's folder and its number there."""
        part, own = self._own[episode]
        return f"{self._names[self.parts.index(part)]}/{own.index}"

    def fingerprint(self) -> str:
        """A hash of theirs, in order."""
        return hashlib.sha256("\n".join(part.fingerprint() for part in self.parts).encode()).hexdigest()

    def rows(self, name: str, episodes: Sequence[Episode]) -> np.ndarray:
        """As Dataset.rows."""
        found = [self._own[episode.index] for episode in episodes]
        return np.concatenate([part.rows(name, [own]) for part, own in found])

    def instruction(self, episode: int, step: int) -> str:
        """As Dataset.instruction."""
        part, own = self._own[episode]
        return part.instruction(own.index, step)

    def frames(self, camera: str, episode: int, steps: Sequence[int]) -> np.ndarray:
        """As Dataset.frames."""
        part, own = self._own[episode]
        return part.frames(camera, own.index, steps)


AnyDataset = Dataset | Joined


def open_datasets(
    paths: Sequence[Path], columns: Mapping[str, str] = NO_COLUMNS, only: Subset = EVERY
) -> AnyDataset:
    """The dataset at a path, or those at several as one.

    columns: where each has what is not under its usual name (DataSpec.columns). only: the episodes of each that are
    read (DataSpec.only). Raises BadInput as the datasets do, for a folder named twice, and where no episode is left.
    """
    if not paths:
        raise BadInput("no dataset; name at least one folder with --dataset")
    resolved = [path.resolve() for path in paths]
    for path, place in zip(paths, resolved, strict=True):
        if resolved.count(place) > 1:
            raise BadInput(f"{path} is named twice in --dataset; every folder once")
    parts = [subset(Dataset.open(path, columns), only) for path in paths]
    return parts[0] if len(parts) == 1 else Joined(parts)


def dataset_flags(paths: Sequence[Path]) -> list[str | Path]:
    """As the command line names them: --dataset once for each."""
    return [word for path in paths for word in ("--dataset", path)]


def _expect_alike(first: Dataset, other: Dataset) -> None:
    ours, theirs = (dict(_facts(dataset)) for dataset in (first, other))
    for name, value in ours.items():
        if theirs[name] != value:
            raise BadInput(
                f"{other.where}: {name} {theirs[name]}, but {value} in {first.where}; datasets that are trained on "
                "together have one rate, robot, set of cameras and width of actions and states. Leave one out"
            )


def _facts(dataset: Dataset) -> Iterator[tuple[str, Any]]:
    yield "fps is", dataset.fps
    yield "robot_type is", dataset.robot_type
    yield "cameras are", sorted(dataset.cameras)
    for column in SOURCES.values():  # as wide everywhere
        feature: Mapping[str, Any] = dataset.features.get(column, {"shape": "missing"})
        yield f"the shape of {column} is", feature["shape"]
