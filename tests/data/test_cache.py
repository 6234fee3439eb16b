"""The latent cache: equal to fresh encoding, whole after any interruption, refused where it does not fit."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass, fields
from itertools import islice
from pathlib import Path

import pytest
import torch
from torch import Tensor
from wamkit_client.types import BadInput

from tests.data.encode_process import BATCH_SIZE, FINGERPRINT, SAMPLES, SHARD_SIZE
from tests.train.tiny import CPU, TASKS, TinyClips, TinyPolicy
from wamkit.data.cache import Cache, Table, encode
from wamkit.data.claims import Claim
from wamkit.data.loader import Fresh, batches
from wamkit.nn.weights import read_tensors
from wamkit.types import Batch, Inputs

ROOT = Path(__file__).parents[2]


def make(folder: Path, samples: int = SAMPLES) -> Cache:
    encode(
        TinyClips(samples), TinyPolicy(), folder, FINGERPRINT, shard_size=SHARD_SIZE, batch_size=BATCH_SIZE
    )
    return Cache.open(folder, FINGERPRINT, Inputs)


def same(one: Batch, two: Batch) -> bool:
    tensors = [
        (getattr(one, name), getattr(two, name)) for name in ("actions", "action_is_pad", "frame_is_pad")
    ]
    tensors += [(getattr(one.inputs, f.name), getattr(two.inputs, f.name)) for f in fields(one.inputs)]
    named = one.ids == two.ids and one.embodiments == two.embodiments
    return named and all(a.dtype == b.dtype and torch.equal(a, b) for a, b in tensors)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Cache:
    return make(tmp_path_factory.mktemp("cache") / "latents")


def test_a_cached_batch_is_bit_equal_to_a_fresh_one(made: Cache) -> None:
    fresh = Fresh(TinyClips(SAMPLES), TinyPolicy(), CPU)
    assert len(made) == len(fresh)
    with closing(batches(made, 7, seed=5)) as cached, closing(batches(fresh, 7, seed=5)) as now:
        for one, two in islice(zip(cached, now, strict=True), 20):
            assert same(one, two)


def test_a_context_is_stored_once_per_shard_and_instruction(made: Cache) -> None:
    rows = 0
    for number in range(0, SAMPLES, SHARD_SIZE):
        tensors = read_tensors(made.folder / f"shard-{number:08d}.safetensors")
        instructions = {TASKS[i // 10 % len(TASKS)] for i in range(number, min(number + SHARD_SIZE, SAMPLES))}
        assert len(tensors["rows.inputs.context"]) <= len(instructions)
        assert len(tensors["rows.inputs.present"]) == min(SHARD_SIZE, SAMPLES - number)
        rows += len(tensors["rows.inputs.context"])
    assert rows <= 14


def test_rows_are_distinct_by_their_bytes() -> None:
    column = torch.tensor([[0.0, 1.0], [-0.0, 1.0], [0.0, 1.0], [float("nan"), 2.0], [float("nan"), 2.0]])
    table = Table()
    table.add(column[:2])
    table.add(column[2:])
    assert table.index == [0, 1, 0, 2, 2]
    assert torch.equal(torch.stack(table.rows)[table.index].view(torch.int32), column.view(torch.int32))


def test_encoding_again_does_nothing(made: Cache) -> None:
    before = {path: path.stat().st_mtime_ns for path in made.folder.iterdir()}
    make(made.folder)
    assert {path: path.stat().st_mtime_ns for path in made.folder.iterdir()} == before
    assert not [path for path in before if "claim" in path.name or path.suffix == ".tmp"]


def test_another_fingerprint_is_refused_by_field(made: Cache) -> None:
    other = FINGERPRINT | {"codec": "wan2.1"}
    for attempt in (
        lambda: Cache.open(made.folder, other, Inputs),
        lambda: encode(TinyClips(SAMPLES), TinyPolicy(), made.folder, other, shard_size=SHARD_SIZE),
    ):
        with pytest.raises(BadInput, match=r"codec: expected 'wan2.1', got 'tiny'") as caught:
            attempt()
        assert "window" not in str(caught.value)
    with pytest.raises(BadInput, match=r"pooling: expected '2x2', got '\(absent\)'"):
        Cache.open(made.folder, FINGERPRINT | {"pooling": "2x2"}, Inputs)
    with pytest.raises(BadInput, match=r"window: expected '\(absent\)', got '3 frames'"):
        Cache.open(made.folder, {"codec": "tiny"}, Inputs)
    with pytest.raises(BadInput, match="samples: expected '61', got '60'"):
        make(made.folder, 61)


def test_other_folders_are_refused(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match=r"fingerprint.json: missing"):
        Cache.open(tmp_path, FINGERPRINT, Inputs)
    (tmp_path / "thesis.tex").write_text("do not lose this")
    with pytest.raises(BadInput, match=r"thesis.tex.*choose another folder"):
        make(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.tex"]


def test_inputs_of_another_policy_are_refused(made: Cache) -> None:
    @dataclass(frozen=True)
    class Features:
        now: Tensor

    with pytest.raises(BadInput, match=r"the policy wants .*inputs.now"):
        Cache.open(made.folder, FINGERPRINT, Features)


def test_damage_is_named(tmp_path: Path) -> None:
    cache = make(tmp_path, 20)
    shard = tmp_path / "shard-00000008.safetensors"
    whole = shard.read_bytes()
    shard.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    with pytest.raises(BadInput, match=r"shard-00000008.safetensors: checksum"):
        cache.verify()
    shard.write_bytes(whole[:-40])
    with pytest.raises(BadInput, match=r"shard-00000008.safetensors: expected \d+ bytes .* encode again"):
        Cache.open(tmp_path, FINGERPRINT, Inputs)
    shard.unlink()
    with pytest.raises(BadInput, match=r"shard-00000008.safetensors: missing"):
        Cache.open(tmp_path, FINGERPRINT, Inputs)
    shard.with_suffix(".json").write_text("{")
    with pytest.raises(BadInput, match=r"shard-00000008.json: truncated"):
        Cache.open(tmp_path, FINGERPRINT, Inputs)
    shard.with_suffix(".json").unlink()
    with pytest.raises(BadInput, match=r"1 of 3 shards are not encoded yet.*shard-00000008"):
        Cache.open(tmp_path, FINGERPRINT, Inputs)
    assert same(make(tmp_path, 20).batch(range(20)), cache_of(20).batch(range(20)))
    assert shard.read_bytes() == whole


def cache_of(samples: int) -> Fresh:
    return Fresh(TinyClips(samples), TinyPolicy(), CPU)


def start(folder: Path, seconds: float, count: int) -> list[subprocess.Popen[str]]:
    """`count` processes that begin to encode at the same time."""
    command = [sys.executable, "-m", "tests.data.encode_process", str(folder), str(seconds)]
    pipe = subprocess.PIPE
    processes = [
        subprocess.Popen(command, cwd=ROOT, stdin=pipe, stdout=pipe, text=True) for _ in range(count)
    ]
    for process in processes:
        assert process.stdout is not None and process.stdout.readline() == "ready\n"
    for process in processes:
        assert process.stdin is not None
        process.stdin.write("go\n")
        process.stdin.flush()
    return processes


def test_killed_encoding_goes_on_where_it_was(tmp_path: Path) -> None:
    (process,) = start(tmp_path, 0.2, count=1)
    claim = tmp_path / "shard-00000016.claim-0"
    while not claim.exists():
        assert process.poll() is None
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert claim.exists()
    (tmp_path / "shard-00000016.safetensors.elsewhere-1.tmp").write_bytes(b"half a shard")
    finished = sorted(tmp_path.glob("shard-*.json"))
    assert len(finished) == 2
    before = [path.stat().st_mtime_ns for path in finished]

    assert same(make(tmp_path).batch(range(SAMPLES)), cache_of(SAMPLES).batch(range(SAMPLES)))
    assert [path.stat().st_mtime_ns for path in finished] == before
    assert not [path for path in tmp_path.iterdir() if "claim" in path.name or path.suffix == ".tmp"]


def test_two_processes_share_the_work(tmp_path: Path) -> None:
    encoded = []
    for process in start(tmp_path, 0.15, count=2):
        out, _ = process.communicate(timeout=60)
        assert process.returncode == 0
        encoded.append([int(line.split()[1]) for line in out.splitlines() if line.startswith("sample")])
    assert sorted(encoded[0] + encoded[1]) == list(range(SAMPLES)), "every sample once"
    assert encoded[0] and encoded[1]
    cache = Cache.open(tmp_path, FINGERPRINT, Inputs)
    cache.verify()
    assert same(cache.batch(range(SAMPLES)), cache_of(SAMPLES).batch(range(SAMPLES)))


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 128 KiB."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=128k", "tmpfs", str(disk)],
        capture_output=True,
        text=True,
        check=False,
    )
    if mount.returncode:
        pytest.skip(f"needs a tmpfs mount: {mount.stderr.strip()}")
    yield disk
    subprocess.run(["umount", str(disk)], check=True)


def test_a_full_disk_is_explained_and_loses_nothing(small_disk: Path) -> None:
    ballast = small_disk.parent / "disk" / "ballast.tmp"
    ballast.write_bytes(bytes(80_000))
    with pytest.raises(
        BadInput, match=r"the disk is full .* MB still needed\); (\d+) of 8 shards are finished"
    ) as caught:
        make(small_disk)
    assert str(small_disk) in str(caught.value)
    finished = list(small_disk.glob("shard-*.json"))
    assert 0 < len(finished) < 8
    assert not list(small_disk.glob("shard-*.tmp")) and not list(small_disk.glob("*claim*"))
    ballast.unlink()
    assert same(make(small_disk).batch(range(SAMPLES)), cache_of(SAMPLES).batch(range(SAMPLES)))


def owner(folder: Path, host: str, pid: int, started: str, age: float) -> None:
    path = folder / "job.claim-0"
    path.write_text(json.dumps({"host": host, "pid": pid, "started": started}))
    os.utime(path, (time.time() - age,) * 2)


def test_claims_live_and_die_with_their_owner(tmp_path: Path) -> None:
    first = Claim.take(tmp_path, "job")
    assert first is not None and first.held()
    assert Claim.take(tmp_path, "job") is None
    first.release(done=False)
    assert not list(tmp_path.iterdir())

    host = os.uname().nodename
    owner(tmp_path, "elsewhere", os.getpid(), "1", age=60)
    assert Claim.take(tmp_path, "job", stale_after=600) is None
    owner(tmp_path, "elsewhere", os.getpid(), "1", age=700)
    second = Claim.take(tmp_path, "job", stale_after=600)
    assert second is not None and second.generation == 1
    second.release(done=True)
    assert not list(tmp_path.iterdir())

    owner(tmp_path, host, os.getpid(), "another start of a process with this number", age=0)
    third = Claim.take(tmp_path, "job")
    assert third is not None and third.generation == 1


def test_a_lost_claim_is_noticed(tmp_path: Path) -> None:
    claim = Claim.take(tmp_path, "job")
    assert claim is not None
    os.utime(claim.path, (0, 0))
    claim.refresh()
    assert time.time() - claim.path.stat().st_mtime < 60
    (tmp_path / "job.claim-1").write_text("{}")
    assert not claim.held()
