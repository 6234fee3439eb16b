"""What a long job says of itself: how far it is, how long it will take, how fast it is."""

from __future__ import annotations

import io
from collections.abc import Iterator

import pytest
from rich.console import Console

from wamkit.io import progress
from wamkit.io.progress import bar, duration, throughput


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[float]]:
    """Its one number is the time."""
    now = [0.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: now[0])
    yield now


def printed(monkeypatch: pytest.MonkeyPatch, terminal: bool) -> io.StringIO:
    out = io.StringIO()
    monkeypatch.setattr(progress, "console", Console(file=out, force_terminal=terminal, width=200))
    return out


def test_the_first_line_has_throughput_and_time_left(monkeypatch, clock):
    out = printed(monkeypatch, terminal=False)
    with bar("train", 1000, "steps", 100, {"steps": 1, "samples": 64}) as advance:
        for step in range(12):
            clock[0] = step + 1.0
            advance(1, f"loss {step}")
    first, last = out.getvalue().splitlines()
    assert first == "train     110/1000 steps  10 s, 15 min left, 1 steps/s, 64 samples/s  loss 9"
    assert last == "train     112/1000 steps  12 s, 15 min left, 1 steps/s, 64 samples/s  loss 11"


def test_other_jobs_say_how_long_alone(monkeypatch, clock):
    out = printed(monkeypatch, terminal=False)
    with bar("report", 4, "sections") as advance:
        clock[0] = 20.0
        advance()
    assert out.getvalue().splitlines()[0] == "report    1/4 sections  20 s, 60 s left  "


def test_before_anything_is_done_nothing_is_estimated(monkeypatch, clock):
    out = printed(monkeypatch, terminal=False)
    with bar("train", 10, "steps", 5, {"steps": 1}):
        pass
    assert out.getvalue() == "train     5/10 steps  0 s, time left unknown  \n"


def test_a_terminal_shows_the_same(monkeypatch):
    out = printed(monkeypatch, terminal=True)
    with bar("train", 10, "steps", 0, {"steps": 1, "samples": 8}) as advance:
        advance(10, "loss 1")
    assert " samples/s" in out.getvalue() and "loss 1" in out.getvalue() and "10/10" in out.getvalue()


@pytest.mark.parametrize(
    ("seconds", "said"),
    [
        (0.4, "0 s"),
        (599, "599 s"),
        (600, "10 min"),
        (3599, "1 h 0 min"),
        (3660, "1 h 1 min"),
        (90_000, "25 h 0 min"),
    ],
)
def test_durations(seconds, said):
    assert duration(seconds) == said


def test_rates():
    assert throughput(3, 2.0, {"steps": 1, "samples": 64}) == "1.5 steps/s, 96 samples/s"
    assert throughput(60, 2.0, {"steps": 1, "samples": 64}) == "30 steps/s, 1920 samples/s"
    assert (
        throughput(0, 2.0, {"steps": 1}) == throughput(1, 0.0, {"steps": 1}) == throughput(1, 2.0, {}) == ""
    )
