"""The executors: which action runs now, when a query is due, what is dropped of a late answer, what is refused."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import cycle, repeat

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from wamkit_client.chunk import (
    EXECUTORS,
    Act,
    Ask,
    AsyncExecutor,
    Delays,
    EnsembleExecutor,
    Executor,
    GuidedExecutor,
    Hold,
    SyncExecutor,
)
from wamkit_client.types import WHOLE, ActionChunk, BadInput


def chunk(first: float, length: int = 8) -> ActionChunk:
    return ActionChunk(np.arange(first, first + length, dtype=np.float32)[:, None])


@dataclass
class Drive:
    """What happened in each control step. asks: the step of each query, and what was asked. answered: the step before
    which its answer came. acts: step, action, age."""

    happened: list[str | float] = field(default_factory=list)
    asks: list[tuple[int, Ask]] = field(default_factory=list)
    answered: list[int] = field(default_factory=list)
    acts: list[tuple[int, float, float]] = field(default_factory=list)


def driven(
    executor: Executor, delays: list[int], steps: int, answers: Callable[[int, int], ActionChunk]
) -> Drive:
    """Answer n (from 1), asked at a step, takes its turn of `delays` in control steps. answers: of n and that step."""
    drive, due, waits = Drive(), -1, cycle(delays)
    for step in range(steps):
        if due == step:
            executor.give(answers(len(drive.asks), drive.asks[-1][0]))
        decision = executor.next()
        while isinstance(decision, Ask):
            drive.asks.append((step, decision))
            drive.happened.append(f"ask{''.join(f' {action:g}' for action in decision.previous.ravel())}")
            due = step + next(waits)
            drive.answered.append(due)
            if due == step:
                executor.give(answers(len(drive.asks), step))
            decision = executor.next()
        if isinstance(decision, Act):
            drive.acts.append((step, float(decision.action[0]), decision.age))
        drive.happened.append("hold" if isinstance(decision, Hold) else float(decision.action[0]))
    return drive


def drive(executor: Executor, steps: int, delay: int, length: int = 8) -> list[str | float]:
    """What happens in each control step; every answer takes `delay` of them. Chunk n holds 100 n, 100 n + 1, ..."""
    return driven(executor, [delay], steps, lambda n, step: chunk(100 * n, length)).happened


def test_takes_replan_steps_of_every_chunk() -> None:
    assert drive(SyncExecutor(3), 6, 0) == ["ask", 100, 101, 102, "ask", 200, 201, 202]


def test_a_robot_that_waits_holds_until_the_answer() -> None:
    expected = ["ask", "hold", "hold", 100, 101, 102, "ask", "hold", "hold", 200]
    assert drive(SyncExecutor(3, delay=2), 8, 2) == expected


def test_a_query_in_flight_while_the_chunk_goes_on() -> None:
    """Chunk 2 is asked for before 102 and arrives before 104: its first two actions are of the past."""
    expected = ["ask", "hold", "hold", 100, 101, "ask", 102, 103, 202, 203]
    expected += ["ask", 204, 205, 302, 303, "ask", 304, 305]
    assert drive(AsyncExecutor(4, delay=2), 14, 2) == expected


def test_a_late_answer_finds_later_actions_and_then_a_robot_that_holds() -> None:
    """Chunk 1 has eight actions, of which the query for chunk 2 was to arrive after the third."""
    expected = ["ask", *["hold"] * 7, 100, 101, "ask", 102, 103, 104, 105, 106, 107, "hold"]
    assert drive(AsyncExecutor(3, delay=1), 16, 7) == expected
    # All but two of chunk 2 are of the past, and now it is known that answers take six steps.
    executor = AsyncExecutor(3, delay=1)
    expected = ["ask", *["hold"] * 6, 100, 101, "ask", 102, 103, 104, 105, 106, 107, "ask", 206, 207, "hold"]
    assert drive(executor, 17, 6) == expected


@pytest.mark.parametrize("length", [5, 8, 30])
def test_without_delay_the_executors_agree(length: int) -> None:
    assert drive(AsyncExecutor(5), 20, 0, length) == drive(SyncExecutor(5), 20, 0, length)
    plain = [str(event).partition(" ")[0] for event in drive(GuidedExecutor(5), 20, 0, length)]
    assert plain == [str(event) for event in drive(SyncExecutor(5), 20, 0, length)]


def test_the_delay_is_measured_and_decides_when_to_ask() -> None:
    """The first answer, for which the policy warms up, takes 20 steps and does not count; the others take four."""
    executor = AsyncExecutor(8)
    seen = driven(executor, [20, *[4] * 99], 80, lambda n, step: chunk(100 * n, 16))
    steps = [step for step, _ in seen.asks]
    assert steps[:2] == [0, 28]  # nothing is known yet: after eight actions
    assert steps[2] - steps[1] == 4 + (8 - 4) and set(np.diff(steps[2:])) == {8}
    assert [ask.delay for _, ask in seen.asks] == [0, 0, *[4] * (len(steps) - 2)]
    assert seen.happened.count("hold") == 20


def test_the_expected_delay_is_a_percentile_of_the_last_answers() -> None:
    delays = Delays(3)
    delays.add(1000)  # compiles
    assert delays.expected == 3
    delays.add(2)
    assert delays.expected == 2
    for steps in [1] * 27 + [9] * 4:
        delays.add(steps)
    assert delays.expected == 9  # four of 32 are more than a tenth
    delays.add(1)  # the first of the 32, a 2, is forgotten
    for _ in range(31):
        delays.add(5)
    assert delays.expected == 5


def test_a_new_episode_begins_with_nothing_but_the_measured_delay() -> None:
    for name, kind in EXECUTORS.items():
        executor = kind(4)
        driven(executor, [3], 20, lambda n, step: chunk(100 * n, 12))
        executor.reset()
        ask = executor.next()
        assert isinstance(ask, Ask) and len(ask.previous) == 0, name
        assert ask.delay == (0 if name == "guided" else 3)
        assert isinstance(executor.next(), Hold)


@given(
    name=st.sampled_from(["async", "guided"]),
    replan=st.integers(1, 8),
    delays=st.lists(st.integers(0, 12), min_size=1, max_size=6),
    length=st.integers(8, 20),
)
def test_no_action_is_executed_twice_or_skipped(
    name: str, replan: int, delays: list[int], length: int
) -> None:
    """Chunk n says when: at its i-th action, i actions have been executed since it was asked for."""
    seen = driven(EXECUTORS[name](replan), delays, 120, lambda n, step: chunk(1000 * n, length))
    asked_after = {  # actions executed before query n
        n: sum(at < step for at, _, _ in seen.acts) for n, (step, _) in enumerate(seen.asks, 1)
    }
    for executed, (_, action, _) in enumerate(seen.acts):
        n, row = divmod(int(action), 1000)
        assert executed - asked_after[n] == row
    chunks = [int(action) // 1000 for _, action, _ in seen.acts]
    assert chunks == sorted(chunks)
    holding = 120 - len(seen.acts)
    assert holding == seen.happened.count("hold")
    if max(delays) <= replan and length >= 2 * replan:
        assert holding == delays[0]  # before the first answer only


@given(
    replan=st.integers(1, 6),
    delays=st.lists(st.integers(0, 9), min_size=1, max_size=5),
    length=st.integers(6, 12),
)
def test_guided_says_what_is_left_and_continues_what_was_executed(
    replan: int, delays: list[int], length: int
) -> None:
    seen = driven(GuidedExecutor(replan), delays, 60, lambda n, step: chunk(1000 * n, length))
    for (step, ask), until in zip(seen.asks, seen.answered, strict=True):
        left = ask.previous.ravel().tolist()
        meanwhile = [action for at, action, _ in seen.acts if step <= at < until]
        assert ask.delay <= len(left) <= length
        assert meanwhile == left[: len(meanwhile)]
        assert not left or left[-1] % 1000 == length - 1  # all of it, and nothing that was made up


def moves(each: float, length: int = 8) -> ActionChunk:
    """Two dimensions that say the same; the first is a displacement, the second a target."""
    actions = np.full((length, 2), each, np.float32)
    return ActionChunk(actions, displacements=(0,))


def test_displacements_that_were_not_made_are_made_up_for() -> None:
    executor = AsyncExecutor(replan_steps=4, delay=2)
    assert isinstance(executor.next(), Ask)
    executor.give(moves(1.0))
    executed = [_action(executor) for _ in range(2)]
    assert isinstance(executor.next(), Ask)  # two steps before the four are over
    during = [_action(executor) for _ in range(2)]
    executor.give(moves(3.0))
    after = [_action(executor) for _ in range(2)]
    np.testing.assert_allclose(executed + during, np.ones((4, 2)))
    np.testing.assert_allclose(after, [[4.0, 3.0]] * 2)  # (2 * 3 - 2 * 1) / 4 more, and no target changes
    assert isinstance(executor.next(), Ask)
    rest = [_action(executor) for _ in range(2)]
    # where the answer leads in six steps from its observation
    np.testing.assert_allclose(np.sum(during + after + rest, axis=0)[0], 6 * 3.0)


def test_a_late_answer_that_is_used_up_makes_up_for_nothing() -> None:
    executor = AsyncExecutor(replan_steps=4, delay=0)
    assert isinstance(executor.next(), Ask)
    executor.give(moves(1.0))
    for _ in range(4):
        _action(executor)
    assert isinstance(executor.next(), Ask)
    for _ in range(4):
        _action(executor)
    executor.give(moves(3.0, length=4))
    assert isinstance(executor.next(), Ask) and isinstance(executor.next(), Hold)


def _action(executor: Executor) -> np.ndarray:
    decision = executor.next()
    assert isinstance(decision, Act)
    return decision.action


def test_guided_asks_as_async_does() -> None:
    events = drive(GuidedExecutor(4, delay=2), 14, 2, length=7)
    assert events[5:8] == ["ask 102 103 104 105 106", 102, 103]
    assert [str(event).partition(" ")[0] for event in events] == [
        str(event) for event in drive(AsyncExecutor(4, delay=2), 14, 2, length=7)
    ]


def test_an_ensemble_is_acts_weighted_mean() -> None:
    """Asked every step, chunks of three: at step 2 the chunks of steps 0, 1 and 2 say 2, 11 and 20."""
    executor = EnsembleExecutor(1, decay=0.5)
    seen = driven(executor, [0], 4, lambda n, step: chunk(10 * (n - 1), 3))
    weights = np.exp(-0.5 * np.arange(3))
    assert seen.acts[0][1] == 0.0
    assert seen.acts[1][1] == pytest.approx((weights[:2] @ [1, 10]) / weights[:2].sum())
    assert seen.acts[2][1] == pytest.approx((weights @ [2, 11, 20]) / weights.sum())
    assert seen.acts[3][1] == pytest.approx((weights @ [12, 21, 30]) / weights.sum())  # the oldest has ended
    assert seen.acts[2][2] == pytest.approx((weights @ [2, 1, 0]) / weights.sum())


def test_an_ensemble_with_a_delay_has_each_chunk_at_its_time() -> None:
    """Every chunk says at which step of the episode its action is due, so that means do too."""
    executor, moved = EnsembleExecutor(2, delay=3), 3  # it holds until the first answer
    seen = driven(executor, [3], 40, lambda n, step: chunk(max(step - moved, 0), 9))
    assert [action for _, action, _ in seen.acts] == pytest.approx([float(i) for i in range(40 - moved)])
    assert [step for step, _ in seen.asks] == [0, *range(5, 40, 3)]  # one query at a time
    assert seen.happened.count("hold") == moved
    late = driven(EnsembleExecutor(1), [0, 12], 7, lambda n, step: chunk(100 * n, 4)).happened
    assert late == ["ask", 100, "ask", 101, 102, 103, "hold", "hold", "hold"]


@given(delays=st.lists(st.integers(0, 7), min_size=1, max_size=5), length=st.integers(4, 9))
def test_an_ensemble_of_those_who_agree_is_what_they_say(delays: list[int], length: int) -> None:
    executed = 0

    class Counting(EnsembleExecutor):
        def _take(self, actions: np.ndarray, displacements: list[int]) -> None:
            begins = executed - len(self._executed)
            super()._take(np.arange(begins, begins + length)[:, None] * 1.0, displacements)

    executor = Counting(2)
    due, waits = -1, cycle(delays)
    for step in range(60):
        if step == due:
            executor.give(chunk(0, length))
        decision = executor.next()
        if isinstance(decision, Ask):
            due = step + next(waits)
            if due == step:
                executor.give(chunk(0, length))
            decision = executor.next()
        if isinstance(decision, Act):
            assert decision.action[0] == pytest.approx(executed)
            executed += 1


def test_the_age_of_an_action_is_the_time_since_what_it_was_computed_from() -> None:
    def answers(n: int, step: int) -> ActionChunk:
        return chunk(100 * n)

    assert [age for _, _, age in driven(SyncExecutor(3, 2), [2], 10, answers).acts] == [2, 3, 4] * 2
    assert [age for _, _, age in driven(AsyncExecutor(4, 2), [2], 14, answers).acts] == [2, 3, 4, 5] * 3
    (first, *_) = driven(EnsembleExecutor(1), [0], 1, answers).acts
    assert first[2] == 0.0


def test_only_who_waits_uses_no_more_than_it_executes() -> None:
    assert {name: kind(3).wanted for name, kind in EXECUTORS.items()} == {
        **dict(zip(EXECUTORS, repeat(WHOLE), strict=False)),
        "sync": 3,
    }


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


@pytest.mark.parametrize("name", ["async", "guided", "ensemble"])
def test_a_chunk_that_is_executed_meanwhile_is_longer_by_the_delay(name: str) -> None:
    with pytest.raises(BadInput, match="has 5 actions, expected at least 6"):
        EXECUTORS[name](4, delay=2).give(chunk(0, 5))
    SyncExecutor(4, delay=2).give(chunk(0, 4))


@pytest.mark.parametrize("name", EXECUTORS)
@pytest.mark.parametrize(("replan_steps", "delay"), [(0, 0), (1, -1)])
def test_impossible_numbers_are_refused(name: str, replan_steps: int, delay: int) -> None:
    with pytest.raises(BadInput, match="at least 1 and at least 0"):
        EXECUTORS[name](replan_steps, delay)
    with pytest.raises(BadInput, match="decay is nan"):
        EXECUTORS[name](1, 0, float("nan"))


def test_an_answer_must_come_before_it_is_needed() -> None:
    with pytest.raises(BadInput, match="the delay is 5 steps but replan_steps is 4"):
        AsyncExecutor(4, delay=5)
    expected = ["ask", 100, 101, 102, "ask", 203, 204, 205, "ask", 303]
    assert drive(AsyncExecutor(3, delay=3), 10, 3)[3:] == ["hold", *expected]
