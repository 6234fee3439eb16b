"""Rows of an evaluation -> success rates with intervals, lengths, latency, smoothness and warnings.

wamkit/eval/evaluate.py documents the numbers. Knows neither files nor policies.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import fields
from typing import Any

import numpy as np
from wamkit_client.smoothness import Smoothness
from wamkit_client.stats import wilson
from wamkit_client.suites import Suite

Row = dict[str, Any]


def summary(suite: Suite, rows: Sequence[Row]) -> dict[str, Any]:
    """total, tasks, groups, latency and smoothness and warnings of the rows of a suite."""
    tasks = {}
    for task in suite.tasks:
        own = [row for row in rows if row["task"] == task.name]
        lengths = [row["steps"] for row in own if row["status"] == "success"]
        tasks[task.name] = {
            **_rate(own),
            "instruction": task.instruction,
            "group": task.group,
            "mean_steps": float(np.mean(lengths)) if lengths else None,
            "expert_steps": task.expert_steps,
        }
    groups = {}
    for group in dict.fromkeys(task.group for task in suite.tasks):
        members = {task.name for task in suite.tasks if task.group == group}
        groups[group] = _rate([row for row in rows if row["task"] in members])
    return {
        "total": _rate(rows),
        "tasks": tasks,
        "groups": groups,
        "latency": _latency(rows),
        "smoothness": smoothness(rows),
        "warnings": warnings(rows),
    }


def _rate(rows: Sequence[Row]) -> dict[str, Any]:
    successes = sum(row["status"] == "success" for row in rows)
    errors = sum(row["status"] == "error" for row in rows)
    trials = len(rows) - errors
    return {
        "successes": successes,
        "trials": trials,
        "errors": errors,
        "rate": successes / trials if trials else None,
        "interval": list(wilson(successes, trials)),
    }


def _latency(rows: Sequence[Row]) -> dict[str, Any]:
    call, milliseconds, batch = (
        np.array([value for row in rows for value in row[key]], dtype=np.float64)
        for key in ("query_call", "query_ms", "query_batch")
    )
    warm, first = call > 0, call == 0
    return {
        "queries": len(call),
        "first_ms": _statistic(np.max, milliseconds[first]),
        "median_ms": _statistic(np.median, milliseconds[warm]),
        "p95_ms": _statistic(lambda values: np.quantile(values, 0.95), milliseconds[warm]),
        "mean_batch": _statistic(np.mean, batch[warm]),
        "median_ms_per_observation": _statistic(np.median, milliseconds[warm] / batch[warm]),
    }


def smoothness(rows: Sequence[Row]) -> dict[str, float | None]:
    """Means over the episodes that say so, and the largest staleness; None where none does."""
    said = [row["smoothness"] for row in rows if row.get("smoothness")]
    found = {
        field.name: np.array([one[field.name] for one in said if one[field.name] is not None], np.float64)
        for field in fields(Smoothness)
    }
    return {
        name: _statistic(np.max if name.startswith("largest") else np.mean, values)
        for name, values in found.items()
    }


def warnings(rows: Sequence[Row]) -> dict[str, int]:
    """Of a watched policy: queries that were compared, those with an alarm, episodes with a comparison, and with an
    alarm; zeros of one that was not watched."""
    said = [[one["alarm"] for one in row["warnings"]] for row in rows if row.get("warnings")]
    return {
        "queries": sum(map(len, said)),
        "alarms": sum(map(sum, said)),
        "episodes": len(said),
        "alarmed": sum(map(any, said)),
    }


def _statistic(function: Callable[[np.ndarray], Any], values: np.ndarray) -> float | None:
    return round(float(function(values)), 3) if len(values) else None
