"""What a result depends on, as lists of names and values, and how to repeat it. Values are shown as they come."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from wamkit.report.page import Section

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
    return Section("facts", "Run facts", "facts", shown)
