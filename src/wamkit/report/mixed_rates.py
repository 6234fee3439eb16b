"""The page and record of `wamkit analyse mixed-hz`: policies that were measured at several control rates."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from markupsafe import Markup

from wamkit.io.provenance import machine, revision, versions
from wamkit.report.comparison import COLOURS
from wamkit.report.facts import Facts, facts
from wamkit.report.page import Header, Section, write_page
from wamkit.report.plots import VARIABLES
from wamkit.report.rates import Crash, crashed, rate_curves, told
from wamkit.report.results import Pair, Rate

Tree = Mapping[str, Any]


@dataclass(frozen=True)
class Measured:
    """A policy at a rate. results: the file, beside the run directory's other ones. weights: their sha256."""

    total: Rate
    results: str
    weights: str


@dataclass(frozen=True)
class RateArm:
    """A run. differs: its values that are not the first run's, by name; the first's, where the first has others.

    trained_at: rates of its data. rates: how it did, by the rate in Hz that it was asked at, as text.
    """

    run: str
    recipe: str
    seed: int
    steps: int
    differs: dict[str, str]
    trained_at: list[float]
    rates: dict[str, Measured]

    @property
    def name(self) -> str:
        """For a row."""
        return ", ".join(f"{name} {value}" for name, value in self.differs.items()) or "the first"


@dataclass(frozen=True)
class RatePair:
    """A paired test of a run against the first one, both asked at a rate."""

    rate: str
    pair: Pair


@dataclass(frozen=True)
class MixedRates:
    """mixed_hz.json. suite: the protocol of all evaluations. pairs: of those that have episodes in common. crashes: of
    all of them."""

    command: str
    suite: dict[str, Any]
    arms: list[RateArm]
    pairs: list[RatePair]
    crashes: list[Crash] = field(default_factory=list)
    revision: str = field(default_factory=revision)
    versions: dict[str, str] = field(default_factory=versions)
    machine: dict[str, Any] = field(default_factory=machine)
    format: str = "wamkit-mixed-hz-1"

    @property
    def rates(self) -> list[str]:
        """Everything that any arm was asked at, the highest first."""
        return sorted({rate for arm in self.arms for rate in arm.rates}, key=float, reverse=True)


@dataclass(frozen=True)
class MixedRatesPage:
    """colours: as CSS, by the name of an arm."""

    record: MixedRates
    colours: dict[str, str]
    plots: list[Markup]


def write_mixed_rates_page(out: Path, record: MixedRates) -> None:
    """Write the page, whole or not at all."""
    colours = {arm.run: COLOURS[number % len(COLOURS)] for number, arm in enumerate(record.arms)}
    shown = [
        (colours[arm.run], [(float(rate), arm.rates[rate].total) for rate in sorted(arm.rates, key=float)])
        for arm in record.arms
    ]
    css = {arm.name: VARIABLES[colours[arm.run]] for arm in record.arms}
    plots = rate_curves("episodes solved, in percent", shown, "control rate in Hz")
    first = record.arms[0]
    solved = ", ".join(
        f"{told(first.rates[rate].total)} at {rate} Hz" for rate in record.rates if rate in first.rates
    )
    header = Header(
        f"wamkit analyse mixed-hz: {first.recipe}",
        f"Solved by the first policy: {solved}",
        f"{len(record.arms)} policies asked at {', '.join(record.rates)} Hz, in suite {record.suite['name']} with "
        f"{record.suite['episodes']} episodes per task. An action of a lower rate is divided among the "
        "environment's steps.",
    )
    groups: dict[str, Any] = {arm.run: asdict(arm) for arm in record.arms}
    software = {"revision": record.revision, **record.versions}
    write_page(
        out,
        header,
        [
            Section("rates", "Rates", "mixed_rates", MixedRatesPage(record, css, plots)),
            *crashed(record.crashes),
            facts(Facts({"software": software, "machine": record.machine}, groups, {}, record.command)),
        ],
    )
