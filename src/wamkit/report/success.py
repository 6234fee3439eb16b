"""The result of an evaluation: the headline, and a row per task with its interval drawn as a bar."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import asdict, dataclass, fields
from statistics import fmean, median

from wamkit.report.page import Header, Section, percent
from wamkit.report.results import Episode, Motion, Results


@dataclass(frozen=True)
class Success:
    """Speeds are median milliseconds per observation in words: by task, by group, of all. motions: how episodes were
    executed, by task, where that is known."""

    results: Results
    speeds: dict[str, str]
    group_speeds: dict[str, str]
    speed: str
    motions: dict[str, Motion]


def header(title: str, results: Results) -> Header:
    """The result in a sentence, and how it was measured."""
    suite, total = results.suite, results.total
    low, high = total.interval
    headline = f"{total.successes} of {total.trials} episodes solved"
    if total.rate is not None:
        headline += f" ({percent(total.rate)})"
    if total.errors:
        headline += f"; {total.errors} more crashed"
    tasks, episodes = _plural(len(suite["tasks"]), "task"), _plural(suite["episodes"], "episode")
    subline = (
        f"95 % interval {percent(low)} to {percent(high)}. Suite {suite['name']}: {tasks} with {episodes} each, of at "
        f"most {suite['max_steps']} control steps; {results.config['replan_steps']} actions of every chunk are "
        f"executed. {origin(results.demonstrated)}"
    )
    return Header(title, headline, subline)


def origin(demonstrated: int) -> str:
    """Whether episodes began where demonstrations did."""
    if demonstrated:
        return f"No episode begins from one of the {demonstrated} initial states of the demonstrations."
    return "The initial states of the demonstrations were not known to this evaluation."


def success(results: Results) -> Section:
    """The table of tasks, of groups where there are several, and of everything."""
    members = {
        group: [name for name, task in results.tasks.items() if task.group == group]
        for group in results.groups
    }
    shown = Success(
        results=results,
        speeds={name: _speed(results, [name]) for name in results.tasks},
        group_speeds={group: _speed(results, names) for group, names in members.items()},
        speed=_speed(results, results.tasks),
        motions=_motions(results),
    )
    return Section("success", "Success", "success", shown)


def _speed(results: Results, tasks: Collection[str]) -> str:
    """Median milliseconds per observation over the queries of these tasks, without the evaluation's first call."""
    own = [episode for episode in results.episodes if episode.task in tasks]
    queries = [query for e in own for query in zip(e.query_call, e.query_ms, e.query_batch, strict=True)]
    warm = [milliseconds / batch for call, milliseconds, batch in queries if call > 0]
    return f"{median(warm):.1f}" if warm else "not measured"


def _motions(results: Results) -> dict[str, Motion]:
    found = {name: mean_motion([e for e in results.episodes if e.task == name]) for name in results.tasks}
    known = {name: motion for name, motion in found.items() if motion.idle_s is not None}
    return known | ({"all tasks": results.smoothness} if len(known) > 1 else {})


def mean_motion(episodes: Sequence[Episode]) -> Motion:
    """Means over the episodes that say so, and the largest staleness."""
    known = [asdict(episode.smoothness) for episode in episodes if episode.smoothness]
    means = {}
    for name in (field.name for field in fields(Motion)):
        values = [one[name] for one in known if one[name] is not None]
        means[name] = (max if name.startswith("largest") else fmean)(values) if values else None
    return Motion(**means)


def _plural(count: int, word: str) -> str:
    return f"{count} {word}" + ("" if count == 1 else "s")
