"""The table of tasks, the headline, the facts."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from wamkit_client.stats import wilson

from tests.report.slider import evaluation
from wamkit.report.facts import Facts, facts
from wamkit.report.page import Header, duration, percent, templates
from wamkit.report.results import RATE, RESULTS
from wamkit.report.success import header, success


def said_of(results: dict[str, Any]) -> Header:
    return header("a run", RESULTS.validate_python(results))


def table_of(results: dict[str, Any]) -> str:
    return success(RESULTS.validate_python(results)).body


def interval(rate: dict[str, Any]) -> str:
    """As tables draw it."""
    parts = templates().get_template("parts.html.j2").module
    return str(parts.interval(RATE.validate_python({"successes": 0, "errors": 0, **rate})))


@pytest.fixture
def results(tmp_path: Path) -> dict[str, Any]:
    return evaluation(tmp_path, "slide", "stuck")


def test_the_headline_says_the_result(results: dict[str, Any]) -> None:
    said = said_of(results)
    low, high = wilson(2, 4)
    assert said.headline == "2 of 4 episodes solved (50 %)"
    assert f"95 % interval {percent(low)} to {percent(high)}." in said.subline
    assert "2 tasks with 2 episodes each, of at most 40 control steps; 4 actions" in said.subline
    assert "were not known" in said.subline
    results["demonstrated"] = 120
    results["total"] |= {"errors": 1}
    said = said_of(results)
    assert said.headline.endswith("; 1 more crashed") and "one of the 120 initial states" in said.subline


def test_without_a_trial_there_is_no_rate(results: dict[str, Any]) -> None:
    nothing = {"successes": 0, "trials": 0, "errors": 4, "rate": None, "interval": [0.0, 1.0]}
    results["total"] |= nothing
    assert said_of(results).headline == "0 of 0 episodes solved; 4 more crashed"
    assert "<b" not in interval(nothing) and "0–100 %" in interval(nothing)


def test_the_bar_is_the_interval() -> None:
    low, high = wilson(19, 20)
    drawn = interval({"trials": 20, "rate": 0.95, "interval": [low, high]})
    start, width = (float(x) for x in re.search(r"left:([\d.]+)%;width:([\d.]+)%", drawn).groups())
    assert abs(start - 100 * low) < 0.06 and abs(start + width - 100 * high) < 0.11
    assert '<b style="left:95.0%">' in drawn


def test_rows_of_tasks_and_of_all(results: dict[str, Any]) -> None:
    body = table_of(results)
    slide, stuck, everything = re.findall(r"<tr><th.*?</tr>", body, re.DOTALL)[1:]
    assert "2 / 2" in slide and "24 " in slide and "(expert 20)" in slide and "2.0" in slide
    assert "0 / 2" in stuck and "none" in stuck
    assert "all tasks" in everything and "2 / 4" in everything
    assert "group" not in body


def test_groups_have_rows_when_there_are_several(results: dict[str, Any]) -> None:
    results["tasks"]["stuck"]["group"] = "hard"
    results["groups"]["hard"] = {k: results["tasks"]["stuck"][k] for k in results["total"]}
    body = table_of(results)
    assert "group slides" in body and "group hard" in body


def test_errors_stand_out_and_missing_times_are_said(results: dict[str, Any]) -> None:
    results["tasks"]["slide"]["errors"] = 3
    for row in results["episodes"]:
        row["query_call"] = [0] * len(row["query_call"])
    body = table_of(results)
    assert '<span class="bad">3</span>' in body and "not measured" in body


def test_text_from_outside_is_escaped(results: dict[str, Any]) -> None:
    results["tasks"]["slide"]["instruction"] = "<script>alert(1)</script>"
    assert "<script>" not in table_of(results)
    shown = Facts({"a <b>": {"x": "<i>"}}, {}, {}, "run > log")
    body = facts(shown).body
    assert "<b>" not in body and "<i>" not in body and "run &gt; log" in body


def test_facts_are_flat_and_readable() -> None:
    body = facts(Facts({"A": {"a": {"b": {"c": 1}}, "d": [1, 2]}}, {}, {}, "c")).body
    assert "<dt>a.b.c</dt><dd>1</dd>" in body and "<dt>d</dt><dd>1, 2</dd>" in body
    body = facts(
        Facts({"Run": {"size": 1_986_819_434, "ok": True, "views": ["a", "b"]}}, {"All": {"k": 0}}, {}, "c")
    ).body
    assert "1 986 819 434" in body and "yes" in body and "a, b" in body
    assert "<summary>All</summary>" in body and "Time per stage" not in body


def test_stages_are_drawn_and_added_up() -> None:
    body = facts(Facts({}, {}, {"collect": 30.0, "train": 60.0}, "c")).body
    assert "width:50.0%" in body and "width:100.0%" in body and "1 min 30 s" in body
    assert [duration(s) for s in (0.4, 59.6, 61, 3700)] == ["0 s", "1 min 0 s", "1 min 1 s", "1 h 1 min"]
