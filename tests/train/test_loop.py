"""Training: it learns, resumes bit for bit, explains what stops it, and leaves a whole run directory."""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Literal

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor
from wamkit_client.types import BadInput

from tests.policies.tiny_policy import batch_of, tiny_config, tiny_policy
from tests.processes import Running
from tests.train.tiny import CONFIG, CPU, Interrupted, TinyPolicy, fresh
from tests.until import SECONDS
from wamkit.data.cache import Cache, fill
from wamkit.data.order import Order
from wamkit.data.samples import Encoded, Fresh, read_all
from wamkit.draws import Draws
from wamkit.train.checkpoint import State, latest, trained_tensors
from wamkit.train.loop import TrainConfig, initial_state, optimize, train
from wamkit.train.metrics import Row, read_rows
from wamkit.train.optim import MovingAverage, optimizer_groups
from wamkit.types import Batch

ROOT = Path(__file__).parents[2]
TIMES = ("steps_per_second", "data_share")
SHORT = replace(CONFIG, steps=12, save_every=4)


def source() -> Fresh:
    return fresh(30)


def first_samples(count: int) -> Batch:
    return read_all(source(), range(count)).batch(TinyPolicy().embodiment)


def lasting(run_dir: Path) -> list[Row]:
    """The metrics rows without what depends on the clock."""
    return [{name: value for name, value in row.items() if name not in TIMES} for row in read_rows(run_dir)]


def weights(run_dir: Path) -> dict[str, Tensor]:
    return load_file(run_dir / "weights.safetensors")


def equal(one: dict[str, Tensor], two: dict[str, Tensor]) -> bool:
    return one.keys() == two.keys() and all(torch.equal(one[name], two[name]) for name in one)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An uninterrupted run of CONFIG."""
    run_dir = tmp_path_factory.mktemp("runs") / "whole"
    train(TinyPolicy(), source(), CONFIG, run_dir, CPU)
    return run_dir


def test_a_run_learns_and_leaves_a_whole_directory(whole: Path) -> None:
    rows = read_rows(whole)
    assert [row["step"] for row in rows] == list(range(1, 41))
    assert {"loss", "loss/video", "loss/action", "grad_norm", "lr", *TIMES} <= rows[0].keys()
    early, late = (sum(row["loss"] for row in part) for part in (rows[:8], rows[-8:]))
    assert late < 0.8 * early
    for row in rows:
        assert row["loss"] == pytest.approx(0.5 * row["loss/video"] + 2 * row["loss/action"], rel=1e-6)
        assert 0 <= row["data_share"] <= 1 and row["steps_per_second"] > 0
    assert sorted(path.name for path in (whole / "checkpoints").iterdir()) == ["step_000032", "step_000040"]
    assert list((whole / "tensorboard").glob("events.*"))
    assert weights(whole).keys() == trained_tensors(TinyPolicy()).keys()
    assert not [name for name in weights(whole) if name.startswith("backbone")]
    assert weights(whole)["steps_seen"] == 40


def test_tensorboard_has_what_metrics_has(whole: Path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(whole / "tensorboard"))
    events.Reload()
    shown = {event.step: event.value for event in events.Scalars("loss/video")}
    assert shown == {row["step"]: row["loss/video"] for row in read_rows(whole)}


def steps_logged(run_dir: Path) -> int:
    path = run_dir / "metrics.jsonl"
    return len(path.read_text().splitlines()) if path.exists() else 0


def test_a_killed_run_resumes_bit_for_bit(whole: Path, tmp_path: Path) -> None:
    command = ["python", "-m", "tests.train.tiny", str(tmp_path), "0"]
    killed = Running(command, ROOT, "*/checkpoints/step_000024", signal.SIGKILL).end()
    assert killed.status == -signal.SIGKILL
    newest = latest(tmp_path)
    assert newest is not None and newest.name == "step_000016" and steps_logged(tmp_path) >= 23
    with (tmp_path / "metrics.jsonl").open("a") as file:
        file.write('{"step": 99')  # a row cut off by the kill

    done = Running(command, ROOT).end()
    assert done.status == 0, done.err
    assert lasting(tmp_path) == lasting(whole)
    assert equal(weights(tmp_path), weights(whole))
    for name in ("weights", "average", "optimizer"):
        file = f"checkpoints/step_000040/{name}.safetensors"
        assert equal(load_file(tmp_path / file), load_file(whole / file))


def test_ctrl_c_saves_and_says_how_to_go_on(whole: Path, tmp_path: Path) -> None:
    done = Running(["python", "-m", "tests.train.tiny", str(tmp_path), "12"], ROOT).end()
    assert done.status != 0
    assert "KeyboardInterrupt: stopped after step" in done.err and "run the same command again" in done.err
    newest = latest(tmp_path)
    assert newest is not None and int(newest.name[5:]) == steps_logged(tmp_path)
    train(TinyPolicy(), source(), CONFIG, tmp_path, CPU)
    assert lasting(tmp_path) == lasting(whole)
    assert equal(weights(tmp_path), weights(whole))


def test_means_between_rows_survive_a_resume(tmp_path: Path) -> None:
    config = replace(CONFIG, steps=20, log_every=6, save_every=100)
    train(TinyPolicy(), source(), config, tmp_path / "whole", CPU)
    handlers = signal.getsignal(signal.SIGTERM)
    with pytest.raises(KeyboardInterrupt, match="stopped after step"):
        train(Interrupted(10, signal.SIGTERM), source(), config, tmp_path / "cut", CPU)
    assert signal.getsignal(signal.SIGTERM) is handlers
    newest = latest(tmp_path / "cut")
    assert newest is not None and newest.name == "step_000010"  # between the rows of steps 6 and 12
    train(TinyPolicy(), source(), config, tmp_path / "cut", CPU)
    assert [row["step"] for row in read_rows(tmp_path / "cut")] == [6, 12, 18, 20]
    assert lasting(tmp_path / "cut") == lasting(tmp_path / "whole")


def test_cached_and_fresh_training_agree_bit_for_bit(tmp_path: Path) -> None:
    fill(source(), tmp_path / "cache", {"codec": "tiny"}, shard_size=8)
    cache = Cache.open(tmp_path / "cache", {"codec": "tiny"}, hz=10.0)
    train(TinyPolicy(), cache, SHORT, tmp_path / "cached", CPU)
    train(TinyPolicy(), source(), SHORT, tmp_path / "fresh", CPU)
    assert lasting(tmp_path / "cached") == lasting(tmp_path / "fresh")
    assert equal(weights(tmp_path / "cached"), weights(tmp_path / "fresh"))


class Recording(TinyPolicy):
    def __init__(self, seed: int) -> None:
        super().__init__(seed)
        self.seen: list[tuple[str, ...]] = []

    def forward(self, batch: Batch, draws: Draws) -> dict[str, Tensor]:
        self.seen.append(batch.ids)
        return super().forward(batch, draws)


def test_two_policies_see_the_same_batches(tmp_path: Path) -> None:
    policies = [Recording(seed=1), Recording(seed=2)]
    for number, policy in enumerate(policies):
        train(policy, source(), SHORT, tmp_path / str(number), CPU)
    assert policies[0].seen == policies[1].seen
    assert len(policies[0].seen) == SHORT.steps


class Diverging(TinyPolicy):
    """Its video loss is infinite for one sample."""

    def __init__(self, bad: str) -> None:
        super().__init__()
        self.bad = bad

    def forward(self, batch: Batch, draws: Draws) -> dict[str, Tensor]:
        losses = super().forward(batch, draws)
        return losses | {"video": losses["video"] * (torch.inf if self.bad in batch.ids else 1.0)}


def test_a_loss_that_is_not_finite_names_step_and_samples(tmp_path: Path) -> None:
    config = replace(SHORT, log_every=5, save_every=3)
    recorder = Recording(seed=0)
    train(recorder, source(), config, tmp_path / "good", CPU)
    seventh = recorder.seen[6]
    with pytest.raises(BadInput, match=r"step 7: not finite: .*loss/video inf") as caught:
        train(Diverging(seventh[0]), source(), config, tmp_path / "bad", CPU)
    assert ", ".join(seventh) in str(caught.value)
    newest = latest(tmp_path / "bad")
    assert newest is not None and newest.name == "step_000006"
    assert all(tensor.isfinite().all() for tensor in load_file(newest / "weights.safetensors").values())
    assert not (tmp_path / "bad" / "weights.safetensors").exists()


def state_of(policy: TinyPolicy, config: TrainConfig) -> State:
    wanted = policy.parameter_groups()
    groups = optimizer_groups(policy, wanted, config.weight_decay, config.decayed, config.undecayed_names)
    return State(policy, torch.optim.AdamW(groups, fused=True), MovingAverage(policy, 0.0))


@pytest.mark.parametrize(("clip_norm", "limit"), [(1e-3, 1e-3), (0.05, 0.05), (1e9, 1e9), ("none", 1e9)])
def test_clipping_clips(clip_norm: float | Literal["none"], limit: float) -> None:
    config = replace(CONFIG, clip_norm=clip_norm)
    policy = TinyPolicy()
    scalars = optimize(policy, first_samples(4), 0, state_of(policy, config), config)
    gradients = [parameter.grad for parameter in policy.parameters() if parameter.grad is not None]
    left = torch.stack([gradient.square().sum() for gradient in gradients]).sum().sqrt().item()
    before = scalars["grad_norm"].item()
    assert before > 0.1
    assert left == pytest.approx(min(before, limit), rel=1e-3)


@pytest.mark.parametrize("accumulation", [2, 4])
def test_a_batch_in_parts_has_the_losses_and_gradients_of_the_whole(accumulation: int) -> None:
    found = {}
    for parts in (1, accumulation):
        policy = tiny_policy(tiny_config(objective="action_only"))  # draws no noise
        config = replace(CONFIG, accumulation=parts, clip_norm="none")
        scalars = optimize(policy, batch_of(policy, 4), 0, initial_state(policy, config), config)
        found[parts] = scalars, {n: p.grad for n, p in policy.named_parameters() if p.grad is not None}
    (whole, gradients), (parted, summed) = found[1], found[accumulation]
    for name, value in whole.items():
        assert parted[name].item() == pytest.approx(value.item(), rel=1e-5)
    assert summed.keys() == gradients.keys()
    for name, gradient in gradients.items():
        assert torch.allclose(summed[name], gradient, atol=1e-6 * float(whole["grad_norm"])), name


class Noisy(Recording):
    """Keeps what it draws."""

    def __init__(self) -> None:
        super().__init__(seed=0)
        self.drawn: list[Tensor] = []

    def forward(self, batch: Batch, draws: Draws) -> dict[str, Tensor]:
        self.drawn.append(torch.cat([draws.uniform(CPU)[:, None], draws.normal(batch.actions[:, 0])], dim=1))
        return super().forward(batch, draws)


def test_the_noise_of_a_sample_does_not_depend_on_the_parts_of_its_batch(tmp_path: Path) -> None:
    """Nor is any row left out or seen twice."""
    found = []
    for accumulation in (1, 2, 4):
        policy = Noisy()
        train(policy, source(), replace(SHORT, accumulation=accumulation), tmp_path / str(accumulation), CPU)
        ids = [name for part in policy.seen for name in part]
        found.append((ids, torch.cat(policy.drawn)))
    for ids, drawn in found[1:]:
        assert ids == found[0][0] and torch.equal(drawn, found[0][1])
    assert len(torch.unique(found[0][1], dim=0)) == len(found[0][0])


def test_a_run_of_batches_in_parts_learns(tmp_path: Path) -> None:
    train(TinyPolicy(), source(), replace(CONFIG, accumulation=2), tmp_path, CPU)
    rows = read_rows(tmp_path)
    assert sum(row["loss"] for row in rows[-8:]) < 0.8 * sum(row["loss"] for row in rows[:8])


def test_a_checkpoint_from_before_there_was_a_choice_goes_on(whole: Path, tmp_path: Path) -> None:
    run_dir = tmp_path / "copy"
    shutil.copytree(whole, run_dir)
    path = run_dir / "checkpoints/step_000040/state.json"
    state = json.loads(path.read_text())
    del state["progress"]["config"]["accumulation"]
    path.write_text(json.dumps(state))
    train(TinyPolicy(), source(), CONFIG, run_dir, CPU)
    with pytest.raises(BadInput, match="accumulation: expected 1, got 2"):
        train(TinyPolicy(), source(), replace(CONFIG, accumulation=2), run_dir, CPU)


def test_losses_must_be_those_declared() -> None:
    policy = TinyPolicy()
    policy.loss_weights = {"video": 1.0}
    with pytest.raises(ValueError, match=r"expected \['video'\].*got \['action', 'video'\]"):
        optimize(policy, first_samples(4), 0, state_of(policy, CONFIG), CONFIG)


def test_the_written_weights_are_the_moving_average(whole: Path, tmp_path: Path) -> None:
    newest = latest(whole)
    assert newest is not None
    raw, average = load_file(newest / "weights.safetensors"), load_file(newest / "average.safetensors")
    assert equal(weights(whole), raw | average)
    assert not torch.equal(raw["query_tokens"], average["query_tokens"])
    policy = TinyPolicy()
    train(policy, source(), replace(SHORT, average_decay=0.0), tmp_path, CPU)
    assert equal(weights(tmp_path), trained_tensors(policy))


def test_bf16_is_near_fp32(tmp_path: Path) -> None:
    train(TinyPolicy(), source(), SHORT, tmp_path / "fp32", CPU)
    train(TinyPolicy(), source(), replace(SHORT, precision="bf16"), tmp_path / "bf16", CPU)
    assert weights(tmp_path / "bf16")["video_head.weight"].dtype == torch.float32
    one, two = ([row["loss"] for row in read_rows(tmp_path / name)] for name in ("fp32", "bf16"))
    assert one != two
    assert two == pytest.approx(one, rel=0.02)


def test_a_compiled_policy_trains_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # The compiler's front half only: its code generation takes minutes on a small machine.
    monkeypatch.setattr(torch, "compile", partial(torch.compile, backend="aot_eager"))
    train(TinyPolicy(), source(), SHORT, tmp_path / "eager", CPU)
    train(TinyPolicy(), source(), replace(SHORT, compile=True), tmp_path / "compiled", CPU)
    assert weights(tmp_path / "compiled").keys() == weights(tmp_path / "eager").keys()
    one, two = ([row["loss"] for row in read_rows(tmp_path / name)] for name in ("eager", "compiled"))
    assert two == pytest.approx(one, rel=1e-5)


class Unreadable:
    """Samples of the right number, of which nothing may be read."""

    order = Order((30,), (1.0,))

    def __len__(self) -> int:
        return len(source())

    def reader(self, indices: Sequence[int], seeds: Sequence[int]) -> None:
        raise AssertionError(f"a finished run read samples {indices}")

    def finish(self, read: None) -> Encoded:
        raise AssertionError("a finished run read samples")


def test_a_finished_run_returns_at_once(whole: Path, tmp_path: Path) -> None:
    run_dir = tmp_path / "copy"
    shutil.copytree(whole, run_dir)
    (run_dir / "weights.safetensors").unlink()
    policy = TinyPolicy(seed=9)
    train(policy, Unreadable(), CONFIG, run_dir, CPU)
    assert lasting(run_dir) == lasting(whole)
    assert equal(weights(run_dir), weights(whole))


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda run: (run / "checkpoints/step_000040/state.json").unlink(), "state.json: missing; delete"),
        (lambda run: truncate(run / "checkpoints/step_000040/state.json"), "state.json: truncated"),
        (
            lambda run: truncate(run / "checkpoints/step_000040/optimizer.safetensors"),
            "optimizer.safetensors: expected",
        ),
        (
            lambda run: (run / "checkpoints/step_000040/weights.safetensors").unlink(),
            "weights.safetensors: missing",
        ),
        (lambda run: truncate(run / "metrics.jsonl"), "metrics.jsonl: expected 40 rows up to step 40, got"),
        (lambda run: (run / "metrics.jsonl").unlink(), "metrics.jsonl: missing"),
        (
            lambda run: (run / "metrics.jsonl").write_text("{}\nloss 3\n"),
            "metrics.jsonl: line 1 is not a metrics row",
        ),
        (lambda run: shutil.rmtree(run / "checkpoints"), "has weights.safetensors but no checkpoints"),
    ],
)
def test_a_damaged_run_directory_is_named(
    whole: Path, tmp_path: Path, damage: Callable[[Path], None], message: str
) -> None:
    run_dir = tmp_path / "copy"
    shutil.copytree(whole, run_dir)
    damage(run_dir)
    with pytest.raises(BadInput, match=message):
        train(TinyPolicy(), source(), CONFIG, run_dir, CPU)


def truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def test_resuming_with_other_settings_is_refused_by_name(whole: Path, tmp_path: Path) -> None:
    run_dir = tmp_path / "copy"
    shutil.copytree(whole, run_dir)
    changed = replace(CONFIG, learning_rate=1.0, log_every=3, keep_last=5)
    with pytest.raises(BadInput, match=r"learning_rate: expected 0.003, got 1.0\. ") as caught:
        train(TinyPolicy(), source(), changed, run_dir, CPU)
    assert "log_every" not in str(caught.value)
    with pytest.raises(BadInput, match=r"samples: expected 30, got 31"):
        train(TinyPolicy(), fresh(31), CONFIG, run_dir, CPU)
    wider = TinyPolicy()
    wider.query_tokens = torch.nn.Parameter(torch.zeros(4, 32))
    with pytest.raises(BadInput, match=r"query_tokens: expected \[4, 32\], got \[3, 32\]"):
        train(wider, source(), CONFIG, run_dir, CPU)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 192 KiB: three checkpoints."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=192k", "tmpfs", str(disk)]
    done = subprocess.run(mount, capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.skip(f"needs a tmpfs mount: {done.stderr.strip()}")
    yield disk
    subprocess.run(["umount", str(disk)], check=True)


def test_a_full_disk_is_explained_and_the_run_goes_on_later(whole: Path, small_disk: Path) -> None:
    ballast = small_disk / "ballast"
    ballast.write_bytes(bytes(100_000))
    run_dir = small_disk / "run"
    with pytest.raises(BadInput, match=r"disk/run: the disk is full .*; the newest checkpoint is kept"):
        train(TinyPolicy(), source(), CONFIG, run_dir, CPU)
    assert [path.name for path in (run_dir / "checkpoints").iterdir()] == ["step_000008"]
    ballast.unlink()
    train(TinyPolicy(), source(), replace(CONFIG, keep_last=1), run_dir, CPU)
    assert lasting(run_dir) == lasting(whole)
    assert equal(weights(run_dir), weights(whole))


def test_one_run_directory_has_one_trainer(tmp_path: Path) -> None:
    class Held(TinyPolicy):
        """Trains when it is told to."""

        begun, go = threading.Event(), threading.Event()

        def forward(self, batch: Batch, draws: Draws) -> dict[str, Tensor]:
            self.begun.set()
            assert self.go.wait(SECONDS)
            return super().forward(batch, draws)

    held = Held()
    first = threading.Thread(target=train, args=(held, source(), SHORT, tmp_path, CPU), daemon=True)
    first.start()
    assert held.begun.wait(SECONDS)
    with pytest.raises(BadInput, match="another process trains here"):
        train(TinyPolicy(), source(), SHORT, tmp_path, CPU)
    held.go.set()
    first.join()
    assert len(read_rows(tmp_path)) == SHORT.steps


@pytest.mark.parametrize(
    "wrong",
    [
        {"steps": 0},
        {"batch_size": 0},
        {"clip_norm": 0.0},
        {"log_every": 0},
        {"accumulation": 0},
    ],
)
def test_settings_that_mean_nothing_are_refused(wrong: dict[str, int]) -> None:
    with pytest.raises(BadInput, match=rf"train.{next(iter(wrong))}: expected"):
        TrainConfig(**wrong)  # type: ignore[arg-type]


def test_a_batch_that_does_not_fall_into_equal_parts_is_refused() -> None:
    with pytest.raises(BadInput, match=r"train.accumulation: 64 samples do not fall into 3 equal parts"):
        TrainConfig(accumulation=3)


def test_rows_are_written_with_every_digit(whole: Path) -> None:
    for line in (whole / "metrics.jsonl").read_text().splitlines():
        row = json.loads(line)
        assert torch.tensor(row["loss"], dtype=torch.float32).item() == row["loss"]
