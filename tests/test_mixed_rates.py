"""A mixture of copies at several rates: what a batch holds, whose statistics, and a run that was killed and resumed."""

from __future__ import annotations

import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from wamkit_client.types import BadInput, Observation

from tests.mixed_rates import (
    CPU,
    NATIVE,
    NO_CACHE,
    RATES,
    RUN,
    SOURCES,
    SPACE,
    at,
    datasets,
    policy_run,
    robot,
    write,
)
from wamkit.config import Normalization, load_engine, load_normalizer
from wamkit.data.actions import ActionSpace
from wamkit.data.samples import read_all
from wamkit.io.tensors import read_tensors
from wamkit.stages.run import encode, fit_normalizer, open_clips, train, training_samples
from wamkit.train.metrics import read_rows

ROOT = Path(__file__).parents[1]
SHORT = replace(RUN.train, steps=2, save_every=1)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The datasets, named by their rates; do not change them."""
    made = tmp_path_factory.mktemp("rates")
    write(made)
    return made


def test_every_rate_has_the_tokens_of_its_seconds(folder: Path) -> None:
    """Token i is a target where i < n(hz), past the end of an episode too (spec 2.6)."""
    clips = open_clips(RUN, datasets(folder))
    samples = training_samples(RUN, clips, RUN.policy.encoder(RUN.data), NO_CACHE)
    ends = [len(own) for own in clips]
    assert ends == [83, 42, 22]
    found = read_all(
        samples, [0, 83, 83 + 42, 82, 83 + 41, 83 + 42 + 21]
    )  # the first and the last of each rate
    assert found.hz.tolist() == [80.0, 40.0, 20.0] * 2
    assert found.embodiments == tuple(robot(hz) for hz in RATES) * 2
    for row, hz in enumerate((*RATES, *RATES)):
        tokens = round(0.4 * hz)
        assert found.valid[row, :tokens].all() and not found.valid[row, tokens:].any()
        assert not found.actions[row, tokens:].any()
    assert found.frame_is_pad.tolist() == [[False, False]] * 3 + [[False, True]] * 3
    for hz, own in zip(RATES, clips, strict=True):
        assert own.spec.frame_offsets == (0, round(0.4 * hz) - 1)
    # what 80 Hz does in two steps, 40 Hz does in one
    both = found.actions[0, :4, 0].reshape(2, 2).sum(dim=1)
    torch.testing.assert_close(found.actions[1, :2, 0], both)
    assert torch.equal(found.inputs["proprio"][0], found.inputs["proprio"][2])


def test_each_share_is_size_times_weight(folder: Path) -> None:
    clips = open_clips(RUN, datasets(folder))
    order = training_samples(RUN, clips, RUN.policy.encoder(RUN.data), NO_CACHE).order
    assert order.quotas == (72, 37, 38)  # 147 in proportion to 83, 42 and 2 x 22


def test_statistics_are_each_rates_own_or_shared(folder: Path) -> None:
    clips = open_clips(RUN, datasets(folder))
    own = fit_normalizer(RUN, clips)
    shared = fit_normalizer(replace(RUN, normalization=Normalization(robots="shared")), clips)
    assert own.embodiments == shared.embodiments == tuple(map(robot, RATES))
    counts = [own.stats[name]["action"].count for name in own.embodiments]
    assert counts == [83, 42, 22]
    lows = [own.stats[name]["action"].min[0] for name in own.embodiments]
    assert lows[2] < lows[1] < lows[0]
    for stats in shared.stats.values():
        assert stats["action"].count == 83 + 42 + 22 and stats["action"].min[0] == lows[2]
    others = [clips[0], *open_clips(_otherwise(), datasets(folder))[1:]]
    with pytest.raises(
        BadInput, match=r"40: normalization.robots is shared, and its actions or proprio do not mean"
    ):
        fit_normalizer(replace(RUN, normalization=Normalization(robots="shared")), others)


def _otherwise():
    space = ActionSpace(SPACE.names, ("absolute", "gripper"))
    return replace(RUN, sources=tuple(replace(source, actions=space) for source in SOURCES))


def test_a_killed_run_resumes_bit_for_bit(folder: Path, tmp_path: Path) -> None:
    """The process is killed in its fifth step, after the checkpoint of the third."""
    for path in datasets(folder):
        (tmp_path / path.name).symlink_to(path)
    command = [sys.executable, "-m", "tests.mixed_rates", str(tmp_path)]
    killed = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=300)
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    assert not (tmp_path / "run" / "weights.safetensors").exists()
    assert [path.name for path in (tmp_path / "run" / "checkpoints").iterdir()] == ["step_000003"]
    train(RUN, datasets(folder), NO_CACHE, tmp_path / "run", CPU)
    train(RUN, datasets(folder), NO_CACHE, tmp_path / "whole", CPU)
    encode(RUN, datasets(folder), tmp_path / "cache", CPU)
    train(RUN, datasets(folder), tmp_path / "cache", tmp_path / "cached", CPU)
    runs = [tmp_path / name for name in ("whole", "run", "cached")]
    whole, *others = ([(row["step"], row["loss"]) for row in read_rows(run)] for run in runs)
    assert len(whole) == 6 and all(other == whole for other in others)
    expected, *found = (read_tensors(run / "weights.safetensors") for run in runs)
    assert all(torch.equal(expected[name], tensors[name]) for tensors in found for name in expected)
    assert load_normalizer(tmp_path / "run").embodiments == tuple(map(robot, RATES))


def test_a_policy_acts_at_each_rate(folder: Path, tmp_path: Path) -> None:
    train(replace(RUN, train=SHORT), datasets(folder), NO_CACHE, tmp_path / "world", CPU)
    run = replace(policy_run(tmp_path / "world"), train=SHORT)
    train(run, datasets(folder), NO_CACHE, tmp_path / "run", CPU)
    engine = load_engine(tmp_path / "run", CPU)
    seen = {view: np.full((32, 32, 3), 90, np.uint8) for view in ("front", "wrist")}
    asked = [Observation(seen, np.zeros(0, np.float32), "lift", robot(hz), 1) for hz in RATES]
    assert [chunk.actions.shape for chunk in engine.act(asked)] == [(32, 2), (16, 2), (8, 2)]
    with pytest.raises(BadInput, match=r"'robot-10hz' has no row; expected one of \['robot', 'robot-40hz'"):
        engine.act([replace(asked[0], embodiment="robot-10hz")])
    longer = replace(run.sources[2], data=replace(run.sources[2].data, chunk_seconds=0.8))
    with pytest.raises(
        BadInput, match=r"sources.20hz: chunk_seconds is 0.8, the run's 0.4; LaWAM's chunks are as"
    ):
        replace(run, sources=(*run.sources[:2], longer))
    small = replace(run.policy, expert=replace(run.policy.expert, tokens=20))
    with pytest.raises(
        BadInput, match=r"sources.80hz: data.chunk_seconds: 0.4 s at data.hz 80 are 32 actions, .* 20"
    ):
        replace(run, policy=small)


def test_copies_that_do_not_go_together(folder: Path, tmp_path: Path) -> None:
    native, half, quarter = datasets(folder)
    with pytest.raises(BadInput, match=r"20: robot_type is 'robot-20hz', source '40hz' is of 'robot-40hz'"):
        open_clips(RUN, [native, quarter, half])
    wrong = replace(SOURCES[1], data=at(80), robot="")
    with pytest.raises(BadInput, match=r"40: 40 frames per second, the recipe asks for 80 Hz"):
        open_clips(
            replace(RUN, sources=(SOURCES[0], replace(wrong, robot="robot-40hz"), SOURCES[2])),
            datasets(folder),
        )
    views = replace(SOURCES[1], data=replace(at(40), views=("front", "palm")))
    with pytest.raises(BadInput, match=r"40: camera 'palm' is missing; the dataset has \['front', 'wrist'\]"):
        open_clips(replace(RUN, sources=(SOURCES[0], views, SOURCES[2])), datasets(folder))
    with pytest.raises(
        BadInput, match=r"chunk_seconds: 0.33 s is 26.4 control steps at data.hz 80, expected a whole"
    ):
        replace(at(NATIVE), chunk_seconds=0.33)
