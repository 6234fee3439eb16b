"""The section of films: an episode per task, as the policy saw and planned it.

Knows recordings and how a film is made (video.py); no policy is asked anything.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from wamkit.report.markup import Section, block, escape, figure, figures, paragraphs, video
from wamkit.report.recordings import NONE, Recording, read_recording
from wamkit.report.video import EXECUTED, PREDICTED, FilmConfig, film


def shown_recordings(results: Mapping[str, Any], folder: Path) -> list[Recording]:
    """Of each task the first recorded success (or, without one, failure); and one failure, if none is among them.

    folder: where results.json lies. Empty where nothing was recorded. BadInput for a missing or damaged file.
    """
    recorded = [row for row in results["episodes"] if row["recording"]]
    chosen: list[Mapping[str, Any]] = []
    for task in results["tasks"]:
        own = [row for row in recorded if row["task"] == task]
        chosen += sorted(own, key=lambda row: row["status"] != "success")[:1]
    if all(row["status"] == "success" for row in chosen):
        chosen += [row for row in recorded if row["status"] == "failure"][:1]
    return [_read(results, folder, row) for row in chosen]


def _read(results: Mapping[str, Any], folder: Path, row: Mapping[str, Any]) -> Recording:
    instruction = results["tasks"][row["task"]]["instruction"]
    embodiment = results["suite"]["env"]["embodiment"]
    return read_recording(folder / row["recording"], row["task"], row["seed"], instruction, embodiment)


def first_of_tasks(recordings: Sequence[Recording]) -> list[Recording]:
    """One recording per task, in their order."""
    tasks = [recording.task for recording in recordings]
    return [recording for i, recording in enumerate(recordings) if recording.task not in tasks[:i]]


def rollouts(recordings: Sequence[Recording], views: Sequence[str], hz: float, config: FilmConfig) -> Section:
    """A film per recording. views: those the policy sees, shown above the scene; hz: control steps per second."""
    if not recordings:
        return Section("rollouts", "Rollouts", paragraphs(NONE))
    text = (
        f"One recorded episode of each task{_speed(hz, config)}. The line is the chunk that is being executed, as it "
        "was predicted when the policy was asked; it fades towards the end of the horizon, and the white dot is the "
        f"step that runs now. Above the scene: what the policy sees ({', '.join(views)})."
    )
    keys = _key(EXECUTED, "executed before the next query") + _key(PREDICTED, "predicted, then replaced")
    films = []
    for recording in recordings:
        made = film(recording, views, config)
        films.append(figure(video(made.mp4, made.poster, f"Film of {recording.task}"), _caption(recording)))
    body = paragraphs(text) + block("p", "keys", keys) + figures("films", films)
    return Section("rollouts", "Rollouts", body)


def _caption(recording: Recording) -> str:
    end = (
        block("span", "solved", f"solved after {recording.steps} steps")
        if recording.success
        else block("span", "failed", f"not solved in {recording.steps} steps")
    )
    queries = len(recording.query_steps)
    return f"<strong>{escape(recording.task)}</strong>, seed {recording.seed}<br>{end}, {queries} queries"


def _key(colour: tuple[int, int, int], text: str) -> str:
    return f'<span class="key"><i style="background:rgb{colour}"></i>{escape(text)}</span>'


def _speed(hz: float, config: FilmConfig) -> str:
    if config.fps == hz:
        return ", in real time"
    if config.fps < hz:
        return f", {hz / config.fps:g} times slower than real time"
    return f", {config.fps / hz:g} times faster than real time"
