"""The page of a comparison: who solved how much, which differences are real, what each policy costs, its curves.

Everything it says stands in comparison.json, written by stages/compare.py; the curves are read from the run
directories beside the page. It trains and measures nothing.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from markupsafe import Markup

from wamkit.report.facts import Facts, facts
from wamkit.report.page import Header, Section, percent, write_page
from wamkit.report.plots import BLUE, GREEN, INK, ORANGE, RED, SOFT, VARIABLES, Curve, curves
from wamkit.report.results import Arm, Compared, EarlierStage, Pair
from wamkit.report.success import origin
from wamkit.report.training import read_metrics

COLOURS = (BLUE, ORANGE, GREEN, RED, INK, SOFT)
LEVEL = 0.05


@dataclass(frozen=True)
class Differences:
    """suites: tests by suite. count: of tests. edge: the bars reach from minus to plus this difference of rates.
    level: of all tests together."""

    suites: Mapping[str, list[Pair]]
    count: int
    edge: float
    level: float = LEVEL


@dataclass(frozen=True)
class Cost:
    """stages: what arms start from, each once; starting: these arms, by its recipe."""

    compared: Compared
    stages: list[EarlierStage]
    starting: dict[str, list[Arm]]


@dataclass(frozen=True)
class Panels:
    """Curves of one kind of policy. about: the quantities. colours: as CSS, by recipe. plots: one per loss."""

    kind: str
    about: str
    colours: dict[str, str]
    plots: list[Markup]


def write_comparison_page(out: Path, compared: Compared) -> None:
    """Write the page; run directories lie beside it. BadInput where a metrics.jsonl is missing or damaged."""
    sections = [
        success(compared),
        differences(compared),
        cost(compared),
        training(compared, out.parent),
        facts(_facts(compared)),
    ]
    write_page(out, header(compared), sections)


def header(compared: Compared) -> Header:
    """The question, the result in a sentence, and what was held equal."""
    suite, seeds = compared.suite, compared.seeds
    rates = [arm.total.rate for arm in compared.arms if arm.total.rate is not None]
    if not rates:
        headline = "Nothing was measured: every episode crashed"
    elif min(rates) == max(rates):
        headline = f"{percent(rates[0])} of the episodes solved by every policy"
    else:
        headline = f"From {percent(min(rates))} to {percent(max(rates))} of the episodes solved"
    subline = (
        f"Each trained with {'seed' if len(seeds) == 1 else 'seeds'} {_listed(seeds)} on "
        f"{compared.dataset['episodes']} demonstrations: {_steps(compared)} of {compared.batch_size} samples, and "
        f"the same samples at every step for every policy. Measured on {len(suite['tasks'])} tasks with "
        f"{suite['episodes']} episodes per seed. {origin(compared.demonstrated)} {_verdict(compared.tests)}"
    )
    policies = f"which of {len(compared.arms)} policies"
    spent = "the same steps" if len(_numbers(compared)) == 1 else "equal time"
    question = f"{suite['name']}: {policies} learns most from the same data in {spent}?"
    return Header(question, headline, subline)


def _numbers(compared: Compared) -> dict[int, list[str]]:
    """The arms by their number of steps."""
    found: dict[int, list[str]] = {}
    for arm in compared.arms:
        found.setdefault(compared.steps_of(arm), []).append(arm.name)
    return found


def _steps(compared: Compared) -> str:
    found = _numbers(compared)
    if len(found) == 1:
        return f"{compared.steps} steps"
    return "; ".join(f"{', '.join(names)} {steps} steps" for steps, names in found.items())


def _verdict(pairs: Sequence[Pair]) -> str:
    if not pairs:
        return ""
    found = sum(pair.p_value < LEVEL / len(pairs) for pair in pairs)
    return f"{found} of {len(pairs)} paired tests find a difference (p below {LEVEL:g} / {len(pairs)})."


def success(compared: Compared) -> Section:
    """Everything at a glance, then task by task with intervals."""
    return Section("success", "Success", "comparison_success", compared)


def differences(compared: Compared) -> Section:
    """A paired test per row, suite by suite."""
    tests = compared.tests
    if not tests:
        return Section(
            "differences", "Differences", "paragraphs", ["There is one policy, and nothing to compare."]
        )
    edge = max(0.01, *(abs(bound) for pair in tests for bound in pair.interval))
    suites = {compared.suite["name"]: compared.pairs}
    suites |= {other.suite["name"]: other.pairs for other in compared.also}
    return Section(
        "differences", "Differences", "comparison_differences", Differences(suites, len(tests), edge)
    )


def cost(compared: Compared) -> Section:
    """Parameters, and times measured side by side."""
    stages = {stage.recipe: stage for arm in compared.arms for stage in arm.earlier}
    starting = {
        name: [arm for arm in compared.arms if stage in arm.earlier] for name, stage in stages.items()
    }
    return Section("cost", "Cost", "comparison_cost", Cost(compared, list(stages.values()), starting))


def training(compared: Compared, folder: Path) -> Section:
    """A panel per kind of policy and loss, with every policy and seed of that kind."""
    metrics = {row.name: read_metrics(folder / row.name / "metrics.jsonl") for row in compared.rows}
    panels = []
    for kind in dict.fromkeys(arm.kind for arm in compared.arms):
        arms = [arm for arm in compared.arms if arm.kind == kind]
        colours = {arm.name: COLOURS[number % len(COLOURS)] for number, arm in enumerate(arms)}
        runs = [(colours[row.recipe], metrics[row.name]) for row in compared.rows if row.recipe in colours]
        losses = dict.fromkeys(
            name for _, rows in runs for name in sorted(rows[-1]) if name.startswith("loss/")
        )
        plots = [_panel(kind, loss, runs) for loss in losses]
        css = {name: VARIABLES[colour] for name, colour in colours.items()}
        panels.append(Panels(kind, arms[0].about_losses, css, plots))
    return Section("training", "Training", "comparison_training", panels)


def _panel(kind: str, loss: str, runs: Sequence[tuple[str, Sequence[Mapping[str, float]]]]) -> Markup:
    shown = [
        Curve([row["step"] for row in rows], [row[loss] for row in rows], colour)
        for colour, rows in runs
        if loss in rows[-1]
    ]
    title = f"{loss.removeprefix('loss/')} loss, {kind.replace('_', ' ')}"
    return curves(title, shown, "step", log=all(value > 0 for curve in shown for value in curve.y))


def _facts(compared: Compared) -> Facts:
    origins = [origin for row in compared.rows for origin in (row.trained, row.measured)]
    first_rows = {row.recipe: row for row in reversed(compared.rows)}
    return Facts(
        groups={
            "training": {
                "seeds": compared.seeds,
                "steps": _steps(compared).removesuffix(" steps"),
                "batch size": compared.batch_size,
                "samples of an epoch": compared.samples.count or "not recorded",
                "their order": compared.samples.order[:16] or "that of one latent cache",
                "machines": list(dict.fromkeys(origin["machine"]["cpu"] for origin in origins)),
                "revisions": list(dict.fromkeys(origin["revision"] for origin in origins)),
            },
            "dataset": compared.dataset,
            "simulator": {
                **compared.simulator["versions"],
                "OpenGL": compared.simulator["opengl"],
                "episodes per task and seed": compared.suite["episodes"],
                "at most": f"{compared.suite['max_steps']} steps",
            },
            "this page": {"revision": compared.revision, **compared.versions},
            "cost measured on": compared.cost["machine"],
        },
        folded={arm.name: first_rows[arm.name].run for arm in compared.arms}
        | {stage.recipe: stage.run for arm in compared.arms for stage in arm.earlier},
        stage_seconds={},
        command=compared.command,
    )


def _listed(values: Sequence[Any]) -> str:
    *before, last = map(str, values)
    return f"{', '.join(before)} and {last}" if before else last
