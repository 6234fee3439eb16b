"""Statistics as the released code computes them (Light-WAM spec 3.3, Fast-WAM spec 4.3): read from its files, or
computed.

They are of windows, not of steps: an action counts once for every window that contains it, and the last action of an
episode again for every step past the end. Short episodes weigh as much as long ones. With w[e, i, j] step j of window i
of episode e, and the variance over windows unbiased:

    m[e, j] = mean_i w     v[e, j] = var_i w     mean = mean_ej m     std = sqrt(mean_ej (v + (m - mean)^2))

Its quantiles are extremes over episodes and are not used; here they stay unknown.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from wamkit_client.types import BadInput

from wamkit.data.joined import AnyDataset
from wamkit.data.lerobot.columns import SOURCES
from wamkit.data.lerobot.dataset import Episode
from wamkit.data.normalize import field_rows
from wamkit.data.statistics import MEASURES, QUANTILES, Stats
from wamkit.types import DataSpec


@dataclass(frozen=True)
class Statistics:
    """An official statistics file. fields: by our names. episodes, steps: how much data they describe."""

    fields: dict[str, Stats]
    episodes: int
    steps: int
    file: str
    sha256: str

    @property
    def origin(self) -> dict[str, Any]:
        """For provenance."""
        names = ("file", "sha256", "episodes", "steps")
        return {name: vars(self)[name] for name in names}


def read_statistics(path: Path, data: DataSpec) -> Statistics:
    """The whole-dataset values of an official statistics JSON.

    Raises BadInput where the file is missing, something else, or of other dimensions.
    """
    if not path.is_file():
        raise BadInput(f"{path}: no such file; name the *_dataset_stats.json that belongs to the checkpoint")
    content = path.read_bytes()
    try:
        saved = json.loads(content)
        episodes, steps = int(saved["num_episodes"]), int(saved["num_transition"])
        fields = {
            field: saved_stats(saved[section]["default"], steps, "global_")
            for field, section in (("action", "action"), ("proprio", "state"))
        }
    except (ValueError, KeyError, TypeError) as error:
        raise BadInput(
            f"{path}: not the statistics of a released checkpoint ({error}); expected num_episodes, num_transition, "
            f"and in action.default and state.default {', '.join(f'global_{name}' for name in MEASURES)}"
        ) from error
    found = {field: len(stats.mean) for field, stats in fields.items()}
    expected = {"action": data.action_dim, "proprio": data.proprio_dim}
    if found != expected:
        raise BadInput(
            f"{path} has {found['action']} action and {found['proprio']} proprio dimensions, the recipe "
            f"{data.action_dim} and {data.proprio_dim}; choose the recipe it was trained with"
        )
    return Statistics(fields, episodes, steps, path.name, hashlib.sha256(content).hexdigest())


def window_stats(dataset: AnyDataset, episodes: Sequence[Episode], data: DataSpec) -> dict[str, Stats]:
    """Statistics of "action" and "proprio" over the windows of some episodes, as the module says.

    Proprio: one step per window; where windows are whole, all its observations, as the released reader of such data
    counts them. Raises BadInput where an episode has a single window, which has no unbiased variance.
    """
    return pooled_window_stats([(dataset, episodes)], data)


def pooled_window_stats(
    chosen: Sequence[tuple[AnyDataset, Sequence[Episode]]], data: DataSpec
) -> dict[str, Stats]:
    """The same over episodes of several datasets."""
    taken = [
        (dataset, episode, count)
        for dataset, episodes in chosen
        for episode in episodes
        if (count := data.starts(episode.length, episode.actions))
    ]
    for dataset, episode, count in taken:
        if count == 1:
            raise BadInput(
                f"{dataset.where}: episode {dataset.label(episode.index)} has a single window, and the published "
                "statistics take the variance over the windows of each episode; leave it out, or give "
                "--normalization.statistics frames"
            )
    steps = {"action": data.horizon, "proprio": 1 + data.whole_windows * data.frame_offsets[-1]}
    return {
        field: _of_windows(
            [(field_rows(dataset, field, [e]), count) for dataset, e, count in taken], steps[field]
        )
        for field in SOURCES
    }


def saved_stats(values: Mapping[str, Any], count: int, prefix: str = "") -> Stats:
    """Statistics of `count` rows from lists of a JSON file; prefix: of the names of the lists.

    Quantiles stay unknown. Raises KeyError, TypeError and ValueError where lists are missing or are no such numbers.
    """
    table = np.array([values[f"{prefix}{name}"] for name in MEASURES], np.float64)
    if table.ndim != 2 or not np.isfinite(table).all():
        raise ValueError(f"expected lists of finite numbers, got an array of shape {list(table.shape)}")
    return _without_quantiles(dict(zip(MEASURES, table, strict=True)), count)


def _of_windows(columns: Sequence[tuple[np.ndarray, int]], steps: int) -> Stats:
    """Statistics of windows of `steps` steps; columns: rows [n, d] of each episode, and how many begin a window."""
    low, high, mean, variance = [], [], [], []
    for rows, starts in columns:
        inside = np.arange(starts)[:, None] + np.arange(steps)
        windows = rows.astype(np.float64)[np.minimum(inside, len(rows) - 1)]  # [starts, steps, d]
        low.append(windows.min((0, 1)))
        high.append(windows.max((0, 1)))
        mean.append(windows.mean(0))
        variance.append(windows.var(0, ddof=1))
    means, variances = np.stack(mean), np.stack(variance)  # [episodes, steps, d]
    overall = means.mean((0, 1))
    arrays = {
        "min": np.min(low, axis=0),
        "max": np.max(high, axis=0),
        "mean": overall,
        "std": np.sqrt((variances + (means - overall) ** 2).mean((0, 1))),
    }
    return _without_quantiles(arrays, sum(starts for _, starts in columns))


def _without_quantiles(arrays: Mapping[str, np.ndarray], count: int) -> Stats:
    unknown = dict.fromkeys(QUANTILES, np.full(len(arrays["mean"]), np.nan))
    return Stats(**arrays, **unknown, count=count)
