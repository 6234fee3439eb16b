"""Checkpoints of several ranks: written beside training, whole or absent, and read by any number of ranks."""

from __future__ import annotations

import shutil
import signal
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor
from wamkit_client.types import BadInput

from tests.train.ranks import on_ranks
from tests.train.test_parallel import RTOL, TIMES
from tests.train.tiny import CONFIG, CPU, Interrupted, TinyPolicy, fresh
from wamkit.io.weights import WEIGHTS
from wamkit.train.checkpoint import latest, read_progress
from wamkit.train.loop import train
from wamkit.train.metrics import Row, read_rows
from wamkit.train.parallel import SINGLE, Kind, Parallel
from wamkit.train.sharded import METADATA

SHORT = replace(CONFIG, steps=12, save_every=3, keep_last=2)


def begun(parallel: Parallel, run_dir: Path, number: int) -> str:
    """Until the policy of rank 0 sends itself a signal in step 7; what the rank says then."""
    rank = parallel.ranks.share.rank
    with pytest.raises(KeyboardInterrupt) as caught:
        policy = Interrupted(7 if rank == 0 else 99, signal.Signals(number))
        train(policy, fresh(30), SHORT, run_dir, CPU, parallel=parallel)
    return str(caught.value)


def gone_on(parallel: Parallel, run_dir: Path) -> None:
    train(TinyPolicy(), fresh(30), SHORT, run_dir, CPU, parallel=parallel)


def rows(run_dir: Path) -> list[Row]:
    return [{name: x for name, x in row.items() if name not in TIMES} for row in read_rows(run_dir)]


def weights(run_dir: Path) -> dict[str, Tensor]:
    return load_file(run_dir / WEIGHTS)


@pytest.fixture(scope="module")
def stopped(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of two ranks, of which one was told to stop."""
    run_dir = tmp_path_factory.mktemp("sharded") / "run"
    one, other = on_ranks(2, begun, run_dir, signal.SIGUSR1)
    assert one == other and "stopped after step 8 of 12" in one  # all know a step later
    return run_dir


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same, of one process and not stopped."""
    run_dir = tmp_path_factory.mktemp("whole") / "run"
    gone_on(SINGLE, run_dir)
    return run_dir


@pytest.mark.parametrize(
    ("kind", "count"), [("ddp", 1), ("ddp", 2), ("ddp", 4), ("fsdp", 2), ("hybrid", 4)], ids=str
)
def test_any_number_of_ranks_goes_on(
    stopped: Path, whole: Path, tmp_path: Path, kind: Kind, count: int
) -> None:
    newest = latest(stopped)
    assert newest is not None and read_progress(newest).step == 8 and (newest / METADATA).exists()
    run_dir = tmp_path / "run"
    shutil.copytree(stopped, run_dir)
    if count == 1:
        gone_on(SINGLE, run_dir)
    else:
        on_ranks(count, gone_on, run_dir, kind=kind)
    for own, expected in zip(rows(run_dir), rows(whole), strict=True):
        assert own == pytest.approx(expected, rel=RTOL)
    for name, expected_weight in weights(whole).items():
        assert torch.allclose(weights(run_dir)[name], expected_weight, rtol=RTOL, atol=1e-5), name
    kept = sorted(path.name for path in (run_dir / "checkpoints").iterdir())
    assert kept == ["step_000009", "step_000012"]


def test_going_on_repeats_the_uninterrupted_run_bit_for_bit(stopped: Path, tmp_path: Path) -> None:
    shutil.copytree(stopped, tmp_path / "stopped")
    on_ranks(2, gone_on, tmp_path / "stopped")
    on_ranks(2, gone_on, tmp_path / "uninterrupted")
    assert rows(tmp_path / "stopped") == rows(tmp_path / "uninterrupted")
    one, other = weights(tmp_path / "stopped"), weights(tmp_path / "uninterrupted")
    assert all(torch.equal(one[name], other[name]) for name in one)


@pytest.mark.parametrize("kind", ["ddp", "fsdp"])
def test_ranks_go_on_from_the_checkpoint_of_one_process(whole: Path, tmp_path: Path, kind: Kind) -> None:
    with pytest.raises(KeyboardInterrupt):
        train(Interrupted(6, signal.SIGTERM), fresh(30), SHORT, tmp_path, CPU)
    on_ranks(2, gone_on, tmp_path, kind=kind)
    for own, expected in zip(rows(tmp_path), rows(whole), strict=True):
        assert own == pytest.approx(expected, rel=RTOL)


def test_one_process_goes_on_from_what_was_divided(whole: Path, tmp_path: Path) -> None:
    on_ranks(2, begun, tmp_path, signal.SIGTERM, kind="fsdp")
    gone_on(SINGLE, tmp_path)
    for own, expected in zip(rows(tmp_path), rows(whole), strict=True):
        assert own == pytest.approx(expected, rel=RTOL)


def test_a_changed_file_is_refused(stopped: Path, tmp_path: Path) -> None:
    run_dir = tmp_path / "run"
    shutil.copytree(stopped, run_dir)
    newest = latest(run_dir)
    assert newest is not None
    part = newest / "__1_0.distcp"
    data = bytearray(part.read_bytes())
    data[len(data) // 2] ^= 1
    part.write_bytes(data)
    with pytest.raises(BadInput, match=r"__1_0.distcp: its bytes have changed"):
        gone_on(SINGLE, run_dir)
    part.unlink()
    with pytest.raises(BadInput, match=r"__1_0.distcp: missing"):
        gone_on(SINGLE, run_dir)


def on_a_small_disk(parallel: Parallel, run_dir: Path) -> str:
    with pytest.raises(BadInput) as caught:
        gone_on(parallel, run_dir)
    return str(caught.value)


def test_a_full_disk_is_explained_on_every_rank(tmp_path: Path, disk) -> None:  # type: ignore[no-untyped-def]
    found = on_ranks(2, on_a_small_disk, disk("128k") / "run")
    assert all("the disk is full" in told and "the newest checkpoint is kept" in told for told in found), (
        found
    )
