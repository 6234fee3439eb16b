"""A latent cache filled by workers that are given its shards."""

from __future__ import annotations

import os
from collections.abc import Hashable
from functools import partial
from pathlib import Path
from threading import Event
from typing import Any

import pytest
from wamkit_client.types import BadInput

from tests.data.encode_process import FINGERPRINT
from tests.train.tiny import fresh
from wamkit.data import cache, filling
from wamkit.data.cache import fill
from wamkit.data.claims import Claim, claimed_jobs
from wamkit.data.filling import fill_by, write_shard
from wamkit.data.shards import Shard
from wamkit.io.jobs import Outcome, kept

SAMPLES, SHARD = 20, 8


@pytest.fixture(autouse=True)
def small_shards(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(filling, "SHARD", SHARD)


class Two:
    """Two workers that do a job when they are asked whether it has ended."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.seen = folder, list[set[str]]()
        self.begun: dict[Hashable, Shard] = {}

    def free(self) -> int:
        return 2 - len(self.begun)

    def begin(self, name: Hashable, *given: Any) -> None:
        number, shard = given
        assert number == 3
        self.begun[name] = shard

    def work(self, shard: Shard) -> None:
        write_shard(shard, fresh(SAMPLES))

    def ended(self, seconds: float) -> list[tuple[Hashable, Outcome]]:
        self.seen.append(set(claimed_jobs(os.listdir(self.folder))))
        return [(name, kept(partial(self.work, self.begun.pop(name)))) for name in list(self.begun)[:1]]


def files(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_it_holds_what_one_process_makes(tmp_path: Path) -> None:
    workers = Two(tmp_path / "given")
    fill_by(workers, 3, SAMPLES, tmp_path / "given", FINGERPRINT, Event())
    fill(fresh(SAMPLES), tmp_path / "alone", FINGERPRINT, shard_size=SHARD)
    assert files(tmp_path / "given") == files(tmp_path / "alone")
    first, second, third = (f"shard-{number:08d}" for number in (0, 8, 16))
    assert workers.seen == [{first, second}, {second, third}, {third}]


def test_shards_of_another_process_are_left_to_it(tmp_path: Path) -> None:
    """It finishes them meanwhile."""

    class Other(Two):
        def ended(self, seconds: float) -> list[tuple[Hashable, Outcome]]:
            found = super().ended(seconds)
            if not found and not theirs.manifest.exists():
                write_shard(theirs, fresh(SAMPLES))
                claim.release(done=True)
            return found

    folder = tmp_path / "given"
    with cache.filling(folder, SAMPLES, FINGERPRINT, SHARD) as shards:
        theirs = shards[1]
    claim = Claim.take(folder, theirs.name)
    assert claim
    workers = Other(folder)
    fill_by(workers, 3, SAMPLES, folder, FINGERPRINT, Event())
    fill(fresh(SAMPLES), tmp_path / "alone", FINGERPRINT, shard_size=SHARD)
    assert files(folder) == files(tmp_path / "alone")


def test_ctrl_c_gives_claims_back(tmp_path: Path) -> None:
    stop = Event()

    class Stopped(Two):
        def ended(self, seconds: float) -> list[tuple[Hashable, Outcome]]:
            stop.set()
            return super().ended(seconds)

    with pytest.raises(KeyboardInterrupt, match="finished shards are kept"):
        fill_by(Stopped(tmp_path), 3, SAMPLES, tmp_path, FINGERPRINT, stop)
    assert sorted(files(tmp_path)) == [
        "fingerprint.json",
        "shard-00000000.json",
        "shard-00000000.safetensors",
    ]


def test_an_error_of_a_worker_gives_claims_back(tmp_path: Path) -> None:
    class Broken(Two):
        def work(self, shard: Shard) -> None:
            raise BadInput(f"{shard.name}: a sample is broken")

    with pytest.raises(BadInput, match="shard-00000000: a sample is broken"):
        fill_by(Broken(tmp_path), 3, SAMPLES, tmp_path, FINGERPRINT, Event())
    assert sorted(files(tmp_path)) == ["fingerprint.json"]
