"""The page and record of `wamkit analyse warning`: what a world model noticed of what went wrong."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from markupsafe import Markup

from wamkit.io.provenance import machine, revision, versions
from wamkit.report.facts import Facts, facts
from wamkit.report.page import Header, Section, percent, write_page
from wamkit.report.plots import BLUE, ORANGE, Curve, curves
from wamkit.report.results import Rate

Tree = Mapping[str, Any]


@dataclass(frozen=True)
class Score:
    """How well one tells perturbed episodes from others. episodes: of each. interval: 95 %, bootstrap over episodes."""

    episodes: int
    auroc: float
    interval: tuple[float, float]


@dataclass(frozen=True)
class Kind:
    """One perturbation. reached: episodes in which it was seen. noticed: those with an alarm from then on.

    median_delay: seconds from the perturbation to the first alarm; None without one. scores: by name.
    curves: of each episode, seconds since the perturbation and the warning's score.
    """

    suite: str
    solved: Rate
    reached: int
    noticed: int
    noticed_interval: tuple[float, float]
    median_delay: float | None
    scores: dict[str, Score]
    curves: list[list[tuple[float, float]]]

    @property
    def name(self) -> str:
        """Without the suite."""
        return self.suite.partition("+")[2]


@dataclass(frozen=True)
class Alarms:
    """alarms.json. episodes, alarmed, solved: without perturbation. false_alarms, threshold: of the calibration.

    seconds: after a perturbation, in which scores are compared. scores: what they are, by name.
    """

    command: str
    suite: dict[str, Any]
    policy: dict[str, Any]
    false_alarms: float
    threshold: float
    seconds: float
    episodes: int
    alarmed: int
    alarmed_interval: tuple[float, float]
    solved: Rate
    kinds: list[Kind]
    scores: dict[str, str]
    revision: str = field(default_factory=revision)
    versions: dict[str, str] = field(default_factory=versions)
    machine: dict[str, Any] = field(default_factory=machine)
    format: str = "wamkit-alarms-1"


@dataclass(frozen=True)
class AlarmsPage:
    """plots: one for each kind."""

    record: Alarms
    plots: list[Markup]


def write_alarms_page(out: Path, record: Alarms) -> None:
    """Write the page, whole or not at all."""
    low, high = record.alarmed_interval
    noticed = ", ".join(f"{kind.name} {kind.noticed} of {kind.reached}" for kind in record.kinds)
    header = Header(
        f"wamkit analyse warning: {record.policy['recipe']}",
        f"Noticed: {noticed}",
        f"An alarm in {record.alarmed} of {record.episodes} episodes in which nothing went wrong (95 % interval "
        f"{percent(low)} to {percent(high)}); the threshold was calibrated for {percent(record.false_alarms)} of "
        f"episodes like those of its calibration. Suite {record.suite['name']}.",
    )
    software = {"revision": record.revision, **record.versions}
    groups = {"policy": record.policy}
    write_page(
        out,
        header,
        [
            Section("alarms", "Alarms", "alarms", AlarmsPage(record, list(map(_plot(record), record.kinds)))),
            facts(Facts({"software": software, "machine": record.machine}, groups, {}, record.command)),
        ],
    )


def _plot(record: Alarms) -> Any:
    def plot(kind: Kind) -> Markup:
        spans = [x for curve in kind.curves for x, _ in curve] or [0.0, 1.0]
        begin = min(spans)
        lines = [
            Curve([x - begin for x, _ in curve], [y for _, y in curve], BLUE, alpha=0.5)
            for curve in kind.curves
        ]
        level = Curve([0.0, max(spans) - begin], [record.threshold] * 2, ORANGE)
        moment = f"{kind.name}: seconds; it happens at {-begin:.2g}"
        return curves(f"score in {kind.name}", [level, *lines], moment, log=True)

    return plot
