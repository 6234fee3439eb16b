"""A dataset at a lower rate: every k-th frame, and for every k actions one that does the same (LaWAM spec 6.7).

Rows of a step, such as proprio, are those of the frames that are kept; columns `next.*` say what came of the action,
so theirs are of the last of its steps. Columns of episodes are kept. Images are decoded and encoded again.
It does not know what data at several rates is for.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

import numpy as np
import torch
from wamkit_client.types import BadInput

from wamkit.bounds import POSITIVE, check
from wamkit.convert.sources import convert_sources
from wamkit.data.actions import ActionSpace, Kind
from wamkit.data.composed import composed
from wamkit.data.conventions import proposal
from wamkit.data.lerobot.columns import SOURCES, numeric_columns
from wamkit.data.lerobot.dataset import Dataset
from wamkit.data.lerobot.dataset import Episode as Recorded
from wamkit.data.lerobot.disk import inside
from wamkit.data.lerobot.files import ACTION_STEPS, CAMERA_PREFIX, dimension_labels, image_size, read_info
from wamkit.data.lerobot.pack import INDEX_FEATURES
from wamkit.data.lerobot.recorder import Episode, Format, video
from wamkit.io.progress import say
from wamkit.stages.collect import is_collected

AFTER = "next."


@dataclass(frozen=True)
class Downsampling:
    """by: steps that become one. space: what actions mean. robot: of the result; "": with the rate behind its name.

    radians: of a rotation of length 1, in the units of the actions. action: their column.
    """

    by: int
    space: ActionSpace
    robot: str = ""
    radians: float = 1.0
    action: str = SOURCES["action"]

    def __post_init__(self) -> None:
        if self.by < 2:
            raise BadInput(f"by: expected at least 2, the number of steps that become one, got {self.by}")
        check("downsample", self, {"radians": POSITIVE})


def downsample(source: Path, out: Path, asked: Downsampling) -> None:
    """Write the dataset `out`; a finished one of the same is left alone.

    Raises BadInput where the source cannot be read, has another width of actions than was asked for, several
    instructions in an episode or a rate that cannot be divided, and where `out` holds something else; recorded
    episodes are kept, and the same call resumes behind them.
    """
    dataset = Dataset.open(source)
    hz = _divided(dataset, asked.by)
    if len(asked.space) != (width := _width(dataset, asked.action)):
        raise BadInput(
            f"{source}: actions have {width} dimensions, {len(asked.space)} kinds were given; give one for each"
        )
    robot = asked.robot or f"{dataset.robot_type}-{hz}hz"
    features = {
        name: feature
        for name, feature in dataset.features.items()
        if name not in INDEX_FEATURES and name not in dataset.camera_keys.values()
    }
    for camera, key in dataset.camera_keys.items():
        features[CAMERA_PREFIX + camera] = video(*image_size(dataset.features[key]))
    kinds = [f"{n}:{k}" for n, k in zip(asked.space.names, asked.space.kinds, strict=True)]
    settings = {
        "downsampled": json.dumps(
            {
                "dataset": dataset.root.name,
                "fingerprint": dataset.fingerprint(),
                "fps": dataset.fps,
                "by": asked.by,
                "actions": " ".join(kinds),
                "radians": asked.radians,
            }
        ),
        "collected": is_collected(dataset),
    }
    sources = [f"{dataset.root.name}/{episode.index}" for episode in dataset.episodes]
    convert_sources(out, Format(hz, robot, features), settings, sources, _reader(dataset, asked, features))
    incomplete = sum(episode.actions % asked.by > 0 for episode in dataset.episodes)
    say(f"{out}: {len(sources)} episodes at {hz} Hz of robot {robot!r}, from {dataset.fps:g} Hz")
    if incomplete:
        say(
            f"in {incomplete} of them the last action stands for fewer than {asked.by} steps; the robot stays for the "
            "rest of its time"
        )


def _divided(dataset: Dataset, by: int) -> int:
    """The lower rate. BadInput unless it is a whole number."""
    hz = dataset.fps / by
    if hz != round(hz):
        fitting = [str(k) for k in range(2, int(dataset.fps) + 1) if (dataset.fps / k).is_integer()]
        raise BadInput(
            f"{dataset.root}: {dataset.fps:g} frames per second by {by} are {hz:.4g}, expected a whole number; "
            f"give one of --by {', '.join(fitting) or '(none fits)'}"
        )
    return round(hz)


def _reader(dataset: Dataset, asked: Downsampling, features: dict[str, Any]) -> Callable[[int], Episode]:
    """Gives the episode of a place in the dataset."""
    columns = [name for name, feature in features.items() if feature["dtype"] != "video"]
    extras = {name: dataset.episode_column(name) for name in dataset.episode_columns}
    looks = any(episode.actions < episode.length for episode in dataset.episodes)

    def read(number: int) -> Episode:
        episode = dataset.episodes[number]
        steps = range(0, episode.length, asked.by)
        actions = -(-episode.actions // asked.by)
        return Episode(
            columns={name: _column(dataset, name, episode, asked)[: len(steps)] for name in columns},
            videos={camera: dataset.frames(camera, episode.index, steps) for camera in dataset.cameras},
            task=_instruction(dataset, episode, steps),
            extra={name: values[number] for name, values in extras.items()}
            | ({ACTION_STEPS: actions} if looks else {}),
        )

    return read


def _column(dataset: Dataset, name: str, episode: Recorded, asked: Downsampling) -> np.ndarray:
    """Of every step that is kept; past the last action its row is repeated."""
    rows = dataset.rows(name, [episode])
    if name == asked.action:
        own = torch.from_numpy(np.array(rows[: episode.actions]))
        values = composed(own, asked.by, asked.space, asked.radians).numpy()
        return np.concatenate([values, np.repeat(values[-1:], len(rows) - len(values), axis=0)])
    if name.startswith(AFTER):
        ends = range(asked.by - 1, episode.length - 1 + asked.by, asked.by)
        return rows[[min(end, episode.length - 1) for end in ends]]
    return rows[:: asked.by]


def _instruction(dataset: Dataset, episode: Recorded, steps: range) -> str:
    """The only one of an episode."""
    found = list(dict.fromkeys(dataset.instruction(episode.index, step) for step in steps))
    if len(found) > 1:
        raise BadInput(
            f"{dataset.root}: episode {episode.index} has {len(found)} instructions, {found[0]!r} and {found[1]!r}; "
            "only datasets with one instruction to an episode can be written"
        )
    return found[0]


def _width(dataset: Dataset, action: str) -> int:
    """Dimensions of an action. BadInput unless it is a column of the dataset."""
    if action not in dataset.features:
        raise BadInput(
            f"{dataset.root}: column {action!r} is missing; actions of a lower rate are made of one whole column "
            f"(columns of numbers: {', '.join(numeric_columns(dataset.features)) or 'none'})"
        )
    return int(np.prod(dataset.features[action]["shape"]))


def action_column(dataset_path: Path) -> str:
    """The column that is the action, by its name."""
    with inside(dataset_path):
        return proposal(read_info(dataset_path)).columns.get("action", SOURCES["action"])


def action_space(dataset_path: Path, action: str, kinds: tuple[str, ...]) -> ActionSpace:
    """Kinds that a command line gave, with the dataset's names. BadInput for an unknown kind or another number."""
    dataset = Dataset.open(dataset_path)
    known: tuple[Kind, ...] = get_args(Kind)
    if odd := [kind for kind in kinds if kind not in known]:
        raise BadInput(f"--kinds: unknown kind {odd[0]!r}; expected {', '.join(known)}")
    width = _width(dataset, action)
    if len(kinds) != width:
        raise BadInput(
            f"--kinds: {len(kinds)} kinds for the {width} dimensions of an action; give one for each"
        )
    names = dimension_labels(dataset.features[action], width)
    return ActionSpace(names, tuple(kind for each in kinds for kind in known if kind == each))
