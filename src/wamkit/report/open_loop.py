"""The open-loop section: predicted chunks of a policy against recorded ones, by dimension and step of the chunk, and
drawn over episodes. Measuring (`measure`) is apart from drawing, since its numbers are also written as JSON.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float
from markupsafe import Markup

from wamkit.analysis.open_loop import (
    BASELINES,
    MEAN,
    PREDICTED,
    PREVIOUS,
    Chunk,
    StepErrors,
    ToUnit,
    correlations,
    step_errors,
)
from wamkit.data.actions import ActionSpace
from wamkit.data.clips import Clips
from wamkit.data.normalize import Normalizer
from wamkit.data.statistics import STILL
from wamkit.infer.engine import Engine
from wamkit.io.progress import bar
from wamkit.report.page import Header, Section, significant
from wamkit.report.plots import BLUE, ORANGE, SOFT, Curve, curves, heat_map, track
from wamkit.report.predictions import chunks_of
from wamkit.report.training import NOT_EVALUATED
from wamkit.report.watched import DatasetEpisode, dataset_episodes, evenly
from wamkit.types import Policy

SAMPLES = 256
"""Most that the errors are means over, evenly over the episodes."""

TRACKS, CHUNKS = 2, 24
"""Episodes that chunks are drawn over, and most chunks of each, end to end where there is room."""

LOWEST = 0.2
"""Least height of a plot of an episode, as a share of what the dimension spans in the training data."""

COLOURS = {PREDICTED: BLUE, PREVIOUS: ORANGE, MEAN: SOFT}


@dataclass(frozen=True)
class Track:
    """An episode. recorded: its actions. chunks: predicted actions from each of `starts` on, as far as it goes."""

    episode: DatasetEpisode
    recorded: Float[np.ndarray, "t a"]
    starts: list[int]
    chunks: list[np.ndarray]


@dataclass(frozen=True)
class OpenLoop:
    """Of one robot. about: which episodes, in a sentence; episodes: their labels. samples: that were predicted.

    hz: control steps per second. physical: errors in the units of the dataset; unit: in the unit range that the policy
    is trained in. correlation: of predicted and recorded actions; spans: of the training data, physical; by dimension.
    """

    robot: str
    about: str
    space: ActionSpace
    episodes: list[str]
    samples: int
    hz: float
    physical: StepErrors
    unit: StepErrors
    correlation: Float[np.ndarray, " a"]
    spans: Float[np.ndarray, " a"]
    tracks: list[Track]

    @property
    def horizon(self) -> int:
        """Actions of a chunk."""
        return len(self.unit.counts)


def measure(
    engine: Engine[Policy], normalizer: Normalizer, sources: Sequence[tuple[Clips, str]]
) -> list[OpenLoop]:
    """Of each source with what it is called, but for one without an episode of at least two samples: what repeats the
    action before needs one."""
    asked = [(clips, about, _judged(clips)) for clips, about in sources if _judged(clips)]
    tracks = [_tracked(clips) for clips, _, _ in asked]
    queries = [sum(len(starts) for _, starts in own) for own in tracks]
    total = sum(len(judged) for _, _, judged in asked) + sum(queries)
    found = []
    with bar("open loop", total, unit="samples") as advance:
        for (clips, about, judged), own in zip(asked, tracks, strict=True):
            chunks = list(chunks_of(clips, judged, [engine], advance).values())
            drawn = [n for episode, starts in own for n in _numbers(episode, starts)]
            predicted = chunks_of(clips, drawn, [engine], advance)
            robot = clips.dataset.robot_type
            stats = normalizer.stats[robot]["action"]
            found.append(
                OpenLoop(
                    robot=robot,
                    about=about,
                    space=clips.space,
                    episodes=[clips.dataset.label(episode.index) for episode in clips.episodes],
                    samples=len(chunks),
                    hz=clips.spec.hz,
                    physical=step_errors(chunks, stats.mean, lambda actions: actions),
                    unit=step_errors(chunks, stats.mean, to_unit(normalizer, robot)),
                    correlation=correlations(chunks),
                    spans=np.maximum(stats.max - stats.min, STILL),
                    tracks=[_track(episode, starts, predicted) for episode, starts in own],
                )
            )
    return found


def to_unit(normalizer: Normalizer, robot: str) -> ToUnit:
    """Actions of a robot as its policy is trained on them."""
    row = normalizer.index([robot])
    widest = normalizer.dimensions("action").shape[1]

    def unit(actions: np.ndarray) -> np.ndarray:
        wide = F.pad(torch.tensor(actions), (0, widest - actions.shape[-1]))
        return normalizer.to_unit("action", wide[None], row)[0, ..., : actions.shape[-1]].numpy()

    return unit


def _judged(clips: Clips) -> list[int]:
    """Numbers of samples that do not begin an episode."""
    numbers = [i for own in clips.numbers for i in own[1:]]
    return [numbers[place] for place in evenly(len(numbers), SAMPLES)] if numbers else []


def _tracked(clips: Clips) -> list[tuple[DatasetEpisode, list[int]]]:
    """Episodes to draw, and the steps that chunks begin at."""
    tracked = []
    for episode in dataset_episodes(clips, TRACKS):
        ends = range(0, len(clips.numbers[episode.place]), clips.spec.horizon)
        tracked.append((episode, [ends[place] for place in evenly(len(ends), CHUNKS)]))
    return tracked


def _numbers(episode: DatasetEpisode, starts: Sequence[int]) -> list[int]:
    first = episode.clips.numbers[episode.place].start
    return [first + start for start in starts]


def _track(episode: DatasetEpisode, starts: list[int], predicted: dict[int, Chunk]) -> Track:
    chunks = [predicted[number] for number in _numbers(episode, starts)]
    return Track(episode, episode.actions, starts, [chunk.predicted[~chunk.is_pad] for chunk in chunks])


@dataclass(frozen=True)
class Dimension:
    """A row of the table. errors: physical, by guess; unit: of the policy; first, last: at these steps of the chunk."""

    name: str
    kind: str
    errors: dict[str, float]
    unit: float
    first: float
    last: float
    correlation: float
    beaten: bool


@dataclass(frozen=True)
class Shown:
    """One robot. plots: error by step of the chunk; maps: by step and dimension. tracks: plots of each episode."""

    measured: OpenLoop
    totals: dict[str, float]
    dimensions: list[Dimension]
    plots: list[Markup]
    maps: list[Markup]
    top: float
    tracks: list[tuple[Track, list[Markup]]]


def open_loop(measured: Sequence[OpenLoop]) -> Section:
    """Robot by robot."""
    return Section("open_loop", "Open-loop error", "open_loop", [_shown(own) for own in measured])


def open_loop_header(title: str, measured: Sequence[OpenLoop]) -> Header:
    """Of a run whose best known number this is."""
    means = {
        name: float(np.mean([own.unit.total(name) for own in measured])) for name in (PREDICTED, *BASELINES)
    }
    baseline = min(BASELINES, key=means.__getitem__)
    verdict = "below the" if means[PREDICTED] < means[baseline] else "not below the"
    headline = (
        f"Open-loop action error {significant(means[PREDICTED], 2)} in unit range, {verdict} "
        f"{significant(means[baseline], 2)} of the {NAMES[baseline]}"
    )
    return Header(title, headline, f"{measured[0].about} {NOT_EVALUATED}")


NAMES = {PREVIOUS: "previous action repeated", MEAN: "mean action"}
"""The guesses beside the policy's."""


def _shown(own: OpenLoop) -> Shown:
    unit, names = own.unit, own.space.names
    steps = list(range(1, own.horizon + 1))
    seen = unit.counts > 0
    drawn = [
        Curve(
            [n for n, there in zip(steps, seen, strict=True) if there],
            unit.by_step(name)[seen].tolist(),
            colour,
        )
        for name, colour in COLOURS.items()
    ]
    absolute = unit.errors[PREDICTED]
    top = float(np.nanmax(absolute)) or 1.0
    relative = np.log2(np.maximum(unit.against_baselines(), 1e-6)).clip(-1, 1)
    return Shown(
        measured=own,
        totals={name: unit.total(name) for name in COLOURS},
        dimensions=[_dimension(own, i) for i in range(len(names))],
        plots=[curves("mean error over dimensions, unit range", drawn, "step of the chunk")],
        maps=[
            heat_map("error in unit range", names, absolute.T / top, "step of the chunk"),
            heat_map("against the better baseline", names, relative.T, "step of the chunk"),
        ],
        top=top,
        tracks=[(each, _plots(each, own)) for each in own.tracks],
    )


def _dimension(own: OpenLoop, i: int) -> Dimension:
    error = own.physical.errors[PREDICTED][own.physical.counts > 0, i]
    return Dimension(
        name=own.space.names[i],
        kind=own.space.kinds[i],
        errors={name: float(own.physical.by_dimension(name)[i]) for name in COLOURS},
        unit=float(own.unit.by_dimension(PREDICTED)[i]),
        first=float(error[0]),
        last=float(error[-1]),
        correlation=float(own.correlation[i]),
        beaten=bool(own.unit.beaten()[i]),
    )


def _plots(drawn: Track, own: OpenLoop) -> list[Markup]:
    """A plot per dimension, not so low that the noise of one that stands still would fill it."""
    return [
        track(
            name,
            drawn.episode.title,
            drawn.recorded[:, i],
            drawn.starts,
            [chunk[:, i] for chunk in drawn.chunks],
            LOWEST * float(own.spans[i]),
        )
        for i, name in enumerate(own.space.names)
    ]


@dataclass(frozen=True)
class OpenLoopRecord:
    """As OpenLoop, in JSON. errors: by unit ("physical", "unit"), guess, step of the chunk and dimension, null where
    every chunk is padded. counts: chunks by step. means: in unit range, by guess."""

    robot: str
    about: str
    names: list[str]
    kinds: list[str]
    episodes: list[str]
    samples: int
    hz: float
    counts: list[int]
    means: dict[str, float]
    errors: dict[str, dict[str, list[list[float | None]]]]
    correlation: list[float | None]


@dataclass(frozen=True)
class ReportRecord:
    """The numbers of a page, beside it."""

    command: str
    open_loop: list[OpenLoopRecord]
    format: str = "wamkit-report-1"


def record_of(own: OpenLoop) -> OpenLoopRecord:
    """The same numbers."""
    errors = {
        name: {guess: [_numbers_of(row) for row in table] for guess, table in found.errors.items()}
        for name, found in (("physical", own.physical), ("unit", own.unit))
    }
    return OpenLoopRecord(
        robot=own.robot,
        about=own.about,
        names=list(own.space.names),
        kinds=list(own.space.kinds),
        episodes=own.episodes,
        samples=own.samples,
        hz=own.hz,
        counts=own.unit.counts.tolist(),
        means={name: own.unit.total(name) for name in COLOURS},
        errors=errors,
        correlation=_numbers_of(own.correlation),
    )


def _numbers_of(values: np.ndarray) -> list[float | None]:
    """None for what is not defined."""
    return [float(value) if np.isfinite(value) else None for value in values]
