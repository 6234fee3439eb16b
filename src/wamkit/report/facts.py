"""What a result depends on, as lists of names and values, and how to repeat it. Values are shown as they come."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from wamkit.report.markup import Section, block, escape, paragraphs

Tree = Mapping[str, Any]


@dataclass(frozen=True)
class Facts:
    """groups: facts under a heading each; nested mappings become dotted names.  folded: the same, folded away.
    stage_seconds: wall time by stage, in order (empty: not known).  command: what repeats the result."""

    groups: Mapping[str, Tree]
    folded: Mapping[str, Tree]
    stage_seconds: Mapping[str, float]
    command: str


def facts(shown: Facts) -> Section:
    """The section at the end of a page."""
    body = paragraphs("This result again:") + f"<pre>{escape(shown.command)}</pre>"
    if shown.stage_seconds:
        body += f"<h3>Time per stage</h3>{_stages(shown.stage_seconds)}"
    groups = (f"<div><h3>{escape(title)}</h3>{_list(tree)}</div>" for title, tree in shown.groups.items())
    body += block("div", "facts", "".join(groups))
    for title, tree in shown.folded.items():
        body += f"<details><summary>{escape(title)}</summary>{_list(tree)}</details>"
    return Section("facts", "Run facts", body)


def _list(tree: Tree) -> str:
    items = (f"<dt>{escape(name)}</dt><dd>{escape(_text(value))}</dd>" for name, value in flat(tree).items())
    return f"<dl>{''.join(items)}</dl>"


def flat(tree: Tree, prefix: str = "") -> dict[str, Any]:
    """{"a": {"b": 1}} -> {"a.b": 1}."""
    found: dict[str, Any] = {}
    for name, value in tree.items():
        if isinstance(value, Mapping):
            found |= flat(value, f"{prefix}{name}.")
        else:
            found[prefix + name] = value
    return found


def _text(value: Any) -> str:
    """As JSON says it, without quotes and brackets; whole numbers from 10 000 in groups of three."""
    if isinstance(value, (list, tuple)):
        return ", ".join(_text(item) for item in value)
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int) and abs(value) >= 10_000:
        return f"{value:,}".replace(",", " ")
    return str(value)


def _stages(seconds: Mapping[str, float]) -> str:
    longest = max(1e-9, *seconds.values())
    rows = [
        f'<span>{escape(stage)}</span><i style="width:{100 * value / longest:.1f}%"></i>'
        f'<span class="time">{duration(value)}</span>'
        for stage, value in seconds.items()
    ]
    total = duration(sum(seconds.values()))
    rows.append(f'<strong>together</strong><span></span><strong class="time">{total}</strong>')
    return block("div", "stages", "".join(rows))


def duration(seconds: float) -> str:
    """75 -> "1 min 15 s"."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours} h {minutes} min"
    return f"{minutes} min {rest} s" if minutes else f"{rest} s"
