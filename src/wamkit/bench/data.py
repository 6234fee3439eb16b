"""How fast samples become latents, and latents become batches."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch
from torch import Tensor

from wamkit.bench.subject import Subject
from wamkit.bench.timing import Seconds, in_turns, repeated
from wamkit.config import Run, build_encoder
from wamkit.data.loader import batches
from wamkit.stages.run import open_clips, training_samples


@dataclass(frozen=True)
class Rate:
    """name: what is counted, "clips" or "samples". size: of them in a round."""

    name: str
    about: str
    size: int
    seconds: Seconds

    @property
    def row(self) -> list[str]:
        """Of a table: what, how many at a time, milliseconds, per second, and processor seconds of each."""
        own = self.seconds.summary
        rate = f"{self.size / own['median']:.4g} {self.name}/s"
        each = f"{1e3 * own['cpu_median'] / self.size:.3g}"
        return [self.about, str(self.size), f"{1e3 * own['median']:.1f}", rate, each]


HEAD = ("", "at a time", "ms", "rate", "processor ms of each")


def encoding(subject: Subject, sizes: Sequence[int], rounds: int) -> list[Rate]:
    """Clips of random frames through the encoder, as a latent cache has them; and their present frames alone."""
    data, device = subject.run.data, subject.device
    rates = []
    for size in sizes:
        for frames in (len(data.frame_times), 1):
            clips = clips_of(subject, size, frames)

            def encode(number: int, views: dict[str, Tensor] = clips) -> None:
                subject.encoder.frames(subject.encoder.prepare(views, torch.Generator()))

            about = f"{frames} frames of {len(data.views)} views"
            rates.append(Rate("clips", about, size, in_turns({"": encode}, rounds, device, about)[""]))
    return rates


def clips_of(subject: Subject, size: int, frames: int) -> dict[str, Tensor]:
    """Random views [size frames h w 3]."""
    data, generator = subject.run.data, torch.Generator().manual_seed(0)
    shape = (size, frames, data.view_height, data.view_width, 3)
    return {view: torch.randint(256, shape, dtype=torch.uint8, generator=generator) for view in data.views}


def loading(
    run: Run, datasets: Sequence[Path], cache: Path, device: torch.device, workers: Sequence[int], rounds: int
) -> list[Rate]:
    """Batches of training samples, as training reads them, with so many worker processes (0: a thread)."""
    sources, encoder = open_clips(run, datasets), build_encoder(run)
    samples = training_samples(run, sources, encoder, cache)
    size, rates = run.train.batch_size, []
    for number in workers:
        reader = batches(
            samples,
            lambda names: torch.zeros(len(names), dtype=torch.int64),
            size,
            run.train.seed,
            device=device,
            prefetch=run.train.prefetch,
            workers=number,
        )
        with closing(reader):
            about = f"{number} workers" if number else "a thread"
            found = in_turns({"": repeated(partial(next, reader))}, rounds, device, about)[""]
        rates.append(Rate("samples", about, size, found))
    return rates
