"""Trainings that measure themselves on held-out episodes: every kind of policy, caches, several sources, a resume."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from wamkit_client.types import BadInput

from tests import test_sources, tiny_dataset
from tests.policies import tiny_fast_wam, tiny_lawam
from tests.policies.tiny_lawam_world import PAIR_RUN
from tests.tiny_dataset import RUN
from tests.train.test_loop import equal, lasting, weights
from wamkit.config import Run, load_engine, load_run
from wamkit.data.actions import ActionSpace
from wamkit.policies.lawam.augment import TwoViews
from wamkit.stages.run import NO_FILE, encode, open_clips, train
from wamkit.train import held_out as measuring
from wamkit.train.held_out import FILE
from wamkit.train.rows import Row, read_table

CPU = torch.device("cpu")
TRAIN = replace(RUN.train, steps=5, log_every=1, save_every=2, held_out_every=2)
HELD = replace(RUN, data=replace(RUN.data, held_out=0.4), train=TRAIN)
LENGTHS = (9, 12, 8, 11, 10)


def rows(run_dir: Path) -> list[Row]:
    return read_table(run_dir / FILE)


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_dataset.write(tmp_path_factory.mktemp("held") / "dataset", LENGTHS)


@pytest.fixture(scope="module")
def whole(dataset: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run of HELD."""
    run_dir = tmp_path_factory.mktemp("held") / "run"
    train(HELD, [dataset], NO_FILE, run_dir, CPU)
    return run_dir


def test_the_error_is_that_of_what_the_policy_does_on_held_out_episodes(dataset: Path, whole: Path) -> None:
    """Measured here with the finished policy behind its engine, in the units of its normaliser."""
    assert [row["step"] for row in rows(whole)] == [2, 4, 5]
    assert all(
        row.keys() == {"step", "loss", "loss/video", "loss/action", "action_error"} for row in rows(whole)
    )
    [clips] = open_clips(HELD, [dataset])
    unseen = clips.held_out()
    facts = json.loads((whole / "provenance.json").read_text())["dataset"]
    assert [str(episode.index) for episode in unseen.episodes] == sorted(facts["held_out"])
    engine = load_engine(whole, CPU)
    to_unit, errors = engine.policy.normalizer.to_unit, []
    for i in range(len(unseen)):
        sample = unseen.sample(i)
        [chunk] = engine.act([sample.observation()])
        robot = engine.policy.embodiment(["robot"])
        units = [to_unit("action", x, robot) for x in (torch.from_numpy(chunk.actions)[None], sample.actions)]
        errors.append((units[0] - units[1]).abs()[sample.valid])
    assert len(unseen) < measuring.MOST
    assert rows(whole)[-1]["action_error"] == pytest.approx(torch.cat(errors).mean().item(), rel=1e-5)


def test_nothing_of_the_training_depends_on_it(dataset: Path, whole: Path, tmp_path: Path) -> None:
    train(replace(HELD, train=replace(TRAIN, held_out_every=0)), [dataset], NO_FILE, tmp_path / "run", CPU)
    assert not (tmp_path / "run" / FILE).exists()
    assert lasting(tmp_path / "run") == lasting(whole)
    assert equal(weights(tmp_path / "run"), weights(whole))


def test_cached_and_fresh_rows_agree(dataset: Path, whole: Path, tmp_path: Path) -> None:
    encode(HELD, [dataset], tmp_path / "cache", CPU)
    train(HELD, [dataset], tmp_path / "cache", tmp_path / "run", CPU)
    assert rows(tmp_path / "run") == rows(whole)


def test_it_says_what_is_measured(dataset: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    train(HELD, [dataset], NO_FILE, tmp_path / "run", CPU)
    assert "21 samples of 2 held-out episodes are measured every 2 steps" in capsys.readouterr().out
    train(HELD, [dataset], NO_FILE, tmp_path / "run", CPU)  # finished
    assert "held-out" not in capsys.readouterr().out
    train(replace(HELD, data=RUN.data), [dataset], NO_FILE, tmp_path / "none", CPU)
    assert "held-out" not in capsys.readouterr().out and not (tmp_path / "none" / FILE).exists()


def test_no_more_samples_than_are_useful(
    dataset: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(measuring, "MOST", 5)
    train(HELD, [dataset], NO_FILE, tmp_path, CPU)
    assert "5 samples of 2 held-out episodes" in capsys.readouterr().out


def test_what_a_resumed_run_is_free_to_change(dataset: Path, whole: Path, tmp_path: Path) -> None:
    """The values for a finished run say the same; another learning rate does not."""
    train(HELD, [dataset], NO_FILE, tmp_path, CPU)
    freed = replace(TRAIN, held_out_every=1, log_every=3, save_every=5, keep_last=1, workers=1, prefetch=0)
    train(replace(HELD, train=freed), [dataset], NO_FILE, tmp_path, CPU)
    assert load_run(tmp_path) == HELD
    with pytest.raises(BadInput, match=r"another run \(train.learning_rate: 0.0001 -> 0.1\)"):
        train(replace(HELD, train=replace(freed, learning_rate=0.1)), [dataset], NO_FILE, tmp_path, CPU)


def test_fast_wam(dataset: Path, tmp_path: Path) -> None:
    text = replace(tiny_fast_wam.tiny_config().text, length=8)
    run = replace(HELD, policy=replace(tiny_fast_wam.tiny_config(), text=text))
    train(run, [dataset], NO_FILE, tmp_path / "one", CPU)
    train(run, [dataset], NO_FILE, tmp_path / "two", CPU)
    assert rows(tmp_path / "one") == rows(tmp_path / "two")
    assert "action_error" in rows(tmp_path / "one")[0]


def lawam_runs(folder: Path, **world: Any) -> list[Run]:
    """Stage 1 and the policy on it."""
    spec = replace(tiny_lawam.SPEC, held_out=0.4)
    stage1 = replace(
        PAIR_RUN,
        policy=replace(PAIR_RUN.policy, features=tiny_lawam.FEATURES, latent=tiny_lawam.LATENT, **world),
        data=replace(spec, proprio_dim=3, frame_proprio=True),
        actions=ActionSpace(("x", "y", "z"), ("delta",) * 3),
        train=TRAIN,
    )
    policy = replace(tiny_lawam.CONFIG, world=str(folder / "stage1"))
    return [stage1, replace(stage1, recipe="tiny_lawam", policy=policy, data=spec)]


def test_both_stages_of_lawam(tmp_path: Path) -> None:
    """Stage 1 does not act, and its held-out samples are augmented in one way at every measurement."""
    stage1, stage2 = lawam_runs(tmp_path, augmentation=TwoViews())
    data = [tiny_dataset.write(tmp_path / "data", LENGTHS, spec=stage1.data)]
    train(stage1, data, NO_FILE, tmp_path / "stage1", CPU)
    found = rows(tmp_path / "stage1")
    assert [row["step"] for row in found] == [2, 4, 5] and "action_error" not in found[0]
    train(stage2, data, NO_FILE, tmp_path / "run", CPU)
    assert [row["step"] for row in rows(tmp_path / "run")] == [2, 4, 5]
    assert {"loss/action", "loss/subgoal", "loss/distill", "action_error"} <= rows(tmp_path / "run")[0].keys()


def mixed(tmp_path: Path, shares: Sequence[float]) -> tuple[Run, list[Path]]:
    sources = tuple(
        replace(source, data=replace(source.data, held_out=share))
        for source, share in zip(test_sources.SOURCES, shares, strict=True)
    )
    folders = [
        tiny_dataset.write(tmp_path / source.robot, LENGTHS, robot=source.robot, spec=source.data)
        for source in sources
    ]
    return replace(test_sources.RUN, sources=sources, train=TRAIN), folders


@pytest.mark.parametrize(("shares", "told"), [((0.4, 0.4), "4 samples of 4"), ((0.0, 0.4), "4 samples of 2")])
def test_every_source_has_its_own(
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    shares: tuple[float, float],
    told: str,
) -> None:
    monkeypatch.setattr(measuring, "MOST", 4)
    run, folders = mixed(tmp_path, shares)
    train(run, folders, NO_FILE, tmp_path / "run", CPU)
    assert f"{told} held-out episodes" in capsys.readouterr().out
    assert all(np.isfinite(row["action_error"]) for row in rows(tmp_path / "run"))


def test_held_out_episodes_that_cannot_be_measured_are_named_with_a_way_on(tmp_path: Path) -> None:
    """The one that is held out is shorter than a window."""
    data = tiny_dataset.write(tmp_path / "dataset", (6, 20, 20, 20, 20))
    run = replace(HELD, data=replace(HELD.data, whole_windows=True, held_out=0.2))
    with pytest.raises(BadInput, match=r"held-out episodes: .*long enough.*--train.held-out-every 0"):
        train(run, [data], NO_FILE, tmp_path / "run", CPU)
    run = replace(run, train=replace(TRAIN, held_out_every=0))
    train(run, [data], NO_FILE, tmp_path / "run", CPU)  # goes on
    assert not (tmp_path / "run" / FILE).exists()
