"""The section of films: an episode per task, as the policy saw and planned it.

Knows recordings and how a film is made (video.py); no policy is asked anything.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from wamkit.report.page import Section
from wamkit.report.recordings import NONE, Recording, read_recording
from wamkit.report.results import Episode, Results
from wamkit.report.video import EXECUTED, PREDICTED, Film, FilmConfig, film


@dataclass(frozen=True)
class Rollouts:
    """films: of each recording. speed: the films' beside real time, in words. views: those the policy sees."""

    films: list[tuple[Recording, Film]]
    speed: str
    views: Sequence[str]
    executed: tuple[int, int, int] = EXECUTED
    predicted: tuple[int, int, int] = PREDICTED


def shown_recordings(results: Results, folder: Path) -> list[Recording]:
    """Of each task the first recorded success (or, without one, failure); and one failure, if none is among them.

    folder: where results.json lies. Empty where nothing was recorded, and where results were copied without any of
    their recordings. BadInput for a missing or damaged file.
    """
    recorded = [row for row in results.episodes if row.recording]
    if not any((folder / row.recording).exists() for row in recorded):
        return []
    chosen: list[Episode] = []
    for task in results.tasks:
        own = [row for row in recorded if row.task == task]
        chosen += sorted(own, key=lambda row: row.status != "success")[:1]
    if all(row.status == "success" for row in chosen):
        chosen += [row for row in recorded if row.status == "failure"][:1]
    embodiment = results.suite["env"]["embodiment"]
    return [
        read_recording(
            folder / row.recording, row.task, row.seed, results.tasks[row.task].instruction, embodiment
        )
        for row in chosen
    ]


def first_of_tasks(recordings: Sequence[Recording]) -> list[Recording]:
    """One recording per task, in their order."""
    first: dict[str, Recording] = {}
    for recording in recordings:
        first.setdefault(recording.task, recording)
    return list(first.values())


def rollouts(recordings: Sequence[Recording], views: Sequence[str], hz: float, config: FilmConfig) -> Section:
    """A film per recording. views: those the policy sees, shown above the scene; hz: control steps per second."""
    if not recordings:
        return Section("rollouts", "Rollouts", "paragraphs", [NONE])
    films = [(recording, film(recording, views, config)) for recording in recordings]
    return Section("rollouts", "Rollouts", "rollouts", Rollouts(films, _speed(hz, config.fps), views))


def _speed(hz: float, fps: float) -> str:
    if fps == hz:
        return "in real time"
    return f"{max(hz, fps) / min(hz, fps):g} times {'slower' if fps < hz else 'faster'} than real time"
