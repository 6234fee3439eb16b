"""A latent cache filled by workers elsewhere, which see its folder: each is given one shard after the other.

This process holds the claims of the shards that its workers are at, so that they share a cache with processes that
work by themselves (cache.py), and that a shard whose worker is lost is at once given to another.
"""

from __future__ import annotations

import os
import time
from collections.abc import Hashable, Mapping
from pathlib import Path
from threading import Event

from wamkit.data.cache import BATCH, SHARD, batches, filling, take
from wamkit.data.claims import Claim
from wamkit.data.samples import Samples
from wamkit.data.shards import Content, Shard
from wamkit.io.interrupt import stopped
from wamkit.io.jobs import PAUSE, Workers
from wamkit.io.progress import bar

KEPT = "finished shards are kept"
REFRESH_SECONDS = 60.0


def write_shard(shard: Shard, source: Samples) -> None:
    """The job of a worker."""
    content = Content()
    for samples in batches(shard, source, BATCH):
        content.add(samples)
    shard.write(content)


def fill_by(
    workers: Workers, number: int, samples: int, folder: Path, fingerprint: Mapping[str, str], stop: Event
) -> None:
    """As `cache.fill`; a worker's job is given `number`, of the source, and a shard to write.

    KeyboardInterrupt once `stop` is set.
    """
    with filling(folder, samples, fingerprint, SHARD) as shards:
        _fill(workers, number, shards, stop)


def _fill(workers: Workers, number: int, shards: list[Shard], stop: Event) -> None:
    folder = shards[0].folder
    mine: dict[Hashable, tuple[Shard, Claim]] = {}
    names = frozenset(os.listdir(folder))
    left = {shard.name: shard for shard in shards if not shard.finished(names)}
    total = sum(shard.count for shard in shards)
    refreshed = time.monotonic()
    with bar("encode", total, "clips", total - _samples(left), {"clips": 1}) as advance:
        try:
            while left:
                while workers.free() and (job := _begin(workers, number, left, mine, names)):
                    mine[job[0].name] = job
                for name, outcome in workers.ended(PAUSE):
                    outcome()
                    shard, claim = mine.pop(name)
                    claim.release(done=shard.manifest.exists())
                if stop.is_set():
                    raise stopped(KEPT)
                if time.monotonic() - refreshed > REFRESH_SECONDS:
                    refreshed = time.monotonic()
                    for _, claim in mine.values():
                        claim.refresh()
                names = frozenset(os.listdir(folder))
                before = _samples(left)
                left = {name: shard for name, shard in left.items() if not shard.finished(names)}
                waits = "" if mine else f"waiting for {len(left)} shards of another process"
                advance(before - _samples(left), waits)
        finally:
            for shard, claim in mine.values():
                claim.release(done=shard.manifest.exists())


def _begin(
    workers: Workers,
    number: int,
    left: Mapping[str, Shard],
    mine: Mapping[Hashable, object],
    names: frozenset[str],
) -> tuple[Shard, Claim] | None:
    """Give a worker the next shard that nobody has. None where there is none."""
    job = take([shard for name, shard in left.items() if name not in mine], names)
    if job is None:
        return None
    shard, claim = job
    if shard.manifest.exists():  # another process has finished it since the listing
        claim.release(done=True)
        return None
    shard.clear(names)
    workers.begin(shard.name, number, shard)
    return job


def _samples(shards: Mapping[str, Shard]) -> int:
    return sum(shard.count for shard in shards.values())
