"""The imagined future beside the recorded one (Light-WAM's figure 3, top), with the numbers that keep it honest.

At queries of recorded episodes the policy imagines the window it was trained on, from the present image alone.
PSNR against the recorded canvas is given beside two references: the present image repeated, which is the future of
a world that stands still, and the recorded future through the policy's codec, which no prediction can be expected to
exceed. It does not know how a policy imagines.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from wamkit.data.canvas import tile
from wamkit.infer.engine import Engine
from wamkit.report.images import pixels, psnr
from wamkit.report.imagination import fitted, out_of_reach
from wamkit.report.imagined_episodes import ShownEpisodes, shown_episodes
from wamkit.report.imagining import EULER_STEPS, ImaginingPolicy, coded, decoded, enlarged, squared_error
from wamkit.report.page import Section
from wamkit.report.video import FilmConfig
from wamkit.report.watched import Episode, Watched, join


@dataclass(frozen=True)
class FutureConfig:
    """steps: Euler steps per imagined clip.  samples: imagined per moment; one is shown, and their mean (if several).
    frames: how many of the window are shown, its last among them.
    batch: clips imagined at a time.  seed: of the noise."""

    steps: int = EULER_STEPS
    samples: int = 8
    frames: int = 4
    batch: int = 8
    seed: int = 0


@dataclass(frozen=True)
class Moment:
    """A query of an episode whose whole window was recorded."""

    episode: Episode
    step: int


@dataclass(frozen=True)
class Futures:
    """n moments, t frames of the window with the present first, in [-1, 1] on the canvas.

    imagined, references: ways to guess the future, by name, in the order they are shown.
    size: height and width of the imagined images before they were enlarged to the canvas.
    """

    recorded: Float[Tensor, "n 3 t H W"]
    imagined: Mapping[str, Float[Tensor, "n 3 t H W"]]
    references: Mapping[str, Float[Tensor, "n 3 t H W"]]
    size: tuple[int, int]

    def squared_errors(self) -> dict[str, Float[Tensor, "n t"]]:
        """Of each guess."""
        guesses = {**self.imagined, **self.references}
        return {name: squared_error(guess, self.recorded) for name, guess in guesses.items()}


def moments(episode: Episode, window: int) -> list[Moment]:
    """Every query of the episode that was followed by `window` recorded steps."""
    return [Moment(episode, int(step)) for step in episode.query_steps if step + window <= episode.steps]


def shown_moment(found: Sequence[Moment]) -> Moment:
    """The first after a third of the episode, or the last there is."""
    third = found[0].episode.steps / 3
    return next((moment for moment in found if moment.step >= third), found[-1])


@torch.no_grad()
def look_ahead(engine: Engine[ImaginingPolicy], found: Sequence[Moment], config: FutureConfig) -> Futures:
    """Let the policy imagine every moment; all are of one robot."""
    generator = torch.Generator().manual_seed(config.seed)
    batches = [found[i : i + config.batch] for i in range(0, len(found), config.batch)]
    parts = [_look_ahead(engine, batch, config, generator) for batch in batches]
    recorded, sample, mean, through_codec = (torch.cat(clips) for clips in zip(*parts, strict=True))
    imagined = {"one sample": sample}
    if config.samples > 1:
        imagined[f"mean of {config.samples}"] = mean
    return Futures(
        recorded=recorded,
        imagined={name: enlarged(engine, video) for name, video in imagined.items()},
        references={
            "present repeated": recorded[:, :, :1].expand_as(recorded),
            "recorded, through the codec": through_codec,
        },
        size=(sample.shape[3], sample.shape[4]),
    )


def _look_ahead(
    engine: Engine[ImaginingPolicy], found: Sequence[Moment], config: FutureConfig, generator: torch.Generator
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Recorded canvas; one imagined sample, the mean of all, and the recorded clip through the codec."""
    policy = engine.policy
    offsets = engine.spec(found[0].episode.robot).frame_offsets
    window = join([m.episode.clip(m.step, offsets, policy.data.views) for m in found])
    now = join([m.episode.clip(m.step, (0,), policy.data.views) for m in found])
    whole, present = engine.query(window).inputs, engine.query(now)
    frames = whole["future"].shape[2]

    def imagined() -> Tensor:
        return decoded(engine, policy.imagine(present, frames, config.steps, generator))

    sample = imagined()
    total = sample.clone()
    for _ in range(config.samples - 1):
        total += imagined()
    return tile(window.views, policy.data), sample, total / config.samples, coded(engine, whole)


@dataclass(frozen=True)
class Strip:
    """A moment. recorded, imagined: uint8 frames, the present first; psnrs: of each guess, in dB, by shown frame."""

    moment: Moment
    recorded: list[np.ndarray]
    imagined: dict[str, list[np.ndarray]]
    psnrs: dict[str, list[str]]


@dataclass(frozen=True)
class Future:
    """about: the episodes. offsets: of the shown frames after the present, in steps (words) and seconds. moments: how
    many; psnrs: over all of them. canvas: height and width of the recorded images. short: of episodes shorter than the
    window, and of whole episodes that cannot be
    imagined, a sentence each. whole: of these episodes those that are longer than the window, where there are some."""

    about: str
    config: FutureConfig
    futures: Futures
    canvas: tuple[int, int]
    offsets: dict[str, float]
    strips: list[Strip]
    moments: int
    psnrs: dict[str, list[str]]
    short: list[str]
    whole: list[ShownEpisodes]


def future(
    engine: Engine[ImaginingPolicy], watched: Watched, config: FutureConfig, film: FilmConfig
) -> Section:
    """A strip per episode and a table over all moments of all episodes; then each from its first image to its end."""
    if not watched.episodes:
        return Section("future", "Imagined future", "paragraphs", [watched.about])
    data = engine.spec(watched.episodes[0].robot)
    window, offsets = data.frame_offsets[-1], data.frame_offsets
    found = {n: moments(episode, window) for n, episode in enumerate(watched.episodes)}
    short = [
        f"{episode.title}, {episode.detail}: the episode has {episode.steps} steps, fewer than the window of "
        f"{window}; it is not shown."
        for n, episode in enumerate(watched.episodes)
        if not found[n]
    ]
    everything = [moment for own in found.values() for moment in own]
    if not everything:
        return Section("future", "Imagined future", "paragraphs", short)
    unreached = out_of_reach(engine, watched.episodes[0].robot)
    long = [episode for episode in watched.episodes if episode.steps > window]
    futures = look_ahead(engine, everything, config)
    errors = futures.squared_errors()
    shown = shown_frames(len(offsets), config.frames)

    def strip(moment: Moment) -> Strip:
        n = everything.index(moment)
        recorded, *imagined = (
            [pixels(video[n, :, i]) for i in (0, *shown)]
            for video in (futures.recorded, *futures.imagined.values())
        )
        psnrs = {name: [psnr(float(error[n, i])) for i in shown] for name, error in errors.items()}
        return Strip(moment, recorded, dict(zip(futures.imagined, imagined, strict=True)), psnrs)

    values = Future(
        about=watched.about,
        config=config,
        futures=futures,
        canvas=(futures.recorded.shape[3], futures.recorded.shape[4]),
        offsets={f"+{offsets[i]} steps": data.frame_times[i] for i in shown},
        strips=[strip(shown_moment(own)) for own in found.values() if own],
        moments=len(everything),
        psnrs={name: [psnr(float(error[:, i].mean())) for i in shown] for name, error in errors.items()},
        short=short + ([unreached] if unreached else []),
        whole=[shown_episodes(engine, long, fitted(long), film, config.seed)]
        if long and not unreached
        else [],
    )
    return Section("future", "Imagined future", "future", values)


def shown_frames(frames: int, shown: int) -> list[int]:
    """Indices that divide a window of `frames` (the present first) into `shown` equal parts, the last included."""
    return sorted({round((frames - 1) * (i + 1) / shown) for i in range(shown)} - {0})
