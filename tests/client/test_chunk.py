"""The executors: which action runs now, when a query is due, what is dropped of a late answer, what is refused."""

from __future__ import annotations

from collections import deque

import numpy as np
import pytest
from wamkit_client.chunk import EXECUTORS, Ask, AsyncExecutor, Executor, Hold, SyncExecutor
from wamkit_client.types import ActionChunk, BadInput


def chunk(first: int, length: int = 8) -> ActionChunk:
    return ActionChunk(np.arange(first, first + length, dtype=np.float32)[:, None])


def drive(executor: Executor, steps: int, delay: int) -> list[str | float]:
    """What happens in each control step; every answer takes `delay` of them. Chunk n holds 100 n, 100 n + 1, ..."""
    happened: list[str | float] = []
    arriving: deque[int] = deque()
    asked = 0
    for step in range(steps):
        if arriving and arriving[0] == step:
            arriving.popleft()
            executor.give(chunk(100 * asked))
        decision = executor.next()
        if isinstance(decision, Ask):
            asked += 1
            prefix = "".join(f" {action:g}" for action in decision.prefix.ravel())
            happened.append(f"ask{prefix}")
            if delay:
                arriving.append(step + delay)
            else:
                executor.give(chunk(100 * asked))
            decision = executor.next()
        assert not isinstance(decision, Ask)
        happened.append("hold" if isinstance(decision, Hold) else float(decision.action[0]))
    return happened


def test_takes_replan_steps_of_every_chunk() -> None:
    assert drive(SyncExecutor(3), 6, 0) == ["ask", 100, 101, 102, "ask", 200, 201, 202]


def test_a_robot_that_waits_holds_until_the_answer() -> None:
    expected = ["ask", "hold", "hold", 100, 101, 102, "ask", "hold", "hold", 200]
    assert drive(SyncExecutor(3, delay=2), 8, 2) == expected


def test_a_query_in_flight_while_the_chunk_goes_on() -> None:
    """Chunk 2 is asked for before 102 and arrives before 104: its first two actions are of the past."""
    expected = ["ask", "hold", "hold", 100, 101, "ask 102 103", 102, 103, 202, 203]
    expected += ["ask 204 205", 204, 205, 302, 303, "ask 304 305", 304, 305]
    assert drive(AsyncExecutor(4, delay=2), 14, 2) == expected


def test_a_late_answer_finds_later_actions_and_then_a_robot_that_holds() -> None:
    """Chunk 1 has eight actions, of which the query for chunk 2 was to arrive after the third."""
    expected = ["ask", *["hold"] * 7, 100, 101, "ask 102", 102, 103, 104, 105, 106, 107, "hold"]
    assert drive(AsyncExecutor(3, delay=1), 16, 7) == expected
    # All but two of chunk 2 are of the past; with these executed, the next query is due early.
    expected = [
        "ask",
        *["hold"] * 6,
        100,
        101,
        "ask 102",
        102,
        103,
        104,
        105,
        106,
        107,
        206,
        207,
        "ask",
        "hold",
    ]
    assert drive(AsyncExecutor(3, delay=1), 17, 6) == expected


@pytest.mark.parametrize("length", [5, 8, 30])
def test_without_delay_the_executors_agree(length: int) -> None:
    assert drive(AsyncExecutor(5), 20, 0) == drive(SyncExecutor(5), 20, 0)


@pytest.mark.parametrize("name", EXECUTORS)
@pytest.mark.parametrize(
    ("actions", "message"),
    [
        (np.zeros((2, 1)), "has 2 actions, expected at least 3 .*lower replan_steps by 1"),
        (np.zeros(4), r"shape \(4,\), expected \[k, a\]"),
        (np.full((4, 1), np.nan), "NaN"),
        (np.full((4, 1), np.inf), "infinity"),
    ],
)
def test_bad_chunks_are_refused(name: str, actions: np.ndarray, message: str) -> None:
    with pytest.raises(BadInput, match=message):
        EXECUTORS[name](3).give(ActionChunk(actions))


def test_an_asynchronous_chunk_is_longer_by_the_delay() -> None:
    with pytest.raises(BadInput, match="has 5 actions, expected at least 6"):
        AsyncExecutor(4, delay=2).give(chunk(0, 5))
    SyncExecutor(4, delay=2).give(chunk(0, 4))


@pytest.mark.parametrize("name", EXECUTORS)
@pytest.mark.parametrize(("replan_steps", "delay"), [(0, 0), (1, -1)])
def test_impossible_numbers_are_refused(name: str, replan_steps: int, delay: int) -> None:
    with pytest.raises(BadInput, match="at least 1 and at least 0"):
        EXECUTORS[name](replan_steps, delay)


def test_an_answer_must_come_before_it_is_needed() -> None:
    with pytest.raises(BadInput, match="the delay is 5 steps but replan_steps is 4"):
        AsyncExecutor(4, delay=5)
    assert drive(AsyncExecutor(3, delay=3), 7, 3)[4:] == [
        "ask 100 101 102",
        100,
        101,
        102,
        "ask 203 204 205",
        203,
    ]
