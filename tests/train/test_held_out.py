"""Held-out episodes: measured with fixed noise and without a trace in the training, every row there once."""

from __future__ import annotations

import shutil
import signal
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from wamkit_client.types import BadInput

from tests.policies.tiny_policy import tiny_normalizer
from tests.train.test_loop import equal, lasting, source, weights
from tests.train.tiny import CONFIG, CPU, Interrupted, TinyClips, TinyEncoder, TinyPolicy, fresh
from wamkit.data.clips import ClipSample
from wamkit.data.samples import Fresh, Observations
from wamkit.draws import Draws
from wamkit.train import loop
from wamkit.train.checkpoint import latest, read_weights
from wamkit.train.held_out import FILE, NOTHING, HeldOut, evenly, read_held_out
from wamkit.train.loop import TrainConfig, train
from wamkit.train.rows import Row, read_table
from wamkit.types import Batch

EVERY = replace(CONFIG, held_out_every=6)
STEPS = [6, 12, 18, 24, 30, 36, 40]


@dataclass(frozen=True)
class Later:
    """Samples of episodes that `source` does not have."""

    clips: TinyClips

    def __len__(self) -> int:
        return 10

    def sample(self, i: int) -> ClipSample:
        return self.clips.sample(30 + i)


def unseen(part_size: int = 4) -> HeldOut:
    clips = Later(TinyClips(40))
    whole, observed = Fresh(clips, TinyEncoder()), Fresh(Observations(clips), TinyEncoder())
    return read_held_out(whole, observed, [len(clips)], TinyPolicy(), tiny_normalizer(), part_size)


def rows(run_dir: Path) -> list[Row]:
    return read_table(run_dir / FILE)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An uninterrupted run of EVERY."""
    run_dir = tmp_path_factory.mktemp("runs") / "whole"
    train(TinyPolicy(), source(), EVERY, run_dir, CPU, unseen)
    return run_dir


def test_rows_are_written_every_so_many_steps_and_at_the_end(whole: Path) -> None:
    found = rows(whole)
    assert [row["step"] for row in found] == STEPS
    for row in found:
        assert row.keys() == {"step", "loss", "loss/video", "loss/action"}  # it does not act
        assert row["loss"] == pytest.approx(0.5 * row["loss/video"] + 2 * row["loss/action"], rel=1e-12)
    assert found[-1]["loss"] < found[0]["loss"]


def test_training_is_bit_equal_with_and_without_it(whole: Path, tmp_path: Path) -> None:
    random = torch.get_rng_state()
    policies = [TinyPolicy(), TinyPolicy()]
    train(policies[0], source(), EVERY, tmp_path / "without", CPU)
    train(policies[1], source(), EVERY, tmp_path / "with", CPU, unseen)
    assert torch.equal(random, torch.get_rng_state())
    assert not (tmp_path / "without" / FILE).exists() and policies[1].training
    assert lasting(tmp_path / "without") == lasting(whole)
    for name in ("weights", "average", "optimizer"):
        file = f"checkpoints/step_000040/{name}.safetensors"
        assert equal(load_file(tmp_path / "without" / file), load_file(whole / file))
    assert equal(weights(tmp_path / "without"), weights(whole))
    assert all(torch.equal(*pair) for pair in zip(*(p.state_dict().values() for p in policies), strict=True))


def test_it_is_the_moving_average_that_is_measured(whole: Path) -> None:
    policy = TinyPolicy()
    read_weights(whole, policy)
    assert unseen().measure(policy, 40, CPU, "fp32") == rows(whole)[-1]
    assert policy.training and policy.steps_seen == 40


def test_a_resumed_run_has_every_row_once(whole: Path, tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt, match="stopped after step"):
        train(Interrupted(10, signal.SIGTERM), source(), EVERY, tmp_path, CPU, unseen)
    newest = latest(tmp_path)
    assert newest is not None and newest.name == "step_000010"
    assert rows(tmp_path) == rows(whole)[:1]
    train(TinyPolicy(), source(), EVERY, tmp_path, CPU, unseen)
    assert rows(tmp_path) == rows(whole)
    assert equal(weights(tmp_path), weights(whole))


def test_rows_after_the_checkpoint_of_a_killed_run_are_written_again(whole: Path, tmp_path: Path) -> None:
    run_dir = Path(shutil.copytree(whole, tmp_path / "killed"))
    shutil.rmtree(run_dir / "checkpoints/step_000040")
    with (run_dir / FILE).open("a") as file:
        file.write('{"step": 99')  # a row cut off by the kill
    train(TinyPolicy(), source(), EVERY, run_dir, CPU, unseen)
    assert rows(run_dir) == rows(whole)
    assert lasting(run_dir) == lasting(whole)


def test_lost_rows_are_named(whole: Path, tmp_path: Path) -> None:
    run_dir = Path(shutil.copytree(whole, tmp_path / "copy"))
    (run_dir / FILE).write_text("".join((run_dir / FILE).read_text().splitlines(keepends=True)[1:]))
    with pytest.raises(BadInput, match=rf"{FILE}: expected 7 rows up to step 40, got 6; restore the file"):
        train(TinyPolicy(), source(), EVERY, run_dir, CPU, unseen)
    (run_dir / FILE).unlink()
    with pytest.raises(BadInput, match=rf"{FILE}: missing"):
        train(TinyPolicy(), source(), EVERY, run_dir, CPU, unseen)


def test_a_finished_run_reads_no_held_out_samples(whole: Path) -> None:
    def never() -> HeldOut:
        raise AssertionError("a finished run read held-out samples")

    train(TinyPolicy(), source(), EVERY, whole, CPU, never)


def test_how_often_may_change_when_a_run_is_resumed(whole: Path, tmp_path: Path) -> None:
    run_dir = Path(shutil.copytree(whole, tmp_path / "copy"))
    shutil.rmtree(run_dir / "checkpoints/step_000040")
    train(TinyPolicy(), source(), replace(EVERY, held_out_every=4), run_dir, CPU, unseen)
    assert [row["step"] for row in rows(run_dir)] == [6, 12, 18, 24, 30, 36, 40]
    never = tmp_path / "never"
    train(TinyPolicy(), source(), replace(EVERY, held_out_every=0), never, CPU, unseen)
    assert not (never / FILE).exists()
    with pytest.raises(BadInput, match=r"train.held_out_every: expected at least 0, got -1"):
        TrainConfig(held_out_every=-1)


def test_the_noise_of_a_sample_does_not_depend_on_the_parts() -> None:
    policy = TinyPolicy()
    one, two = (unseen(size).measure(policy, 1, CPU, "fp32") for size in (4, 10))
    assert one["loss/video"] == pytest.approx(two["loss/video"], rel=1e-6)  # no sample of it is masked
    assert unseen(3).measure(policy, 1, CPU, "fp32") == unseen(3).measure(policy, 1, CPU, "fp32")


class Overflowing(TinyPolicy):
    """Infinite on held-out samples alone."""

    def forward(self, batch: Batch, draws: Draws) -> dict[str, torch.Tensor]:
        losses = super().forward(batch, draws)
        return losses | {"video": losses["video"] * (1 if self.training else torch.inf)}


def test_numbers_that_are_not_finite_are_named(tmp_path: Path) -> None:
    with pytest.raises(
        BadInput, match=r"not finite on held-out episodes: held out at step 6: .*video inf"
    ) as caught:
        train(Overflowing(), source(), EVERY, tmp_path, CPU, unseen)
    assert "--train.held-out-every 0" in str(caught.value)


def test_overfitting_is_warned_of_once(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Targets that are noise: whatever is learnt of them is wrong of other samples."""
    changes = {"steps": 80, "learning_rate": 1e-2, "schedule": "constant", "weight_decay": 0.0}
    config = replace(CONFIG, batch_size=8, log_every=5, held_out_every=10, **changes)
    train(TinyPolicy(), fresh(8), config, tmp_path, CPU, unseen)
    out = capsys.readouterr().out
    assert out.count("warning: overfitting: on held-out episodes the loss was") == 1


def test_the_log_line_has_the_latest_measurement(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    train(TinyPolicy(), source(), EVERY, tmp_path, CPU, unseen)
    last = capsys.readouterr().out.splitlines()[-1]
    row = rows(tmp_path)[-1]
    assert f"held out at step 40: loss {row['loss']:.4f}, video {row['loss/video']:.4f}" in last


def test_tensorboard_shows_the_rows(whole: Path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(whole / "tensorboard"))
    events.Reload()
    shown = {event.step: event.value for event in events.Scalars("held_out/loss/video")}
    assert list(shown) == STEPS
    assert shown == pytest.approx({row["step"]: row["loss/video"] for row in rows(whole)})


@pytest.mark.parametrize(
    ("count", "most", "expected"),
    [(0, 4, []), (3, 4, [0, 1, 2]), (4, 4, [0, 1, 2, 3]), (100, 4, [12, 37, 62, 87]), (5, 1, [2])],
)
def test_samples_are_chosen_evenly(count: int, most: int, expected: list[int]) -> None:
    assert evenly(count, most) == expected


def test_nothing_held_out_is_never_due() -> None:
    assert not NOTHING.due(10, 10, 5) and not unseen().due(10, 10, 0)
    assert [done for done in range(1, 11) if unseen().due(done, 10, 4)] == [4, 8, 10]
    assert loop.TrainConfig().held_out_every == 250
