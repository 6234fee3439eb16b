"""Rates that were not measured are no numbers, and crashed environments have names."""

from __future__ import annotations

from wamkit_client.stats import wilson

from wamkit.report.plots import BLUE, RED, Curve, curves
from wamkit.report.rates import Crash, crashed, crashes, rate_curves, told
from wamkit.report.results import Rate

HALF, NOTHING = Rate(1, 2, 0, 0.5, wilson(1, 2)), Rate(0, 0, 2, None, wilson(0, 0))


def test_curves_leave_out_what_was_not_measured() -> None:
    shown = [(BLUE, [(0.0, HALF), (1.0, NOTHING), (2.0, HALF)]), (RED, [(0.0, NOTHING)])]
    assert rate_curves("solved", shown, "delay") == [
        curves("solved", [Curve([0.0, 2.0], [50.0, 50.0], BLUE)], "delay")
    ]
    assert rate_curves("solved", shown[1:], "delay") == []


def test_rates_in_words() -> None:
    assert (told(HALF), told(NOTHING)) == ("50 %", "not measured")


def test_crashes_are_named_in_order() -> None:
    rows = [
        {"task": "push", "seed": 3, "status": "error", "error": "OSError: full\nTraceback"},
        {"task": "push", "seed": 4, "status": "failure", "error": ""},
        {"task": "reach", "seed": 3, "status": "error", "error": "no answer"},
    ]
    found = crashes("lights_off", {"episodes": rows})
    assert found == [
        Crash("lights_off", "push", 3, "OSError: full\nTraceback"),
        Crash("lights_off", "reach", 3, "no answer"),
    ]
    (section,) = crashed(found)
    assert "OSError: full" in section.body and "Traceback" not in section.body and "reach" in section.body
    assert crashed([]) == []
