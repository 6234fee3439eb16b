"""Datasets -> latent cache on a Ray cluster: every node sees both, and encodes shards on GPUs, else on processors."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path

import torch
from wamkit_client.types import BadInput

from wamkit.cluster.actors import Kind, actors, room
from wamkit.cluster.connect import connected
from wamkit.config import Run
from wamkit.data.cache import FINGERPRINT, SHARD, filling
from wamkit.data.filling import KEPT, fill_by, write_shard
from wamkit.data.shards import Shard
from wamkit.io.differences import differing
from wamkit.io.interrupt import stop_request
from wamkit.stages.run import best_device, cache_folders, encoded_by, fingerprint, to_encode

Prints = Sequence[Mapping[str, str]]


def encode(address: str, run: Run, datasets: Sequence[Path], cache_path: Path) -> None:
    """As stages.run.encode, which may share the work at the same time."""
    sources, encoder = to_encode(run, datasets)
    folders = [folder.absolute() for folder in cache_folders(run, cache_path)]
    prints = [fingerprint(encoder, clips) for clips in sources]
    left = 0
    for clips, folder, expected in zip(sources, folders, prints, strict=True):
        with filling(folder, len(clips), expected, SHARD) as shards:
            left += sum(not shard.manifest.exists() for shard in shards)
    if not left:
        return
    paths = [*(path.absolute() for path in datasets), *(folder / FINGERPRINT for folder in folders)]
    with stop_request(KEPT) as stop, connected(address, paths) as needs:
        resources, count = room()
        device = best_device if "num_gpus" in resources else partial(torch.device, "cpu")
        make = partial(Encoding, run, [path.absolute() for path in datasets], prints, device)
        with actors(Kind(make, needs, resources), min(count, left)) as workers:
            for number, (clips, folder) in enumerate(zip(sources, folders, strict=True)):
                fill_by(workers, number, len(clips), folder, prints[number], stop)


class Encoding:
    """What encodes, on a node. prints: what the latents of each source depend on.

    BadInput where they depend on something else there: it has other datasets or weights.
    """

    def __init__(
        self, run: Run, datasets: Sequence[Path], prints: Prints, device: Callable[[], torch.device]
    ) -> None:
        sources, encoder = to_encode(run, datasets)
        for clips, expected in zip(sources, prints, strict=True):
            for name, here, there in differing(dict(expected), fingerprint(encoder, clips)):
                raise BadInput(
                    f"{clips.dataset.where}: {name} is {there} there and {here} here; give folders that all nodes share"
                )
        self._samples = encoded_by(sources, encoder, device())

    def __call__(self, number: int, shard: Shard) -> None:
        write_shard(shard, self._samples[number])
