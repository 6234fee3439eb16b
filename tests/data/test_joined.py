"""Several datasets of one robot as one: their samples in a row, one normaliser, and what does not go together."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from wamkit_client.types import BadInput

from tests import tiny_dataset
from tests.data.test_official_statistics import written_out
from tests.tiny_dataset import RUN
from wamkit.commands.training import Train
from wamkit.config import load_normalizer
from wamkit.data.cache import Cache, read_fingerprint
from wamkit.data.clips import Clips
from wamkit.data.joined import Joined, open_datasets
from wamkit.data.lerobot.dataset import Dataset
from wamkit.data.normalize import dataset_stats
from wamkit.data.official_statistics import window_stats
from wamkit.io.progress import console
from wamkit.report.distributions import distributions_of
from wamkit.stages.fit import Place
from wamkit.stages.inspection import inspect
from wamkit.stages.run import NO_FILE, encode, train
from wamkit.stages.tables import plan_tables

CPU = torch.device("cpu")
LENGTHS = {"spatial": (20, 9), "goal": (7, 18, 11)}
SPEC = RUN.data


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Two datasets; do not change them."""
    root = tmp_path_factory.mktemp("joined")
    return [
        tiny_dataset.write(root / name, lengths, seed=seed)
        for seed, (name, lengths) in enumerate(LENGTHS.items())
    ]


def test_samples_come_folder_by_folder(folders: list[Path]) -> None:
    joined = Clips(open_datasets(folders), SPEC, RUN.actions)
    single = [Clips(Dataset.open(folder), SPEC, RUN.actions) for folder in folders]
    expected = [
        (clips, i, folder.name)
        for clips, folder in zip(single, folders, strict=True)
        for i in range(len(clips))
    ]
    assert joined.ids == [f"{name}/{clips.ids[i]}" for clips, i, name in expected]
    for number in (0, 19, 29, 36, len(joined) - 1):
        clips, i, name = expected[number]
        one, other = joined.sample(number), clips.sample(i)
        assert one.id == f"{name}/{other.id}" and one.clip.instructions == other.clip.instructions
        assert torch.equal(one.actions, other.actions) and torch.equal(one.clip.proprio, other.clip.proprio)
        assert all(torch.equal(one.clip.views[view], other.clip.views[view]) for view in SPEC.views)


def test_one_folder_is_a_dataset_as_ever(folders: list[Path]) -> None:
    dataset = open_datasets(folders[:1])
    assert isinstance(dataset, Dataset) and dataset.fingerprint() == Dataset.open(folders[0]).fingerprint()
    assert Clips(dataset, SPEC, RUN.actions).ids[:2] == ["0:0", "0:1"]


def test_one_normaliser_of_all(folders: list[Path]) -> None:
    joined = open_datasets(folders)
    columns = [Dataset.open(f).column("action", e) for f in folders for e in range(len(LENGTHS[f.name]))]
    together = np.concatenate(columns).astype(np.float64)
    frames = dataset_stats(joined, joined.episodes)["action"]
    np.testing.assert_allclose(frames.std, together.std(0), rtol=1e-12)
    windows = window_stats(joined, joined.episodes, SPEC)["action"]
    expected = written_out(columns, SPEC.horizon, [len(rows) for rows in columns])
    np.testing.assert_allclose(windows.std, expected["std"], rtol=1e-12)


def test_every_folder_holds_out_its_share(folders: list[Path]) -> None:
    clips = Clips(open_datasets(folders), replace(SPEC, held_out=0.3), RUN.actions)
    alone = [Clips(Dataset.open(folder), clips.spec, RUN.actions).ids for folder in folders]
    assert clips.ids == [f"{f.name}/{name}" for f, ids in zip(folders, alone, strict=True) for name in ids]


def test_held_out_episodes_have_samples_of_their_own(folders: list[Path]) -> None:
    every = Clips(open_datasets(folders), SPEC, RUN.actions, ("a", "b")[: len(SPEC.views)])
    clips = Clips(every.dataset, replace(SPEC, held_out=0.3), RUN.actions, tuple(every.names.values()))
    others = clips.held_out()
    assert sorted(clips.ids + others.ids) == sorted(every.ids) and len(others.episodes) == 2
    number = every.ids.index(others.ids[3])
    assert others.sample(3).id == others.ids[3] and others.names == every.names
    assert torch.equal(others.sample(3).actions, every.sample(number).actions)
    with pytest.raises(BadInput, match=r"no episode is held out; give --data.held-out 0.05"):
        every.held_out()


def test_from_folders_to_a_run(folders: list[Path], tmp_path: Path) -> None:
    encode(RUN, folders, tmp_path / "cache", CPU)
    found = read_fingerprint(tmp_path / "cache")
    cache = Cache.open(tmp_path / "cache", found, SPEC.hz)
    assert cache.ids[0] == "spatial/0:0" and cache.ids[-1] == "goal/2:10"
    train(RUN, folders, tmp_path / "cache", tmp_path / "run", CPU)
    assert load_normalizer(tmp_path / "run").stats["robot"]["action"].count == 65
    about = json.loads((tmp_path / "run/provenance.json").read_text())["dataset"]
    assert (about["episodes"], about["steps"], about["folders"]) == (5, 65, ["spatial", "goal"])
    for others in (folders[::-1], folders[:1]):
        with pytest.raises(BadInput, match="dataset: expected"):
            train(RUN, others, tmp_path / "cache", tmp_path / "other", CPU)
    assert len(distributions_of(open_datasets(folders), load_normalizer(tmp_path / "run"))[0].values) == 65
    inspect(RUN, folders, tmp_path / "run", tmp_path / "page.html")
    page = (tmp_path / "page.html").read_text()
    assert f"--dataset {folders[0]} --dataset {folders[1]}" in page and "goal/2:" in page
    with console.capture() as printed:
        for table in plan_tables(RUN, folders, NO_FILE, Place("a GPU", 2**34)):
            console.print(table)
    assert "5 episodes, 65 samples" in " ".join(printed.get().replace("│", " ").split())
    with pytest.raises(BadInput, match="spatial is named twice in --dataset"):
        Train("metaworld3", (folders[0], folders[0].parent / "goal/../spatial"))({})


@pytest.mark.parametrize(
    ("other", "message"),
    [
        (
            {"robot": "ur5"},
            r"other: robot_type is ur5, but robot in .*spatial; datasets that are trained on together",
        ),
        ({"spec": replace(SPEC, hz=20.0)}, r"other: fps is 20\.0, but 10\.0 in"),
    ],
)
def test_what_does_not_go_together(folders: list[Path], tmp_path: Path, other, message: str) -> None:
    odd = tiny_dataset.write(tmp_path / "other", (5,), **other)
    with pytest.raises(BadInput, match=message):
        open_datasets([*folders, odd])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            lambda info: info["features"].pop("observation.images.wrist"),
            r"cameras are \['front'\], but \['front', 'wr",
        ),
        (
            lambda info: info["features"]["action"].update(shape=[3]),
            r"shape of action is \[3\], but \[2\] in",
        ),
    ],
)
def test_cameras_and_dimensions_must_agree(folders: list[Path], tmp_path: Path, change, message: str) -> None:
    odd = tiny_dataset.write(tmp_path / "other", (5,))
    info = json.loads((odd / "meta/info.json").read_text())
    change(info)
    (odd / "meta/info.json").write_text(json.dumps(info))
    with pytest.raises(BadInput, match=message):
        open_datasets([folders[0], odd])


def test_folders_of_one_name_are_told_apart(tmp_path: Path) -> None:
    one, two = (tiny_dataset.write(tmp_path / place / "data", (4,)) for place in "ab")
    joined = open_datasets([one, two])
    assert isinstance(joined, Joined) and joined.label(1) == f"{two}/0"
