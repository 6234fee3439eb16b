"""What a watched policy warned of in an evaluation: how many episodes of each task raised an alarm, and all scores."""

from __future__ import annotations

from dataclasses import dataclass

from markupsafe import Markup

from wamkit.report.page import Section
from wamkit.report.plots import BLUE, ORANGE, RED, Curve, curves
from wamkit.report.results import Episode, Results

MOST = 60
"""Episodes that are drawn."""


@dataclass(frozen=True)
class Alarmed:
    """Episodes of a task that were watched, by how they ended: of `solved` ones `solved_alarmed` raised an alarm."""

    instruction: str
    solved: int
    solved_alarmed: int
    failed: int
    failed_alarmed: int


@dataclass(frozen=True)
class Warnings:
    """tasks: by name. false_alarms: of the calibration. threshold: of the score."""

    tasks: dict[str, Alarmed]
    false_alarms: float
    threshold: float
    plot: Markup


def warnings(results: Results) -> Section:
    """Of a watched policy, with at least one comparison."""
    watched = [episode for episode in results.episodes if episode.warnings]
    threshold = watched[0].warnings[0].threshold
    drawn = [_curve(episode) for episode in watched[:MOST]]
    level = Curve([0.0, max(curve.x[-1] for curve in drawn)], [threshold] * 2, ORANGE)
    shown = Warnings(
        tasks={name: _alarmed(task.instruction, name, watched) for name, task in results.tasks.items()},
        false_alarms=results.policy["warning"]["false_alarms"],
        threshold=threshold,
        plot=curves("error in multiples of the usual one", [level, *drawn], "control step", log=True),
    )
    return Section("warnings", "Warnings", "warnings", shown)


def _alarmed(instruction: str, name: str, watched: list[Episode]) -> Alarmed:
    own = [episode for episode in watched if episode.task == name]
    solved = [any(w.alarm for w in episode.warnings) for episode in own if episode.status == "success"]
    failed = [any(w.alarm for w in episode.warnings) for episode in own if episode.status == "failure"]
    return Alarmed(instruction, len(solved), sum(solved), len(failed), sum(failed))


def _curve(episode: Episode) -> Curve:
    steps, scores = zip(*((float(w.step), w.score) for w in episode.warnings), strict=True)
    return Curve(steps, scores, BLUE if episode.status == "success" else RED, alpha=0.6)
