"""The latent cache: what a policy's frozen half makes of every sample, computed once and kept on disk.

A folder of shards (data/shards.py, 512 samples each) and `fingerprint.json` that says what the latents depend on.
Actions, pads, embodiments and ids are stored too: training from a cache touches no video. A shard without its manifest
does not exist. Does not know what the fields mean, nor what belongs in the fingerprint: policy and caller say so.
"""

from __future__ import annotations

import json
import os
import re
from collections import OrderedDict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from threading import Lock
from time import sleep
from typing import Any

import torch
from torch import Tensor
from wamkit_client.types import BadInput

from wamkit.data.claims import Claim, claimed_jobs
from wamkit.data.order import Order
from wamkit.data.samples import STATES, Encoded, Samples, read_ahead
from wamkit.data.shards import INPUTS, OTHERS, Content, Manifest, Shard, digest, samples_of, shards_of
from wamkit.data.shared import Row
from wamkit.io.files import NO_SPACE, create_file, disk_full
from wamkit.io.progress import Advance, bar
from wamkit.io.records import read_record
from wamkit.io.tensors import read_tensors

FORMAT = "1"
FINGERPRINT = "fingerprint.json"
SHARD, BATCH = 512, 32
"""Samples of a shard, and of what is encoded together."""
OPEN_SHARDS = 1024
SHORTEST_PAUSE, LONGEST_PAUSE = 0.25, 5.0
"""Seconds between two looks at the shards of other processes; each pause is twice the one before."""


def fill(
    source: Samples,
    folder: Path,
    fingerprint: Mapping[str, str],
    *,
    work: str = "encode",
    shard_size: int = SHARD,
    batch_size: int = BATCH,
) -> None:
    """Fill `folder` with all samples of `source`; finished shards are kept, so an interrupted run goes on.

    Several processes, also on several machines, may work on one folder: they share the shards, and each
    returns when the cache is complete.
    fingerprint: everything the latents depend on, by name (codec, canvas, window, dataset revision, ...).
    work: what the progress bar calls it.
    Raises BadInput where `folder` holds something else or a cache of another fingerprint, or when the disk is
    full (finished shards are kept).
    """
    with filling(folder, len(source), fingerprint, shard_size) as shards:
        _fill(source, shards, folder, work, batch_size)


@contextmanager
def filling(
    folder: Path, samples: int, fingerprint: Mapping[str, str], shard_size: int
) -> Iterator[list[Shard]]:
    """The shards of a cache, finished or not. BadInput as of `fill`."""
    folder.mkdir(parents=True, exist_ok=True)
    own = {"format": FORMAT, "samples": str(samples), "shard_size": str(shard_size)}
    try:
        _settle_fingerprint(folder, own | dict(fingerprint))
        yield list(shards_of(folder, samples, shard_size))
    except OSError as error:
        if error.errno not in NO_SPACE:
            raise
        raise _full(folder, shards_expected=-(-samples // shard_size)) from error


def _fill(source: Samples, shards: Iterable[Shard], folder: Path, work: str, batch_size: int) -> None:
    # Processes share nothing but the folder, and talk through file names: a manifest means done, a claim means taken.
    # One listing per round answers both for all shards; a request for each would be slow on object stores.
    names = frozenset(os.listdir(folder))
    left = [shard for shard in shards if not shard.finished(names)]
    pause = SHORTEST_PAUSE
    with bar(work, len(source), "clips", len(source) - _samples(left), {"clips": 1}) as advance:
        while left:
            # The listing may be out of date. That costs a failed claim, or a claimed shard that turns out to be written
            # (_write_shard); only the creation of a claim decides, and it succeeds for one process.
            if job := take(left, names):
                pause = SHORTEST_PAUSE
                if _write_shard(*job, source, names, batch_size, advance):
                    left.remove(job[0])
            else:
                advance(0, f"waiting for {len(left)} shards of another process")
                sleep(pause)
                pause = min(2 * pause, LONGEST_PAUSE)
            names = frozenset(os.listdir(folder))
            advance(_samples(shard for shard in left if shard.finished(names)))
            left = [shard for shard in left if not shard.finished(names)]


def take(shards: Iterable[Shard], names: frozenset[str]) -> tuple[Shard, Claim] | None:
    """A shard that nobody has, the first of them, or else one whose owner died. None while others have them all."""
    claims = claimed_jobs(names)
    # Free shards first: to know whether an owner died, its claim has to be opened.
    for shard in sorted(shards, key=lambda shard: shard.name in claims):
        if claim := Claim.take(shard.folder, shard.name, claims.get(shard.name, -1)):
            return shard, claim
    return None


def _write_shard(
    shard: Shard, claim: Claim, source: Samples, names: frozenset[str], batch_size: int, advance: Advance
) -> bool:
    """Write `shard`. False where another process did, since the folder was listed or because this one seemed dead."""
    written = False
    try:
        # Another process may have finished it between our listing and our claim.
        if not shard.manifest.exists():
            shard.clear(names)
            content = Content()
            for samples in batches(shard, source, batch_size):
                content.add(samples)
                claim.refresh()
                advance(len(samples.ids))
            # The claim is lost where this process slept so long that it seemed dead. If that happens only now, both
            # rename whole files into place; if theirs differ in a last bit, the manifest's checksum tells.
            if written := claim.held():
                shard.write(content)
            else:
                advance(-shard.count)
    finally:
        claim.release(done=shard.manifest.exists())
    return written


def batches(shard: Shard, source: Samples, batch_size: int) -> Iterator[Encoded]:
    """The samples of a shard, in order."""
    end = shard.first + shard.count
    firsts = range(shard.first, end, batch_size)
    return read_ahead(source, [range(first, min(first + batch_size, end)) for first in firsts])


def _samples(shards: Iterable[Shard]) -> int:
    return sum(shard.count for shard in shards)


def _settle_fingerprint(folder: Path, expected: dict[str, str]) -> None:
    path = folder / FINGERPRINT
    if not path.exists():
        unexpected = [entry.name for entry in folder.iterdir() if entry.suffix != ".tmp" and entry != path]
        if unexpected and not path.exists():
            raise BadInput(
                f"{folder}: expected an empty folder or a latent cache, found {unexpected[0]!r} "
                f"but no {FINGERPRINT}; choose another folder"
            )
        create_file(path, json.dumps(expected, indent=1).encode())
    for _ in range(round(LONGEST_PAUSE / SHORTEST_PAUSE)):
        if path.stat().st_size:
            break
        sleep(SHORTEST_PAUSE)  # another process creates it at this moment (create_file)
    _compare(folder, expected, read_fingerprint(folder))


def read_fingerprint(folder: Path) -> dict[str, str]:
    """What the latents in `folder` depend on. BadInput where there is no cache."""
    found = read_record(
        folder / FINGERPRINT, dict, "`wamkit encode` makes a latent cache, in a folder that is new"
    )
    return {str(name): str(value) for name, value in found.items()}


def _compare(folder: Path, expected: Mapping[str, str], got: Mapping[str, str]) -> None:
    """BadInput naming the fields of `expected` and `got` that differ."""
    absent = "(absent)"
    different = [
        f"{name}: expected {expected.get(name, absent)!r}, got {got.get(name, absent)!r}"
        for name in sorted(expected.keys() | got.keys())
        if expected.get(name, absent) != got.get(name, absent)
    ]
    if different:
        raise BadInput(
            f"{folder}: this latent cache was made for something else: {'; '.join(different)}. "
            "Encode into another folder, delete this one, or use the settings it was made with."
        )


def _full(folder: Path, shards_expected: int) -> BadInput:
    finished = [
        path.stat().st_size
        for path in folder.glob("shard-*.safetensors")
        if path.with_suffix(".json").exists()
    ]
    needed = round(sum(finished) / max(len(finished), 1) * (shards_expected - len(finished)))
    return disk_full(folder, needed, f"{len(finished)} of {shards_expected} shards are finished and kept")


@dataclass(frozen=True)
class Read:
    """Samples without what they have in common, and where that lies: shard and position in it, of each."""

    own: Encoded
    places: tuple[tuple[int, int], ...]


class Cache:
    """A finished latent cache, read in any order from any thread. Shards are memory-mapped: memory use is the page
    cache's and shrinks when others need it. A shard's checksum is compared before its first sample is given out.
    `ids` and `embodiments` are per sample.
    """

    def __init__(self, folder: Path, shard_size: int, manifests: Sequence[Manifest], hz: float) -> None:
        self.folder, self.hz = folder, hz
        self.ids = tuple(name for manifest in manifests for name in manifest.ids)
        self.embodiments = tuple(name for manifest in manifests for name in manifest.embodiments)
        self._shard_size = shard_size
        self._manifests = manifests
        self._open: OrderedDict[int, dict[str, Tensor]] = OrderedDict()
        self._verified: set[int] = set()
        self._keys: dict[tuple[str, int, int], bytes] = {}
        self._lock = Lock()

    @classmethod
    def open(cls, folder: Path, expected_fingerprint: Mapping[str, str], hz: float) -> Cache:
        """BadInput where the cache is missing, unfinished, damaged, or made for something else (naming what).

        hz: control steps per second of the dataset.
        """
        found = read_fingerprint(folder)
        own = {name: found.get(name, "(absent)") for name in ("samples", "shard_size")}
        _compare(folder, {"format": FORMAT} | own | dict(expected_fingerprint), found)
        samples, shard_size = (_count(folder, name, value) for name, value in own.items())
        _expect_finished(folder, samples, shard_size)
        manifests = [shard.read_manifest() for shard in shards_of(folder, samples, shard_size)]
        for shard, manifest in zip(shards_of(folder, samples, shard_size), manifests, strict=True):
            if manifest.shapes != manifests[0].shapes:
                raise BadInput(
                    f"{shard.manifest}: holds {manifest.shapes}, the first shard {manifests[0].shapes}; {shard.remedy}"
                )
        return cls(folder, shard_size, manifests, hz)

    @property
    def order(self) -> Order:
        """Every sample once per epoch."""
        return Order((len(self),), (1.0,))

    @property
    def reader(self) -> Cache:
        """Itself."""
        return self

    def __reduce__(self) -> tuple[Any, ...]:
        return Cache, (self.folder, self._shard_size, self._manifests, self.hz)

    def __len__(self) -> int:
        return len(self.ids)

    def __call__(self, indices: Sequence[int], seeds: Sequence[int]) -> Read:
        """These samples, bit-equal to what the encoder made of them. Seeds are not used: nothing is augmented."""
        places = tuple(divmod(index, self._shard_size) for index in indices)
        names = [name for name in self._manifests[0].shapes if name not in self._shared]
        columns = {name: torch.stack([self._row(name, *place)[1] for place in places]) for name in names}
        embodiments = tuple(self.embodiments[index] for index in indices)
        ids = tuple(self.ids[index] for index in indices)
        return Read(samples_of(columns, embodiments, ids, self.hz), places)

    def finish(self, read: Read) -> Encoded:
        """With what samples have in common, which is not copied until it is wanted."""
        shared = {
            name.removeprefix(INPUTS): tuple(self._common(name, *place) for place in read.places)
            for name in self._shared
        }
        return replace(read.own, shared=shared)

    def verify(self) -> None:
        """Read every shard and compare its checksum. BadInput naming the first that differs."""
        for number, manifest in enumerate(self._manifests):
            self._shard(number).verify(manifest)

    @cached_property
    def _shared(self) -> tuple[str, ...]:
        """Fields of which samples have rows in common, as the first shard tells."""
        tensors = self._tensors(0)
        counts = {name: len(tensors[f"rows.{name}"]) for name in self._manifests[0].shapes}
        own = {*OTHERS, *(f"{INPUTS}{name}" for name in STATES)}
        return tuple(n for n, count in counts.items() if n not in own and 2 * count <= self._shard(0).count)

    def _common(self, name: str, number: int, position: int) -> Row:
        row, data = self._row(name, number, position)
        place = name, number, row
        if place not in self._keys:  # the same row lies in many shards
            self._keys[place] = digest(data)
        return Row(self._keys[place], lambda: data)

    def _row(self, name: str, number: int, position: int) -> tuple[int, Tensor]:
        """Its number in the shard's table, and itself: a part of the file."""
        tensors = self._tensors(number)
        row = int(tensors[f"index.{name}"][position])
        return row, tensors[f"rows.{name}"][row]

    def _tensors(self, number: int) -> dict[str, Tensor]:
        with self._lock:
            if number not in self._open:
                shard = self._shard(number)
                if number not in self._verified:
                    shard.verify(self._manifests[number])
                    self._verified.add(number)
                self._open[number] = read_tensors(shard.tensors)
                if len(self._open) > OPEN_SHARDS:
                    self._open.popitem(last=False)
            self._open.move_to_end(number)
            return self._open[number]

    def _shard(self, number: int) -> Shard:
        first = number * self._shard_size
        return Shard(self.folder, first, min(self._shard_size, len(self) - first))


def _count(folder: Path, name: str, value: str) -> int:
    if not re.fullmatch("[1-9][0-9]{0,15}", value):
        raise BadInput(
            f"{folder / FINGERPRINT}: {name}: expected a number of 1 or more, got {value!r}; restore the file, "
            "or encode into another folder"
        )
    return int(value)


def _expect_finished(folder: Path, samples: int, shard_size: int) -> None:
    """BadInput where shards are missing, or there that no shard of a cache of this size is."""
    names = frozenset(os.listdir(folder))
    there = [int(found[1]) for name in names if (found := re.fullmatch(r"shard-([0-9]{8,})\.json", name))]
    unexpected = [first for first in there if first >= samples or first % shard_size]
    if unexpected:
        raise BadInput(
            f"{folder / FINGERPRINT}: says {samples} samples in shards of {shard_size}, and the folder has a shard "
            f"from sample {min(unexpected)} on; restore the file, or encode into another folder"
        )
    unfinished = next((s.name for s in shards_of(folder, samples, shard_size) if not s.finished(names)), "")
    if unfinished:
        expected = -(-samples // shard_size)
        raise BadInput(
            f"{folder}: {expected - len(there)} of {expected} shards are not encoded yet "
            f"(first {unfinished}); run the encode command again, it goes on where it stopped"
        )
