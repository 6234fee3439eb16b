"""A released latent cache of Light-WAM -> ours, without encoding the dataset again (Light-WAM spec 3.1, 3.6).

Latents come from the released files, everything else (proprio, actions, pads, context) from the dataset as `wamkit
encode` takes it. Nothing in a released cache says which dataset it is of: its samples have numbers. A few are
therefore compared with fresh ones before anything is written.
"""

from __future__ import annotations

from collections.abc import Sequence
from copy import deepcopy
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor
from wamkit_client.types import BadInput

from wamkit.config import Run, build_encoder
from wamkit.data.cache import fill
from wamkit.data.canvas import canvas_size, tile
from wamkit.data.clips import Clips
from wamkit.data.joined import open_datasets
from wamkit.data.lerobot.dataset import Dataset
from wamkit.data.order import Order
from wamkit.data.samples import Encoded, Unencoded
from wamkit.io.tensors import read_torch
from wamkit.policies.wan_encoder import WanEncoder, pooled
from wamkit.stages.run import fingerprint
from wamkit.types import Clip

INDEX = "index.pt"
TABLES = ("sample_to_shard", "sample_to_offset")
INDEX_FORMAT = "lightwam_video_latent_cache_index_v1"
# Both are indexed; without an index: single_file_v1, one file per sample.
STORAGE = ("sharded_v1", "episode_packed_v1")
OPEN_FILES = 64  # neighbouring samples of `sharded_v1` lie in as many files as processes encoded
CHECKED = 4
# The released code encodes in bfloat16, whose error is measured by doing it; video decoders round pixels
# differently, which adds less than that (docs/published.md).
ROUNDINGS = 3.0


def import_latents(
    run: Run,
    datasets: Sequence[Path],
    official: Path,
    cache: Path,
    device: torch.device,
) -> None:
    """A released latent cache of datasets -> the latent cache that `wamkit train` takes for the run.

    Samples have the same numbers in both (data/hold_out.py). Interrupted work resumes. Raises BadInput where
    files are missing, hold other samples than the dataset or other latents than the run's codec makes of it.
    """
    opened = open_datasets(datasets, run.data.columns, run.data.only)
    for part in opened.parts:
        _expect_all_episodes(part)
    clips = Clips(opened, run.data, run.actions)
    encoder = build_encoder(run)
    if not isinstance(encoder, WanEncoder):
        raise BadInput(
            f"recipe {run.recipe}: {run.policy.kind} encodes with {type(encoder).__name__}; released latents are of a "
            "Wan VAE"
        )
    encoder.to(device)
    source = Imported(Latents(official, len(clips), _latent_shape(encoder)), clips, encoder)
    _compare(source, device)
    fill(source, cache, fingerprint(encoder, clips), work="import")


def _expect_all_episodes(dataset: Dataset) -> None:
    """BadInput where episodes are missing, since their numbers decide the order."""
    count = len(dataset.episodes)
    if [episode.index for episode in dataset.episodes] != list(range(count)):
        raise BadInput(
            f"{dataset.where}: its {count} episodes are not numbered from 0 without gaps, so the order of a released "
            "cache is unknown; use the whole dataset"
        )


class Latents:
    """The latents in a released folder by sample number, memory-mapped.

    samples, shape: how many there must be, and of what shape [c, t, h, w]. BadInput where the folder has others.
    """

    def __init__(self, folder: Path, samples: int, shape: tuple[int, ...]) -> None:
        self.folder, self.samples, self.shape = folder, samples, shape
        if not folder.is_dir():
            raise BadInput(f"{folder}: no such folder; expected a released latent cache")
        placed = self._indexed() if (folder / INDEX).is_file() else self._single_files()
        self._files, self._file_of, self._offset_of = placed
        self._open = lru_cache(maxsize=OPEN_FILES)(self._read)

    def __getitem__(self, sample: int) -> Float[Tensor, "c t h w"]:
        """One sample as stored. BadInput naming the file that does not hold it."""
        file, offset = self._files[self._file_of[sample]], int(self._offset_of[sample])
        numbers, latents = self._open(file)
        if offset >= len(latents) or int(numbers[offset]) != sample:
            held = int(numbers[offset]) if offset < len(latents) else "nothing"
            raise BadInput(
                f"{file}: expected sample {sample} at place {offset}, got {held}; {INDEX} is of other files, "
                "download the cache again"
            )
        return latents[offset]

    def _indexed(self) -> tuple[list[Path], np.ndarray, np.ndarray]:
        """The files, and for each sample its file and the place in it."""
        path = self.folder / INDEX
        index = read_torch(path)
        keys = ("format", "storage_format", "num_samples", "shard_paths", *TABLES)
        fits = isinstance(index, dict) and set(keys) <= set(index)
        if not fits or not all(isinstance(index[name], Tensor) for name in TABLES):
            raise BadInput(f"{path}: expected {', '.join(keys)}; is it the index of a released latent cache?")
        if index["format"] != INDEX_FORMAT or index["storage_format"] not in STORAGE:
            raise BadInput(
                f"{path}: expected format {INDEX_FORMAT} with storage {' or '.join(STORAGE)}, got "
                f"{index['format']} with {index['storage_format']}"
            )
        file_of, offset_of = (index[name].numpy() for name in TABLES)
        if not index["num_samples"] == len(file_of) == len(offset_of) == self.samples:
            raise self._other_count(path, index["num_samples"])
        absent = np.flatnonzero((file_of < 0) | (offset_of < 0))
        if len(absent):
            raise BadInput(
                f"{path}: {len(absent)} of {self.samples} samples were never encoded (first {absent[0]}); let the "
                "released code finish its cache, or download the whole of it"
            )
        files = [self.folder / name for name in index["shard_paths"]]
        for number in np.unique(file_of):
            if number >= len(files):
                raise BadInput(f"{path}: names {len(files)} files and places samples in file {number}")
            if not files[number].is_file():
                inside = int((file_of == number).sum())
                raise BadInput(f"{files[number]}: missing; {inside} samples are in it, download it")
        return files, file_of, offset_of

    def _single_files(self) -> tuple[list[Path], np.ndarray, np.ndarray]:
        there = {path.name for path in self.folder.glob("*.pt")}
        names = [f"{sample:08d}.pt" for sample in range(self.samples)]
        if not there:
            raise BadInput(f"{self.folder}: neither {INDEX} nor {names[0]}; expected a released latent cache")
        if len(there) != self.samples:
            raise self._other_count(self.folder, len(there))
        absent = [name for name in names if name not in there]
        if absent:
            raise BadInput(f"{self.folder / absent[0]}: missing; download the cache again")
        return [self.folder / name for name in names], np.arange(self.samples), np.zeros(self.samples, int)

    def _read(self, file: Path) -> tuple[Tensor, Tensor]:
        """Sample numbers [n] and latents [n, c, t, h, w] of a file."""
        content = read_torch(file)
        try:
            latents = content["video_latents"]
            if "sample_idx" in content:
                numbers, latents = (
                    torch.tensor([content["sample_idx"]]),
                    latents.reshape(1, *latents.shape[-4:]),
                )
            else:
                numbers = content["sample_indices"]
            shape, kind = list(latents.shape), latents.dtype
        except (KeyError, IndexError, TypeError, AttributeError, RuntimeError) as error:
            raise BadInput(
                f"{file}: expected sample_indices and video_latents ({error}); download it again"
            ) from None
        if shape != [len(numbers), *self.shape] or not kind.is_floating_point:
            raise BadInput(
                f"{file}: latents of {len(numbers)} samples: expected {[len(numbers), *self.shape]}, got {shape} "
                f"{kind}; choose the recipe (canvas, frames, codec) that the cache was made for"
            )
        return numbers, latents

    def _other_count(self, path: Path, found: int) -> BadInput:
        return BadInput(
            f"{path}: expected {self.samples} samples, as many as the dataset has, got {found}. A cache is of one "
            "dataset, and of fewer samples where episodes were held out (RoboTwin: --data.held-out 0.01) or windows "
            "had to be whole (HDF5 recordings: --data.whole-windows True)"
        )


class Imported:
    """Samples whose latents are stored ones; no video is decoded."""

    def __init__(self, latents: Latents, clips: Clips, encoder: WanEncoder) -> None:
        self.latents, self.clips, self.encoder = latents, clips, encoder

    def __len__(self) -> int:
        return len(self.clips)

    @property
    def order(self) -> Order:
        """Every sample once per epoch."""
        return Order((len(self),), (1.0,))

    @property
    def reader(self) -> Imported:
        """Itself."""
        return self

    def __call__(self, indices: Sequence[int], seeds: Sequence[int]) -> Unencoded:
        """Samples without their views, but with the stored latents [b c t h w] in float32."""
        latents = torch.stack([self.latents[index].float() for index in indices])
        return Unencoded.of({"latents": latents}, [self.clips.without_views(index) for index in indices])

    def finish(self, read: Unencoded) -> Encoded:
        """The samples as `wamkit encode` makes them, but for the stored precision of the latents."""
        latents = read.prepared["latents"]
        future = pooled(latents[:, :, 1:], self.encoder.pool)
        return read.encoded(
            {"present": latents[:, :, :1], "future": future, **self.encoder.text(read.instructions)}
        )


def _latent_shape(encoder: WanEncoder) -> tuple[int, ...]:
    codec, spec = encoder.codec, encoder.data
    height, width = (side // codec.spatial for side in canvas_size(spec))
    return codec.channels, 1 + (len(spec.frame_times) - 1) // codec.temporal, height, width


@torch.no_grad()
def _compare(source: Imported, device: torch.device) -> None:
    """BadInput where a stored sample is not what the codec makes of the dataset's."""
    encoder, last = source.encoder, len(source) - 1
    rounded: Any = deepcopy(encoder.codec)
    rounded.to(torch.bfloat16)
    for index in sorted({last * i // (CHECKED - 1) for i in range(CHECKED)}):
        sample = source.clips.sample(index)
        video = tile(_views(sample.clip, device), encoder.data)
        fresh = encoder.codec.encode(video).float()
        explained = _distance(rounded.encode(video.bfloat16()), fresh) + torch.finfo(torch.bfloat16).eps
        got = _distance(source.latents[index][None].to(device), fresh)
        if not got <= ROUNDINGS * explained:
            raise BadInput(
                f"{source.latents.folder}: sample {index} is not episode:step {sample.id} of "
                f"{source.clips.dataset.where}: its latents differ by {got:.2%} from what the codec makes of it, "
                f"bfloat16 explains {ROUNDINGS * explained:.2%}. Is it another dataset, another share of it "
                "(data.held_out), or another VAE? Nothing was written"
            )


def _views(clip: Clip, device: torch.device) -> dict[str, Tensor]:
    return {name: view.to(device) for name, view in clip.views.items()}


def _distance(one: Tensor, other: Tensor) -> float:
    """Root mean square of the difference, relative to `other`."""
    return float((one.float() - other).norm() / other.norm())
