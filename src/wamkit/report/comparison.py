"""The page of a comparison: who solved how much, which differences are real, what each policy costs, its curves.

Everything it says stands in comparison.json, written by compare.py; the curves are read from the run directories
beside the page. It trains and measures nothing.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from wamkit.report.facts import Facts, duration, facts
from wamkit.report.markup import Section, block, escape, figures, paragraphs, table
from wamkit.report.page import Header, write_page
from wamkit.report.plots import BLUE, GREEN, INK, ORANGE, RED, SOFT, VARIABLES, Curve, curves
from wamkit.report.success import interval, origin, percent
from wamkit.report.training import read_metrics

Tree = Mapping[str, Any]

COLOURS = (BLUE, ORANGE, GREEN, RED, INK, SOFT)
LEVEL = 0.05

# What the numbers of a curve are, by kind of policy: they are not the same quantity.
LOSSES = {
    "light_wam": "action: squared error of the regressed chunk; video: flow matching of the future latents",
    "fast_wam": "action and video: flow matching, the squared error of a predicted velocity (never zero)",
}


def write_comparison_page(out: Path, comparison: Tree) -> None:
    """Write the page; run directories lie beside it. BadInput where a metrics.jsonl is missing or damaged."""
    sections = [
        success(comparison),
        differences(comparison),
        cost(comparison),
        training(comparison, out.parent),
        facts(_facts(comparison)),
    ]
    write_page(out, header(comparison), sections)


def header(comparison: Tree) -> Header:
    """The question, the result in a sentence, and what was held equal."""
    suite, arms, seeds = comparison["suite"], comparison["arms"], comparison["seeds"]
    question = (
        f"{suite['name']}: which of {len(arms)} policies learns most from the same data in the same steps?"
    )
    rates = [arm["total"]["rate"] for arm in arms if arm["total"]["trials"]]
    if not rates:
        headline = "Nothing was measured: every episode crashed"
    elif min(rates) == max(rates):
        headline = f"{percent(rates[0])} of the episodes solved by every policy"
    else:
        headline = f"From {percent(min(rates))} to {percent(max(rates))} of the episodes solved"
    data, each = comparison["dataset"], "seed" if len(seeds) == 1 else "seeds"
    subline = (
        f"Each trained with {each} {_listed(seeds)} on {data['episodes']} demonstrations: {comparison['steps']} steps "
        f"of {comparison['batch_size']} samples, and the same samples at every step for every policy. Measured on "
        f"{len(suite['tasks'])} tasks with {suite['episodes']} episodes per seed. {origin(comparison)} "
        f"{_verdict(comparison['pairs'])}"
    )
    return Header(question, headline, subline)


def _verdict(pairs: Sequence[Tree]) -> str:
    if not pairs:
        return ""
    found = sum(pair["p_value"] < LEVEL / len(pairs) for pair in pairs)
    return f"{found} of {len(pairs)} paired tests find a difference (p below {LEVEL:g} / {len(pairs)})."


def success(comparison: Tree) -> Section:
    """Everything at a glance, then task by task with intervals."""
    arms, tasks = comparison["arms"], comparison["suite"]["tasks"]
    names = [task["name"] for task in tasks]
    rows = [
        (
            _title(arm),
            f'{_count(arm["total"])}<br><span class="muted">{_each_seed(arm)}</span>',
            interval(arm["total"]),
            *(_count(arm["tasks"][name]) for name in names),
        )
        for arm in arms
    ]
    heads = ("Policy", "Solved (each seed)", "Success rate, 95 % interval", *names)
    body = block("div", "strip-scroll wide", table(heads, rows))
    for task in tasks:
        body += f"<h3>{escape(task['name'])} <small>{escape(task['instruction'])}</small></h3>"
        body += table(("Policy", *TASK_HEADS), [_task_row(arm, task["name"]) for arm in arms])
    return Section("success", "Success", body + block("p", "note", escape(SUCCESS_NOTE)))


TASK_HEADS = ("Solved", "Success rate, 95 % interval", "Errors", "Mean steps")
SUCCESS_NOTE = (
    "Solved episodes of all training seeds together; intervals are Wilson's. They treat episodes as independent, which "
    "those of one trained policy are not quite: how much the seeds differ from each other says more than the width of "
    "an interval. Errors are episodes whose simulator crashed; they do not count. Mean steps are those of solved "
    "episodes."
)


def _title(arm: Tree) -> str:
    about = ", ".join((arm["kind"], *(f"{name} {value}" for name, value in arm["identity"].items())))
    return f'{escape(arm["name"])}<br><span class="muted">{escape(about.replace("_", " "))}</span>'


def _count(rate: Tree) -> str:
    return f"{rate['successes']} / {rate['trials']}"


def _each_seed(arm: Tree) -> str:
    return ", ".join(str(rate["successes"]) for rate in arm["seeds"].values())


def _task_row(arm: Tree, task: str) -> tuple[str, ...]:
    rate = arm["tasks"][task]
    errors = block("span", "bad", str(rate["errors"])) if rate["errors"] else "0"
    steps = "none" if rate["mean_steps"] is None else f"{rate['mean_steps']:.0f}"
    return escape(arm["name"]), _count(rate), interval(rate), errors, steps


def differences(comparison: Tree) -> Section:
    """A paired test per row."""
    pairs = comparison["pairs"]
    if not pairs:
        return Section(
            "differences", "Differences", paragraphs("There is one policy, and nothing to compare.")
        )
    edge = max(0.01, *(abs(bound) for pair in pairs for bound in pair["interval"]))
    text = (
        "Every policy begins from the same initial states, so episodes are compared one by one: same training seed, "
        "same task, same initial state. Each policy is compared with the first of its kind, and the first of another "
        "kind with the first of all."
    )
    note = (
        "p: McNemar's exact two-sided test, which looks only at episodes that just one of the two solved. "
        f"{len(pairs)} tests are made here, and each may be wrong: read as a difference only a p below "
        f"{LEVEL:g} / {len(pairs)} = {LEVEL / len(pairs):.2g}. Intervals are Bonett and Price's, 95 %, each alone. "
        "Training seeds share their initial states, so that pairs of several seeds are not quite independent. Crashed "
        f"episodes are left out, with their partner. The bars reach from {_points(-edge)} to {_points(edge)}."
    )
    heads = ("Policy", "Difference in points, 95 % interval", "Solved only by it, only by the other", "p")
    rows = [_pair_row(pair, edge) for pair in pairs]
    return Section(
        "differences", "Differences", paragraphs(text) + table(heads, rows) + block("p", "note", escape(note))
    )


def _pair_row(pair: Tree, edge: float) -> tuple[str, ...]:
    names = f'{escape(pair["second"])}<br><span class="muted">against {escape(pair["first"])}</span>'
    only = f"{pair['only_second']}, {pair['only_first']}"
    small = pair["p_value"] < 0.0001
    return names, _difference(pair, edge), only, "&lt; 0.0001" if small else f"{pair['p_value']:.2g}"


def _difference(pair: Tree, edge: float) -> str:
    """The difference and its interval, drawn around zero and in figures; markup."""
    low, high = (50 + 50 * bound / edge for bound in pair["interval"])
    middle = 50 + 50 * pair["difference"] / edge
    bar = (
        f'<span class="track"><em></em><i style="left:{low:.1f}%;width:{high - low:.1f}%"></i>'
        f'<b style="left:{middle:.1f}%"></b></span>'
    )
    low_points, high_points = map(_points, pair["interval"])
    text = f"{_points(pair['difference'])} ({low_points} to {high_points})"
    return f'<span class="interval difference">{bar}<span>{text}</span></span>'


def _points(difference: float) -> str:
    return f"{100 * difference:+.1f}".replace("-", "−").replace("+0.0", "0.0")


def cost(comparison: Tree) -> Section:
    """Parameters, and times measured side by side."""
    arms, where = comparison["arms"], comparison["cost"]
    first = arms[0]
    rows = []
    for arm in arms:
        whole = duration(comparison["steps"] * arm["step_seconds"])
        rows.append(
            (
                escape(arm["name"]),
                _millions(arm["parameters"]["total"]),
                _millions(arm["parameters"]["trained"]),
                f"{arm['query_ms']:.1f} {_times(arm['query_ms'], first['query_ms'])}",
                f"{arm['step_seconds']:.3f} {_times(arm['step_seconds'], first['step_seconds'])}",
                whole,
            )
        )
    heads = ("Policy", "Parameters", "Trained", "ms per query", "s per training step", "Whole training")
    device = where["machine"]
    text = (
        "A query is one observation, from pictures to a chunk of actions; a step is forward, backward and optimizer on "
        f"a cached batch of {where['batch_size']}. All policies take turns in one process, so that whatever else the "
        "machine does slows all of them alike; medians, and behind them the ratio to the first policy. The whole "
        "training is the number of steps times a step."
    )
    note = f"{device['cpu']}, {device['device']}, {device['threads']} thread(s)."
    return Section("cost", "Cost", paragraphs(text) + table(heads, rows) + block("p", "note", escape(note)))


def _times(value: float, first: float) -> str:
    return f'<span class="muted">× {value / first:.2f}</span>'


def _millions(count: int) -> str:
    return f"{count / 1e6:,.2f} M"


def training(comparison: Tree, folder: Path) -> Section:
    """A panel per kind of policy and loss, with every policy and seed of that kind."""
    body = paragraphs(
        "Every line is one training run, every point a mean over the steps since the point before; logarithmic scale. "
        "Losses of different kinds of policy are different quantities and have panels of their own; a lower loss is "
        "not a better policy."
    )
    metrics = {
        row["name"]: read_metrics(folder / row["name"] / "metrics.jsonl") for row in comparison["rows"]
    }
    for kind in dict.fromkeys(arm["kind"] for arm in comparison["arms"]):
        arms = [arm["name"] for arm in comparison["arms"] if arm["kind"] == kind]
        colours = {name: COLOURS[number % len(COLOURS)] for number, name in enumerate(arms)}
        runs = [
            (row["recipe"], metrics[row["name"]]) for row in comparison["rows"] if row["recipe"] in colours
        ]
        losses = dict.fromkeys(
            name for _, rows in runs for name in sorted(rows[-1]) if name.startswith("loss/")
        )
        keys = "".join(
            f'<span class="key"><i style="background:{VARIABLES[colour]}"></i>{escape(name)}</span>'
            for name, colour in colours.items()
        )
        body += f"<h3>{escape(kind.replace('_', ' '))} <small>{escape(LOSSES.get(kind, ''))}</small></h3>"
        body += block("p", "keys", keys) + figures(
            "plots", [_panel(kind, loss, runs, colours) for loss in losses]
        )
    return Section("training", "Training", body)


def _panel(
    kind: str, loss: str, runs: Sequence[tuple[str, Sequence[Tree]]], colours: Mapping[str, str]
) -> str:
    shown = [
        Curve([row["step"] for row in rows], [row[loss] for row in rows], colours[name])
        for name, rows in runs
        if loss in rows[-1]
    ]
    title = f"{loss.removeprefix('loss/')} loss, {kind.replace('_', ' ')}"
    return curves(title, shown, "step", log=all(value > 0 for curve in shown for value in curve.y))


def _facts(comparison: Tree) -> Facts:
    rows = comparison["rows"]
    revisions = dict.fromkeys(row[part]["revision"] for row in rows for part in ("trained", "measured"))
    machines = dict.fromkeys(row[part]["machine"]["cpu"] for row in rows for part in ("trained", "measured"))
    first_rows = {row["recipe"]: row for row in reversed(rows)}
    return Facts(
        groups={
            "training": {
                "seeds": comparison["seeds"],
                "steps": comparison["steps"],
                "batch size": comparison["batch_size"],
                "machines": list(machines),
                "revisions": list(revisions),
            },
            "dataset": comparison["dataset"],
            "simulator": {
                **comparison["simulator"]["versions"],
                "OpenGL": comparison["simulator"]["opengl"],
                "episodes per task and seed": comparison["suite"]["episodes"],
                "at most": f"{comparison['suite']['max_steps']} steps",
            },
            "this page": {"revision": comparison["revision"], **comparison["versions"]},
            "cost measured on": comparison["cost"]["machine"],
        },
        folded={arm["name"]: first_rows[arm["name"]]["run"] for arm in comparison["arms"]},
        stage_seconds={},
        command=comparison["command"],
    )


def _listed(values: Sequence[Any]) -> str:
    *before, last = map(str, values)
    return f"{', '.join(before)} and {last}" if before else last
