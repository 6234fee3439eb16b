"""Statistics that were released with LaWAM (spec 2.8, 3): a JSON file with those of the actions of each robot.

    {tag: {"action": {"min": [...], "max": ..., "mean": ..., "std": ...}, "num_trajectories": n, "num_transitions": n}}

The policy has no proprio, and with the world model alone no statistics were released.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import numpy as np
from wamkit_client.types import BadInput

from wamkit.data.official_statistics import Statistics, saved_stats
from wamkit.data.statistics import MEASURES, Stats
from wamkit.types import DataSpec


def read_statistics(path: Path, data: DataSpec, robot: str) -> Statistics:
    """Of the robot that the file is of; among several, of the one whose tag is `robot`.

    Raises BadInput where the file is missing, something else, of other dimensions, or has several other robots.
    """
    if not path.is_file():
        raise BadInput(
            f"{path}: no such file; name the dataset_statistics.json that belongs to the checkpoint"
        )
    content = path.read_bytes()
    try:
        saved = dict(json.loads(content))
        (tag,) = saved if len(saved) == 1 else (robot,)
        if tag not in saved:
            raise BadInput(
                f"{path}: has the robots {sorted(saved)}, not {robot!r}; name one of them as --robot"
            )
        episodes, steps = int(saved[tag]["num_trajectories"]), int(saved[tag]["num_transitions"])
        action = saved_stats(saved[tag]["action"], steps)
    except (ValueError, KeyError, TypeError) as error:
        raise BadInput(
            f"{path}: not the statistics of a released checkpoint of LaWAM ({error}); expected, by robot, "
            f"num_trajectories, num_transitions, and in action {', '.join(MEASURES)}"
        ) from error
    if len(action.mean) != data.action_dim or (action.max < action.min).any():
        raise BadInput(
            f"{path}: {tag} has {len(action.mean)} action dimensions, the recipe {data.action_dim}, or a maximum below "
            "its minimum; choose the recipe that the checkpoint was trained with"
        )
    fields = {"action": action, "proprio": _unit(data.proprio_dim)}
    return Statistics(fields, episodes, steps, path.name, hashlib.sha256(content).hexdigest())


def unit_statistics(path: Path, data: DataSpec, robot: str) -> Statistics:
    """Of data in unit range: nothing is known of what the world model's states were normalised with.

    Raises BadInput where a file is named.
    """
    if path != Path():
        raise BadInput(f"{path}: no statistics were released with LaWAM's world model; omit --stats")
    fields = {"action": _unit(data.action_dim), "proprio": _unit(data.proprio_dim)}
    return Statistics(fields, episodes=0, steps=0, file="", sha256="")


def _unit(dims: int) -> Stats:
    ends = np.array([[-1.0], [1.0]])
    return Stats.of(ends.repeat(dims, axis=1))
