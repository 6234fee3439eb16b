"""What a run is trained on: which statistics, and where that is written down."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from wamkit_client.types import BadInput

from tests import tiny_dataset
from tests.official_run import statistics
from tests.tiny_dataset import RUN
from wamkit.config import Normalization, load_normalizer, load_run
from wamkit.data.lerobot.dataset import Dataset
from wamkit.data.official_statistics import window_stats
from wamkit.stages.run import encode, train

CPU = torch.device("cpu")
Z_SCORE = replace(RUN, normalization=Normalization("z_score", "z_score"))
WINDOWS = replace(RUN, normalization=Normalization("z_score", "z_score", statistics="published_windows"))


@pytest.fixture(scope="module")
def encoded(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with `dataset` and its `cache`; do not change them."""
    folder = tmp_path_factory.mktemp("stages")
    tiny_dataset.write(folder / "dataset", (21, 30, 17))
    encode(RUN, [folder / "dataset"], folder / "cache", CPU)
    return folder


def trained(encoded: Path, out: Path, run=RUN, released: Path = Path()) -> Path:
    train(run, [encoded / "dataset"], encoded / "cache", out, CPU, released)
    return out


def test_a_run_says_which_statistics_it_was_trained_with(encoded: Path, tmp_path: Path) -> None:
    """All from one cache: statistics are no part of it."""
    path = tmp_path / "dataset_stats.json"
    path.write_text(json.dumps(statistics(3, 2)))
    frames = trained(encoded, tmp_path / "frames", Z_SCORE)
    windows = trained(encoded, tmp_path / "windows", WINDOWS)
    released = trained(encoded, tmp_path / "released", Z_SCORE, path)
    assert [load_run(run).normalization.statistics for run in (frames, windows, released)] == [
        "frames",
        "published_windows",
        "file",
    ]
    dataset = Dataset.open(encoded / "dataset")
    expected = window_stats(dataset, dataset.episodes, RUN.data)["action"].std
    assert np.array_equal(load_normalizer(windows).stats["robot"]["action"].std, expected)
    saved = statistics(3, 2)["action"]["default"]["global_std"]
    assert load_normalizer(released).stats["robot"]["action"].std.tolist() == saved
    origin = json.loads((released / "provenance.json").read_text())["statistics"]
    assert (origin["file"], origin["episodes"]) == ("dataset_stats.json", 40)
    trained(encoded, released, Z_SCORE, path)  # finished: returns at once
    with pytest.raises(BadInput, match=r"normalization.statistics: file -> frames"):
        trained(encoded, released, Z_SCORE)
    with pytest.raises(BadInput, match=r"normalization.statistics is file: name it"):
        trained(encoded, tmp_path / "other", load_run(released))
    path.write_text(json.dumps(statistics(3, 2) | {"num_transition": 7}))
    with pytest.raises(BadInput, match=r"normalizer.json has other statistics: .*another --stats"):
        trained(encoded, released, Z_SCORE, path)


def test_an_older_run_was_trained_with_those_of_the_frames(encoded: Path, tmp_path: Path) -> None:
    run = trained(encoded, tmp_path / "run")
    tree = json.loads((run / "run.json").read_text())
    del tree["normalization"]["statistics"], tree["data"]["held_out"]
    (run / "run.json").write_text(json.dumps(tree))
    assert load_run(run) == RUN
