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
from wamkit.cli import main
from wamkit.commands import training
from wamkit.config import Normalization, Source, load_normalizer, load_run
from wamkit.data.lerobot.dataset import Dataset
from wamkit.data.official_statistics import window_stats
from wamkit.eval.evaluate import EvalConfig
from wamkit.io.weights import run_weights
from wamkit.stages.run import encode, fit_normalizer, open_clips, train

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


def weighted(tmp_path: Path, *robots: str, weights: tuple[str, ...] = ("1", "3")) -> tuple[Path, list[str]]:
    """Datasets of these robots; a run directory, and the command that trains it with a weight for each."""
    folders = [tiny_dataset.write(tmp_path / f"{i}", (9, 12), seed=i, robot=r) for i, r in enumerate(robots)]
    named = [f"--dataset={folder}" for folder in folders]
    return tmp_path / "run", ["train", "tiny", *named, "--out", str(tmp_path / "run"), "--weights", *weights]


@pytest.fixture
def tiny(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(training, "recipe", lambda name: replace(RUN, eval=EvalConfig(replan_steps=4)))


@pytest.mark.usefixtures("tiny")
def test_robots_in_proportion_to_their_weights(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every robot has statistics of its own; a cache of such a run has a part for each dataset."""
    run, words = weighted(tmp_path, "left", "right")
    assert main(words) == 0
    assert [(source.name, source.weight) for source in load_run(run).sources] == [
        ("dataset-0", 1.0),
        ("dataset-1", 3.0),
    ]
    facts = json.loads((run / "provenance.json").read_text())["dataset"]
    assert (facts["robot"], facts["folders"], facts["episodes"]) == ("left, right", ["0", "1"], 4)
    stats = load_normalizer(run).stats
    for robot, folder in (("left", "0"), ("right", "1")):
        expected = Dataset.open(tmp_path / folder).rows("action", Dataset.open(tmp_path / folder).episodes)
        assert np.allclose(stats[robot]["action"].mean, expected.mean(0))
    cached = ["--cache", str(tmp_path / "cache")]
    assert main(["encode", *words[1:4], *words[6:], *cached]) == 0
    assert main([*words[:5], str(tmp_path / "cached"), *words[6:], *cached]) == 0
    one, two = run_weights(run), run_weights(tmp_path / "cached")
    assert one.keys() == two.keys() and all(torch.equal(one[name], two[name]) for name in one)
    monkeypatch.setenv("COLUMNS", "300")
    assert main([*words, "--plan"]) == 0
    assert "0, " in (printed := capsys.readouterr().out) and "4 episodes, 42 samples" in printed
    assert main(words[:-1]) == 2
    assert "--weights: 1 numbers for 2 datasets; give one for each --dataset" in capsys.readouterr().err
    assert main([*words[:-1], "0"]) == 2
    assert "sources.dataset-1.weight" in capsys.readouterr().err


@pytest.mark.usefixtures("tiny")
def test_sources_of_one_robot_have_joint_statistics(tmp_path: Path) -> None:
    """Whatever the weights: those of all steps."""
    run, words = weighted(tmp_path, "robot", "robot")
    assert main(words) == 0
    datasets = [Dataset.open(tmp_path / name) for name in ("0", "1")]
    both = np.concatenate([dataset.rows("action", dataset.episodes) for dataset in datasets])
    stats = load_normalizer(run).stats["robot"]["action"]
    assert (
        stats.count == 42 and np.array_equal(stats.max, both.max(0)) and np.allclose(stats.std, both.std(0))
    )
    first, other = (Source(name, RUN.data, RUN.actions, robot="robot") for name in ("a", "b"))
    other = replace(other, data=replace(RUN.data, chunk_seconds=0.4))
    run_of_two = replace(RUN, sources=(first, other))
    clips = open_clips(run_of_two, [tmp_path / "0", tmp_path / "1"])
    with pytest.raises(
        BadInput, match=r"1: robot_type 'robot' is also that of .*0, .*name one of the two robots"
    ):
        fit_normalizer(run_of_two, clips)


def test_an_older_run_was_trained_with_those_of_the_frames(encoded: Path, tmp_path: Path) -> None:
    run = trained(encoded, tmp_path / "run")
    tree = json.loads((run / "run.json").read_text())
    del tree["normalization"]["statistics"], tree["data"]["held_out"]
    (run / "run.json").write_text(json.dumps(tree))
    assert load_run(run) == RUN
