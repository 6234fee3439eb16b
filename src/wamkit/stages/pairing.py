"""Two policies compared episode by episode, on the initial states that both were measured from."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from dataclasses import asdict
from typing import Any

from wamkit_client.stats import paired

from wamkit.report.results import Pair

Solved = Mapping[Hashable, bool]


def solved(results: Mapping[str, Any]) -> dict[Hashable, bool]:
    """By (task, seed of the initial state); crashed episodes are left out."""
    rows = [row for row in results["episodes"] if row["status"] != "error"]
    return {(row["task"], row["seed"]): row["status"] == "success" for row in rows}


def pair(first: str, one: Solved, second: str, other: Solved) -> Pair | None:
    """The paired test of two policies, on what both were measured from; None where that is nothing."""
    both = one.keys() & other.keys()
    if not both:
        return None
    found = paired({key: one[key] for key in both}, {key: other[key] for key in both})
    return Pair(first=first, second=second, **asdict(found))
