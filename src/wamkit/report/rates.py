"""Success rates of several evaluations on one page: in words, as curves, and the episodes whose environment crashed.

What was not measured is never shown as a number.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from markupsafe import Markup

from wamkit.report.page import Section, percent
from wamkit.report.plots import Curve, curves
from wamkit.report.results import Rate

NOT_MEASURED = "not measured"


@dataclass(frozen=True)
class Crash:
    """An episode whose environment failed, so that it says nothing about the policy. where: in which evaluation, in
    words. error: as results.json has it."""

    where: str
    task: str
    seed: int
    error: str

    @property
    def first_line(self) -> str:
        """What happened, without where in the code."""
        return self.error.partition("\n")[0]


def crashes(where: str, results: Mapping[str, Any]) -> list[Crash]:
    """Of an evaluation, in the order of its episodes."""
    return [
        Crash(where, row["task"], row["seed"], row["error"])
        for row in results["episodes"]
        if row["status"] == "error"
    ]


def crashed(found: Sequence[Crash]) -> list[Section]:
    """A section that names them, or none where nothing crashed."""
    return [Section("crashed", "Crashed environments", "crashed", found)] if found else []


def told(rate: Rate) -> str:
    """In percent."""
    return NOT_MEASURED if rate.rate is None else percent(rate.rate)


def rate_curves(
    name: str, shown: Sequence[tuple[str, Sequence[tuple[float, Rate]]]], x_label: str
) -> list[Markup]:
    """One plot of rates in percent over x, or none where nothing was measured. shown: curves, each a colour of the page
    and its points, of which those without a trial are left out."""
    drawn = []
    for colour, points in shown:
        known = [(x, 100 * rate.rate) for x, rate in points if rate.rate is not None]
        drawn += [Curve([x for x, _ in known], [y for _, y in known], colour)] if known else []
    return [curves(name, drawn, x_label)] if drawn else []
