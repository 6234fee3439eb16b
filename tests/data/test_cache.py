"""The latent cache: equal to fresh encoding, whole after any interruption, refused where it does not fit."""

from __future__ import annotations

import errno
import io
import json
import os
import shutil
import signal
import subprocess
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import closing
from dataclasses import fields, replace
from itertools import islice
from pathlib import Path
from types import ModuleType

import pytest
import torch
from wamkit_client.types import BadInput

from tests.data.encode_process import BATCH_SIZE, FINGERPRINT, SAMPLES, SHARD_SIZE
from tests.processes import Running
from tests.train.tiny import TASKS, TinyPolicy, fresh
from wamkit.data.cache import Cache, fill
from wamkit.data.claims import Claim, claimed_jobs
from wamkit.data.loader import batches
from wamkit.data.samples import Encoded, read_ahead, read_all
from wamkit.data.shards import Table
from wamkit.io.files import sha256
from wamkit.io.tensors import read_tensors
from wamkit.tree import tree_leaves
from wamkit.types import Batch

ROOT = Path(__file__).parents[2]
HZ = 10.0


def make(folder: Path, samples: int = SAMPLES) -> Cache:
    fill(fresh(samples), folder, FINGERPRINT, shard_size=SHARD_SIZE, batch_size=BATCH_SIZE)
    return Cache.open(folder, FINGERPRINT, HZ)


def same(one: Encoded | Batch, two: Encoded | Batch) -> bool:
    ours, theirs = ({field.name: getattr(each, field.name) for field in fields(each)} for each in (one, two))
    leaves = [tree_leaves({n: x for n, x in of.items() if not isinstance(x, tuple)}) for of in (ours, theirs)]
    named = all(ours[name] == theirs[name] for name in ours if isinstance(ours[name], tuple))
    equal = (
        a.dtype == b.dtype and torch.equal(a, b) for a, b in zip(*(x.values() for x in leaves), strict=True)
    )
    return named and leaves[0].keys() == leaves[1].keys() and all(equal)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Cache:
    return make(tmp_path_factory.mktemp("cache") / "latents")


def test_a_cached_batch_is_bit_equal_to_a_fresh_one(made: Cache) -> None:
    assert len(made) == len(fresh(SAMPLES))
    rows = TinyPolicy().embodiment
    with (
        closing(batches(made, rows, 7, seed=5)) as cached,
        closing(batches(fresh(SAMPLES), rows, 7, seed=5)) as now,
    ):
        for one, two in islice(zip(cached, now, strict=True), 20):
            assert same(one, two)


def test_batches_that_are_read_ahead_are_the_same(made: Cache) -> None:
    """In order, also the last, smaller one; what cannot be read is reported where it is due."""
    batches_of = [range(0, 7), range(7, 14), range(14, 21), range(21, 23), [3]]
    for source in (made, fresh(SAMPLES)):
        found = list(read_ahead(source, batches_of))
        assert all(same(one, read_all(source, own)) for one, own in zip(found, batches_of, strict=True))
    reading = read_ahead(made, [range(3), [2 * SAMPLES]])
    assert len(next(reading).ids) == 3
    with pytest.raises(IndexError):
        next(reading)


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
        lambda: Cache.open(made.folder, other, HZ),
        lambda: fill(fresh(SAMPLES), made.folder, other, shard_size=SHARD_SIZE),
    ):
        with pytest.raises(BadInput, match=r"codec: expected 'wan2.1', got 'tiny'") as caught:
            attempt()
        assert "window" not in str(caught.value)
    with pytest.raises(BadInput, match=r"pooling: expected '2x2', got '\(absent\)'"):
        Cache.open(made.folder, FINGERPRINT | {"pooling": "2x2"}, HZ)
    with pytest.raises(BadInput, match=r"window: expected '\(absent\)', got '3 frames'"):
        Cache.open(made.folder, {"codec": "tiny"}, HZ)
    with pytest.raises(BadInput, match="samples: expected '61', got '60'"):
        make(made.folder, 61)


def test_other_folders_are_refused(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match=r"fingerprint.json: missing"):
        Cache.open(tmp_path, FINGERPRINT, HZ)
    (tmp_path / "thesis.tex").write_text("do not lose this")
    with pytest.raises(BadInput, match=r"thesis.tex.*choose another folder"):
        make(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.tex"]


def test_shards_hold_the_same_columns(made: Cache, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(made.folder, tmp_path / "cache"))
    path = folder / "shard-00000008.json"
    manifest = json.loads(path.read_text())
    manifest["shapes"]["inputs.present"] = [1, 2, 3]
    path.write_text(json.dumps(manifest))
    with pytest.raises(BadInput, match=r"shard-00000008.json: holds .*encode again"):
        Cache.open(folder, FINGERPRINT, HZ)


def test_damage_is_named(tmp_path: Path) -> None:
    cache = make(tmp_path, 20)
    shard = tmp_path / "shard-00000008.safetensors"
    whole = shard.read_bytes()
    shard.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    with pytest.raises(BadInput, match=r"shard-00000008.safetensors: its bytes have changed"):
        cache.verify()
    shard.write_bytes(whole[:-40])
    with pytest.raises(BadInput, match=r"shard-00000008.safetensors: expected \d+ bytes.* encode again"):
        Cache.open(tmp_path, FINGERPRINT, HZ)
    shard.unlink()
    with pytest.raises(BadInput, match=r"shard-00000008.safetensors: missing"):
        Cache.open(tmp_path, FINGERPRINT, HZ)
    shard.with_suffix(".json").write_text("{")
    with pytest.raises(BadInput, match=r"shard-00000008.json: truncated"):
        Cache.open(tmp_path, FINGERPRINT, HZ)
    shard.with_suffix(".json").unlink()
    with pytest.raises(BadInput, match=r"1 of 3 shards are not encoded yet.*shard-00000008"):
        Cache.open(tmp_path, FINGERPRINT, HZ)
    assert same(read_all(make(tmp_path, 20), range(20)), read_all(fresh(20), range(20)))
    assert shard.read_bytes() == whole


@pytest.mark.parametrize("workers", [0, 2])
def test_a_worker_sends_samples_and_not_their_shards(tmp_path: Path, workers: int) -> None:
    """Fails when what is read are views of the memory map: a worker would send all rows of the shard."""
    cache = make(tmp_path, 20)
    read = cache.reader([3, 17, 4], [0, 0, 0]).own
    assert "context" not in read.inputs
    for column in (read.actions, read.frame_is_pad, *tree_leaves(read.inputs).values()):
        assert column.untyped_storage().nbytes() == column.numel() * column.element_size()
    with closing(batches(cache, TinyPolicy().embodiment, 8, seed=5, workers=workers)) as stream:
        batch = next(stream)
    order = replace(cache.order, seed=5)
    expected = read_all(cache, [order.at(place) for place in range(8)])
    assert batch.ids == expected.ids and torch.equal(batch.inputs["present"], expected.inputs["present"])


def test_a_flipped_bit_is_found_when_its_shard_is_first_read(tmp_path: Path) -> None:
    make(tmp_path, 20)
    shard = tmp_path / "shard-00000008.safetensors"
    data = bytearray(shard.read_bytes())
    data[-3] ^= 4
    shard.write_bytes(data)
    cache = Cache.open(tmp_path, FINGERPRINT, HZ)
    assert same(read_all(cache, range(8)), read_all(fresh(20), range(8)))
    with (
        closing(batches(cache, TinyPolicy().embodiment, 20, seed=5)) as stream,
        pytest.raises(BadInput, match=r"shard-00000008.safetensors: its bytes have changed.*encode again"),
    ):
        next(stream)
    for path in tmp_path.glob("shard-00000008.*"):  # what the message says
        path.unlink()
    assert same(read_all(make(tmp_path, 20), range(20)), read_all(fresh(20), range(20)))


def test_a_shard_is_hashed_once_however_often_it_is_opened(
    made: Cache, monkeypatch: pytest.MonkeyPatch
) -> None:
    hashed = []

    def counted(path: Path) -> str:
        hashed.append(path)
        return sha256(path)

    monkeypatch.setattr("wamkit.data.shards.sha256", counted)
    monkeypatch.setattr("wamkit.data.cache.OPEN_SHARDS", 2)
    cache = Cache.open(made.folder, FINGERPRINT, HZ)
    assert hashed == []
    for _ in range(2):
        read_all(cache, range(SAMPLES))
    assert len(hashed) == len(set(hashed)) == 8


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"samples": "abc"}, r"fingerprint.json: samples: expected a number of 1 or more, got 'abc'"),
        ({"samples": "-60"}, r"fingerprint.json: samples: .*got '-60'"),
        ({"samples": "9" * 40}, r"fingerprint.json: samples: "),
        ({"samples": "1" + "0" * 15}, r"125000000000000 shards are not encoded yet"),
        ({"samples": "50"}, r"fingerprint.json: says 50 samples in shards of 8, and .* from sample 56 on"),
        ({"samples": "58"}, r"shard-00000056.json: expected 2 samples from 56 on, got 4 from 56"),
        ({"shard_size": "0"}, r"fingerprint.json: shard_size: expected a number of 1 or more, got '0'"),
        ({"shard_size": "16"}, r"fingerprint.json: says 60 samples in shards of 16, and .* from sample 8 on"),
        ({"format": [1, 2]}, r"format: expected '1', got '\[1, 2\]'"),
    ],
)
def test_a_fingerprint_that_makes_no_sense_is_one_message(
    made: Cache, tmp_path: Path, changes: dict[str, object], message: str
) -> None:
    folder = Path(shutil.copytree(made.folder, tmp_path / "cache"))
    path = folder / "fingerprint.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))
    with pytest.raises(BadInput, match=message):
        Cache.open(folder, FINGERPRINT, HZ)
    with pytest.raises(BadInput, match=rf"made for something else: {next(iter(changes))}: expected"):
        make(folder)
    for content in (b"\xff\x00", b"[1]"):
        path.write_bytes(content)
        with pytest.raises(BadInput, match=r"fingerprint.json: "):
            Cache.open(folder, FINGERPRINT, HZ)


def test_a_manifest_that_makes_no_sense_is_one_message(made: Cache, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(made.folder, tmp_path / "cache"))
    path = folder / "shard-00000008.json"
    whole = json.loads(path.read_text())
    damages: list[dict[str, object]] = [
        {"first": 16},
        {"ids": 3},
        {"bytes": "many"},
        {"colour": 1},
        {"embodiments": ["arm"]},
    ]
    for damage in damages:
        path.write_text(json.dumps(whole | damage))
        with pytest.raises(BadInput, match=r"shard-00000008.json: .*encode again"):
            Cache.open(folder, FINGERPRINT, HZ)


def start(folder: Path, seconds: float, at: str, number: signal.Signals) -> Running:
    words = ["python", "-m", "tests.data.encode_process", str(folder), str(seconds)]
    return Running(words, ROOT, at, number)


def test_killed_encoding_goes_on_where_it_was(tmp_path: Path) -> None:
    process = start(tmp_path, 0.0, "*/shard-00000016.safetensors*", signal.SIGKILL)
    claim = tmp_path / "shard-00000016.claim-0"
    assert process.end().status == -signal.SIGKILL
    assert claim.exists()
    (tmp_path / "shard-00000016.safetensors.elsewhere-1.tmp").write_bytes(b"half a shard")
    finished = sorted(tmp_path.glob("shard-*.json"))
    assert len(finished) == 2
    before = [path.stat().st_mtime_ns for path in finished]

    assert same(read_all(make(tmp_path), range(SAMPLES)), read_all(fresh(SAMPLES), range(SAMPLES)))
    assert [path.stat().st_mtime_ns for path in finished] == before
    assert not [path for path in tmp_path.iterdir() if "claim" in path.name or path.suffix == ".tmp"]


def test_two_processes_share_the_work(tmp_path: Path) -> None:
    """Both begin at once, each about to claim the first shard."""
    encoded = []
    processes = [start(tmp_path, 0.1, "*/shard-00000000.claim-0", signal.SIGSTOP) for _ in range(2)]
    for process in processes:
        process.until_stopped()
    for process in processes:
        process.send(signal.SIGCONT)
    for process in processes:
        done = process.end()
        assert done.status == 0, done.err
        encoded.append([int(line.split()[1]) for line in done.out.splitlines() if line.startswith("sample")])
    assert sorted(encoded[0] + encoded[1]) == list(range(SAMPLES)), "every sample once"
    assert encoded[0] and encoded[1]
    cache = Cache.open(tmp_path, FINGERPRINT, HZ)
    cache.verify()
    assert same(read_all(cache, range(SAMPLES)), read_all(fresh(SAMPLES), range(SAMPLES)))


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
    assert same(read_all(make(small_disk), range(SAMPLES)), read_all(fresh(SAMPLES), range(SAMPLES)))


def owner(folder: Path, host: str, pid: int, started: str, age: float) -> None:
    path = folder / "job.claim-0"
    path.write_text(json.dumps({"host": host, "pid": pid, "started": started}))
    os.utime(path, (time.time() - age,) * 2)


def take(folder: Path, stale_after: float = 1800) -> Claim | None:
    """The claim on "job" after a look at the folder."""
    newest = claimed_jobs(path.name for path in folder.iterdir()).get("job", -1)
    return Claim.take(folder, "job", newest, stale_after)


def test_a_claim_that_cannot_be_read_yet_is_anothers_until_it_is_stale(tmp_path: Path) -> None:
    claim = tmp_path / "job.claim-0"
    for content in ("", '{"host": "a', "{}", "[]"):
        claim.write_text(content)
        assert take(tmp_path) is None
        os.utime(claim, (time.time() - 2000,) * 2)
        second = take(tmp_path)
        assert second is not None and second.generation == 1
        second.release(done=True)
        assert not list(tmp_path.iterdir())


def test_waiting_for_others_costs_a_listing_and_a_look_per_claim(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, claims, looks, pauses = tmp_path / "cache", 8, Counter[str](), list[float]()
    make(folder)
    for shard in folder.glob("shard-*.json"):  # as if another host were encoding all of them
        shard.rename(tmp_path / shard.name)
        text = json.dumps({"host": "elsewhere", "pid": 1, "started": "1"})
        (folder / f"{shard.stem}.claim-0").write_text(text)

    def counted(module: ModuleType, name: str) -> None:
        real = getattr(module, name)

        def look(path: object, *rest: object, **options: object) -> object:
            looks[name] += str(folder) in str(path)
            return real(path, *rest, **options)

        monkeypatch.setattr(module, name, look)

    def rest(seconds: float) -> None:
        pauses.append(seconds)
        if len(pauses) == 7:
            for shard in tmp_path.glob("shard-*.json"):
                shard.rename(folder / shard.name)
                (folder / f"{shard.stem}.claim-0").unlink()
        elif len(pauses) == 1:
            looks.clear()

    monkeypatch.setattr("wamkit.data.cache.sleep", rest)
    for module, name in ((os, "stat"), (os, "scandir"), (os, "listdir"), (os, "link"), (io, "open")):
        counted(module, name)
    fill(fresh(SAMPLES), folder, FINGERPRINT, shard_size=SHARD_SIZE, batch_size=BATCH_SIZE)
    assert pauses == [0.25, 0.5, 1, 2, 4, 5, 5]
    polls = len(pauses) - 1
    assert looks["listdir"] + looks["scandir"] == polls + 1
    assert sum(looks.values()) <= polls * (1 + claims) + 1 + claims  # and those of the end


def test_a_fingerprint_that_another_process_is_writing_is_waited_for(
    made: Cache, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    content = (made.folder / "fingerprint.json").read_text()
    path = tmp_path / "fingerprint.json"
    path.touch()  # as create_file shows it where there are no hard links
    monkeypatch.setattr("wamkit.data.cache.sleep", lambda seconds: path.write_text(content))
    assert len(make(tmp_path)) == SAMPLES
    path.write_text("")
    monkeypatch.setattr("wamkit.data.cache.sleep", lambda seconds: None)
    with pytest.raises(BadInput, match=r"fingerprint.json: truncated or not JSON"):
        make(tmp_path)


@pytest.mark.parametrize("code", [errno.EPERM, errno.ENOTSUP, errno.ENOSYS, errno.EMLINK, errno.EXDEV])
def test_a_cache_is_made_where_there_are_no_hard_links(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int
) -> None:
    def link(source: Path, name: Path) -> None:
        raise OSError(code, os.strerror(code), name)

    monkeypatch.setattr(os, "link", link)
    assert same(read_all(make(tmp_path, 20), range(20)), read_all(fresh(20), range(20)))
    assert len(list(tmp_path.iterdir())) == 7, "three shards, their manifests, the fingerprint"


def test_claims_live_and_die_with_their_owner(tmp_path: Path) -> None:
    first = Claim.take(tmp_path, "job")
    assert first is not None and first.held()
    assert Claim.take(tmp_path, "job") is None and take(tmp_path) is None
    first.release(done=False)
    assert not list(tmp_path.iterdir())

    host = os.uname().nodename
    owner(tmp_path, "elsewhere", os.getpid(), "1", age=60)
    assert take(tmp_path, stale_after=600) is None
    owner(tmp_path, "elsewhere", os.getpid(), "1", age=700)
    second = take(tmp_path, stale_after=600)
    assert second is not None and second.generation == 1
    second.release(done=True)
    assert not list(tmp_path.iterdir())

    owner(tmp_path, host, os.getpid(), "another start of a process with this number", age=0)
    third = take(tmp_path)
    assert third is not None and third.generation == 1


def test_a_lost_claim_is_noticed(tmp_path: Path) -> None:
    claim = Claim.take(tmp_path, "job")
    assert claim is not None
    os.utime(claim.path, (0, 0))
    claim.refresh()
    assert time.time() - claim.path.stat().st_mtime < 60
    (tmp_path / "job.claim-1").write_text("{}")
    assert not claim.held()
