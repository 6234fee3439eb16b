"""The page of `wamkit analyse rollout`: how far a latent world model can be trusted on its own predictions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from markupsafe import Markup

from wamkit.analysis.codes import USED
from wamkit.analysis.rollout import CURVES
from wamkit.analysis.similarity import PATCHES, Mean
from wamkit.report.analyses import RolloutRecord, facts_of
from wamkit.report.facts import facts
from wamkit.report.latent_action import Transfer
from wamkit.report.page import Header, Section, write_page
from wamkit.report.plots import BLUE, GREEN, INK, ORANGE, RED, VARIABLES, Curve, curves

PANELS = {
    "rollout": {"inferred": BLUE, "one step": GREEN, "still": ORANGE, "drift": INK},
    "latent actions": {"inferred": BLUE, "zero": INK, "mean": GREEN, "shuffled": RED, "still": ORANGE},
}
"""Which curves share a plot, and their colours."""


@dataclass(frozen=True)
class Panel:
    """keys: colour, as CSS, and words of each curve. plots: one per set of patches."""

    name: str
    keys: dict[str, str]
    plots: list[Markup]


@dataclass(frozen=True)
class RolloutPage:
    """final: the means of every curve after the last prediction that is shown, by curve and patches."""

    record: RolloutRecord
    panels: list[Panel]
    final: dict[str, list[Mean]]
    steps: int
    transfer: Transfer
    used: float = USED


def write_rollout_page(out: Path, record: RolloutRecord, transfer: Transfer) -> None:
    """Write the page, whole or not at all."""
    last = {name: [record.curves[patches][name][-1] for patches in PATCHES] for name in CURVES}
    shown = RolloutPage(
        record,
        [_panel(name, record, colours) for name, colours in PANELS.items()],
        {CURVES[name]: own for name, own in last.items()},
        len(record.curves["all"]["still"]),
        transfer,
    )
    rolled, still = (last[name][PATCHES.index("moving")].mean for name in ("inferred", "still"))
    header = Header(
        f"wamkit analyse rollout: {record.origin.policy['recipe']}",
        f"On moving patches {rolled:.3f} alike after {shown.steps} predictions; the first frame alone {still:.3f}",
        f"Cosine of predicted and recorded features of camera {record.view}, over {record.remaining[0]} trajectories; "
        f"each prediction spans {record.seconds:g} s ({record.steps} steps) and begins from the one before.",
    )
    sections = [
        Section("rollout", "Open-loop rollout", "world_rollout", shown),
        Section("latent", "Latent actions", "world_codes", shown),
        facts(facts_of(record)),
    ]
    write_page(out, header, sections)


def _panel(name: str, record: RolloutRecord, colours: Mapping[str, str]) -> Panel:
    plots = [
        curves(
            f"{name}: {patches} patches",
            [drawn for curve, colour in colours.items() for drawn in _band(record, patches, curve, colour)],
            "predictions",
        )
        for patches in PATCHES
    ]
    return Panel(name, {VARIABLES[colour]: CURVES[curve] for curve, colour in colours.items()}, plots)


def _band(record: RolloutRecord, patches: str, name: str, colour: str) -> Sequence[Curve]:
    """The mean, and thin the ends of its interval."""
    own = record.curves[patches][name]
    x = list(range(1, len(own) + 1))
    return (
        Curve(x, [value.mean for value in own], colour, width=1.5),
        Curve(x, [value.low for value in own], colour, alpha=0.35, width=0.7),
        Curve(x, [value.high for value in own], colour, alpha=0.35, width=0.7),
    )
