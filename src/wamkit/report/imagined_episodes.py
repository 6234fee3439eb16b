"""Whole imagined episodes as a page shows them: frames and a film beside the recorded ones, and PSNR over time."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from markupsafe import Markup

from wamkit.analysis.motion import Motion
from wamkit.infer.engine import Engine
from wamkit.report.images import decibels, psnr
from wamkit.report.imagination import (
    CODED,
    IMAGINED,
    ONE_WINDOW,
    STILL,
    Imagination,
    imagine_episodes,
)
from wamkit.report.imagining import ImaginingPolicy
from wamkit.report.plots import BLUE, GREEN, ORANGE, SOFT, VARIABLES, Curve, curves
from wamkit.report.video import Film, FilmConfig, compared_film
from wamkit.report.watched import Episode, evenly

COLOURS = {IMAGINED: BLUE, ONE_WINDOW: GREEN, STILL: ORANGE, CODED: SOFT}
MOST_FRAMES = 7
"""Of a strip, the first image among them."""


@dataclass(frozen=True)
class ShownEpisode:
    """At some of its frames, the first and the last among them. seconds: since the first image, by the step in words.

    recorded, imagined: uint8 [h, w, 3]. psnrs: in dB, by guess, after the first image.
    """

    episode: Episode
    seconds: dict[str, float]
    recorded: list[np.ndarray]
    imagined: list[np.ndarray]
    psnrs: dict[str, list[str]]
    film: Film


@dataclass(frozen=True)
class ShownEpisodes:
    """window: seconds. keys: colour, as CSS, and words of each curve. plot: PSNR over seconds."""

    window: float
    episodes: list[ShownEpisode]
    keys: dict[str, str]
    plot: Markup


def shown_episodes(
    engine: Engine[ImaginingPolicy],
    episodes: Sequence[Episode],
    motion: Motion,
    config: FilmConfig,
    seed: int,
) -> ShownEpisodes:
    """Of one robot, at least one."""
    imagination = imagine_episodes(engine, episodes, motion, seed)
    spec, every = engine.spec(episodes[0].robot), range(len(episodes))
    return ShownEpisodes(
        spec.frame_times[-1],
        [_shown(imagination, n, spec.hz, config) for n in every],
        keys(),
        plot(mean_errors([imagination.of(n) for n in every]), imagination.steps, spec.hz),
    )


def _shown(imagination: Imagination, n: int, hz: float, config: FilmConfig) -> ShownEpisode:
    count = imagination.frames[n]
    recorded, imagined = imagination.recorded[n, :count], imagination.imagined[n, :count]
    frames = evenly(count, MOST_FRAMES)
    per_frame = imagination.steps[count - 1] / (count - 1)
    return ShownEpisode(
        episode=imagination.episodes[n],
        seconds={f"step {imagination.steps[i]}": imagination.steps[i] / hz for i in frames},
        recorded=[recorded[i] for i in frames],
        imagined=[imagined[i] for i in frames],
        psnrs={name: [psnr(own[i - 1]) for i in frames[1:]] for name, own in imagination.of(n).items()},
        film=compared_film(recorded, imagined, per_frame / config.fps, config),
    )


def mean_errors(episodes: Sequence[Mapping[str, Sequence[float]]]) -> dict[str, list[float]]:
    """By guess and frame, over the episodes that reach it."""
    return {
        name: [
            float(np.mean([own[name][i] for own in episodes if i < len(own[name])]))
            for i in range(max(len(own[name]) for own in episodes))
        ]
        for name in episodes[0]
    }


def keys() -> dict[str, str]:
    """What the colours of `plot` stand for."""
    return {VARIABLES[colour]: name for name, colour in COLOURS.items()}


def plot(errors: Mapping[str, Sequence[float]], steps: Sequence[int], hz: float) -> Markup:
    """PSNR of each guess at the frames after the first image; an error of zero has none."""
    shown = []
    for name, own in errors.items():
        points = [(step / hz, decibels(error)) for step, error in zip(steps[1:], own, strict=False) if error]
        if points:
            seconds, values = zip(*points, strict=True)
            shown.append(Curve(seconds, values, COLOURS[name]))
    return curves("PSNR in dB", shown, "seconds since the first image")
