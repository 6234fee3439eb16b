"""Statistics as the released code takes them, against its formula written out step by step; and its files."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from wamkit_client.types import BadInput

from tests import tiny_dataset
from tests.official_run import statistics
from tests.policies.tiny_policy import SPEC
from wamkit.data.lerobot.columns import SOURCES
from wamkit.data.lerobot.dataset import Dataset
from wamkit.data.normalize import dataset_stats
from wamkit.data.official_statistics import read_statistics, window_stats

LENGTHS = (40, 2, 7, 23)  # two are short for a chunk of six actions, and too short for whole windows
WHOLE = replace(SPEC, whole_windows=True)


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    return Dataset.open(tiny_dataset.write(tmp_path_factory.mktemp("statistics") / "dataset", LENGTHS))


def written_out(episodes: list[np.ndarray], steps: int, starts: list[int]) -> dict[str, np.ndarray]:
    """The released formula, number by number."""
    low, high, means, variances = [], [], [], []
    for rows, count in zip(episodes, starts, strict=True):
        for j in range(steps):
            seen = [rows[min(i + j, len(rows) - 1)].astype(np.float64) for i in range(count)]
            mean = sum(seen) / count
            means.append(mean)
            variances.append(sum((row - mean) ** 2 for row in seen) / (count - 1))
            low.append(np.minimum.reduce(seen))
            high.append(np.maximum.reduce(seen))
    mean = sum(means) / len(means)
    spread = [v + (m - mean) ** 2 for m, v in zip(means, variances, strict=True)]
    std = np.sqrt(sum(spread) / len(spread))
    return {"min": np.min(low, axis=0), "max": np.max(high, axis=0), "mean": mean, "std": std}


@pytest.mark.parametrize("spec", [SPEC, WHOLE], ids=["padded", "whole"])
def test_the_released_formula(dataset: Dataset, spec) -> None:
    episodes = [e for e in dataset.episodes if spec.starts(e.length, e.actions)]
    assert [e.length for e in episodes] == ([40, 23] if spec.whole_windows else list(LENGTHS))
    starts = [e.length - 16 * spec.whole_windows for e in episodes]
    found = window_stats(dataset, dataset.episodes, spec)
    for field, steps in (("action", SPEC.horizon), ("proprio", 17 if spec.whole_windows else 1)):
        columns = [dataset.column(SOURCES[field], e.index) for e in episodes]
        for name, expected in written_out(columns, steps, starts).items():
            np.testing.assert_allclose(
                vars(found[field])[name], expected, rtol=1e-12, err_msg=f"{field} {name}"
            )
        assert np.isnan(found[field].q50).all() and found[field].count == sum(starts)


def test_they_differ_from_those_of_the_frames_where_episodes_are_short(dataset: Dataset) -> None:
    windows, frames = window_stats(dataset, dataset.episodes, SPEC), dataset_stats(dataset, dataset.episodes)
    for field in SOURCES:
        for name in ("min", "max"):
            np.testing.assert_array_equal(vars(windows[field])[name], vars(frames[field])[name])
    assert np.abs(windows["action"].std / frames["action"].std - 1).max() > 0.05


def test_a_single_window_has_no_variance(dataset: Dataset) -> None:
    single = replace(dataset.episodes[1], length=1, actions=1)
    with pytest.raises(BadInput, match=r"episode 1 has a single window.*--normalization.statistics frames"):
        window_stats(dataset, [dataset.episodes[0], single], SPEC)


def test_a_released_file(tmp_path: Path) -> None:
    path, saved = tmp_path / "dataset_stats.json", statistics(3, 2)
    path.write_text(json.dumps(saved))
    known = read_statistics(path, SPEC)
    assert known.fields["action"].std.tolist() == saved["action"]["default"]["global_std"]
    assert known.fields["proprio"].mean.tolist() == saved["state"]["default"]["global_mean"]
    assert (known.episodes, known.steps, known.origin["file"]) == (40, 1234, "dataset_stats.json")
    with pytest.raises(BadInput, match="2 action and 3 proprio dimensions, the recipe 2 and 4"):
        read_statistics(path, replace(SPEC, proprio_dim=4))
    saved["action"]["default"]["global_std"][0] = float("nan")
    path.write_text(json.dumps(saved))
    with pytest.raises(BadInput, match="expected lists of finite numbers"):
        read_statistics(path, SPEC)
    path.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(BadInput, match="not the statistics of a released checkpoint"):
        read_statistics(path, SPEC)
