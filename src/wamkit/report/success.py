"""The result of an evaluation: the headline, and a row per task with its interval drawn as a bar.

Knows the layout of results.json (described in evaluate.py), nothing of policies or simulators.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from wamkit.report.markup import Section, block, escape, table
from wamkit.report.page import Header

HEADS = ("Task", "Solved", "Success rate, 95 % interval", "Errors", "ms per query", "Mean steps")
NOTE = (
    "Solved: the simulator reports success at a control step, which ends the episode. The bar is Wilson's 95 % "
    "interval of the success rate, its mark the rate itself. Errors are episodes whose simulator crashed; they do not "
    "count as trials. Milliseconds are the median wall time of a policy call (without the first, which warms up), "
    "divided by the observations in its batch. Mean steps are those of solved episodes, beside the median of the "
    "scripted expert's."
)


def header(title: str, results: Mapping[str, Any]) -> Header:
    """The result in a sentence, and how it was measured."""
    suite, total = results["suite"], results["total"]
    low, high = total["interval"]
    headline = f"{total['successes']} of {total['trials']} episodes solved"
    if total["trials"]:
        headline += f" ({percent(total['rate'])})"
    if total["errors"]:
        headline += f"; {total['errors']} more crashed"
    tasks, episodes = _plural(len(suite["tasks"]), "task"), _plural(suite["episodes"], "episode")
    subline = (
        f"95 % interval {percent(low)} to {percent(high)}. Suite {suite['name']}: {tasks} with {episodes} each, of at "
        f"most {suite['max_steps']} control steps; {results['config']['replan_steps']} actions of every chunk are "
        "executed. "
    )
    return Header(title, headline, subline + origin(results))


def origin(results: Mapping[str, Any]) -> str:
    """Whether episodes began where demonstrations did."""
    if results["demonstrated"]:
        return f"No episode begins from one of the {results['demonstrated']} initial states of the demonstrations."
    return "The initial states of the demonstrations were not known to this evaluation."


def success(results: Mapping[str, Any]) -> Section:
    """The table of tasks, of groups where there are several, and of everything."""
    tasks, groups = results["tasks"], results["groups"]
    rows = [
        _row(_title(name, task), task, _speed(results, [name]), _steps(task)) for name, task in tasks.items()
    ]
    if len(groups) > 1:
        for group, rate in groups.items():
            members = [name for name, task in tasks.items() if task["group"] == group]
            rows.append(_row(escape(f"group {group}"), rate, _speed(results, members), ""))
    if len(tasks) > 1:
        rows.append(_row("all tasks", results["total"], _speed(results, list(tasks)), ""))
    return Section("success", "Success", table(HEADS, rows) + block("p", "note", escape(NOTE)))


def _title(name: str, task: Mapping[str, Any]) -> str:
    return f'{escape(name)}<br><span class="muted">{escape(task["instruction"])}</span>'


def _row(name: str, rate: Mapping[str, Any], speed: str, steps: str) -> tuple[str, ...]:
    solved = f"{rate['successes']} / {rate['trials']}"
    errors = block("span", "bad", str(rate["errors"])) if rate["errors"] else "0"
    return name, solved, interval(rate), errors, speed, steps


def interval(rate: Mapping[str, Any]) -> str:
    """The rate and its interval on a scale from 0 to 100 %, drawn and in figures; markup."""
    low, high = rate["interval"]
    mark = f'<b style="left:{100 * rate["rate"]:.1f}%"></b>' if rate["trials"] else ""
    bar = f'<span class="track"><i style="left:{100 * low:.1f}%;width:{100 * (high - low):.1f}%"></i>{mark}</span>'
    text = f"{100 * low:.0f}–{100 * high:.0f} %"
    return f'<span class="interval">{bar}<span>{text}</span></span>'


def _speed(results: Mapping[str, Any], tasks: Sequence[str]) -> str:
    """Median milliseconds per observation over the queries of these tasks, without the evaluation's first call."""
    episodes = [episode for episode in results["episodes"] if episode["task"] in tasks]
    call, milliseconds, batch = (
        np.array([value for episode in episodes for value in episode[key]])
        for key in ("query_call", "query_ms", "query_batch")
    )
    warm = call > 0
    return f"{np.median(milliseconds[warm] / batch[warm]):.1f}" if warm.any() else "not measured"


def _steps(task: Mapping[str, Any]) -> str:
    expert = f'<span class="muted">(expert {task["expert_steps"]})</span>' if task["expert_steps"] else ""
    return f"none {expert}" if task["mean_steps"] is None else f"{task['mean_steps']:.0f} {expert}"


def percent(share: float) -> str:
    """0.956 -> "95.6 %"; whole numbers without decimals."""
    return f"{100 * share:.1f} %".replace(".0 %", " %")


def _plural(count: int, word: str) -> str:
    return f"{count} {word}" + ("" if count == 1 else "s")
