"""Which queries are answered together, in which order, and which are given up."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Hashable
from contextlib import suppress
from dataclasses import replace
from math import inf
from typing import Any

import numpy as np
import pytest
from wamkit_client.types import BadInput, Observation

from tests.serve.robots import FACTS, Echo
from tests.until import SECONDS
from wamkit.serve.refusals import Refused
from wamkit.serve.scheduler import Answer, Scheduler
from wamkit.serve.served import Served
from wamkit.serve.watch import Timing, Watch
from wamkit.spans import Span

Ask = Callable[..., "asyncio.Task[Answer]"]
WINDOW = 0.1


def seen(words: str, size: int = 8, **changes: Any) -> Observation:
    image = np.zeros((size, size, 3), np.uint8)
    return replace(Observation({"image": image}, np.ones(8, np.float32), words, "panda"), **changes)


def scheduled(
    policy: Echo, story: Callable[[Ask, Scheduler], Awaitable[None]], window: float = 0.0, **config: Any
) -> None:
    """Tell a story in the event loop of a scheduler."""

    async def tell() -> None:
        scheduler, served = Scheduler(window, **config), Served("echo", policy, FACTS)

        def ask(
            *words: str | Observation, robot: Hashable = "", by: float = inf, served: Served = served
        ) -> asyncio.Task[Answer]:
            observations = [seen(one) if isinstance(one, str) else one for one in words]
            return asyncio.create_task(
                scheduler.ask(served, observations, robot or words[0], time.monotonic() + by)
            )

        running = asyncio.create_task(scheduler.run())
        try:
            await asyncio.wait_for(story(ask, scheduler), SECONDS)
        finally:
            policy.go.set()
            running.cancel()
            with suppress(asyncio.CancelledError):
                await running

    asyncio.run(tell())


async def busy(ask: Ask, policy: Echo) -> asyncio.Task[Answer]:
    """A query that keeps the worker until the policy is told to go on."""
    waiting = ask("wait")
    while not policy.calls:
        await asyncio.sleep(0.001)
    return waiting


def test_what_waited_together_is_answered_together() -> None:
    policy = Echo()

    async def story(ask: Ask, scheduler: Scheduler) -> None:
        first = await busy(ask, policy)
        others = [ask(word) for word in "abcde"]
        await asyncio.sleep(0.01)
        assert scheduler.waiting == 5
        policy.go.set()
        await asyncio.gather(first, *others)
        assert [(await one).timing.batch for one in others] == [4, 4, 4, 4, 1]

    scheduled(policy, story, most=4)
    assert policy.instructions == [["wait"], ["a", "b", "c", "d"], ["e"]]


def test_only_what_fits_together() -> None:
    policy, other = Echo(), Echo()

    async def story(ask: Ask, scheduler: Scheduler) -> None:
        first = await busy(ask, policy)
        asked = [
            ask("a"),
            ask(seen("small", size=4), robot=1),
            ask("b", served=Served("other", other, FACTS)),
            ask(seen("fewer", steps=2), robot=2),
            ask(seen("later", delay=2, previous=np.zeros((3, 7), np.float32)), robot=4),
            ask("c"),
            ask(seen("else", embodiment="aloha"), robot=3),
        ]
        policy.go.set()
        await asyncio.gather(first, *asked)

    scheduled(policy, story)
    assert policy.instructions == [["wait"], ["a", "later", "c"], ["small"], ["fewer"], ["else"]]
    assert other.instructions == [["b"]]


def test_observations_of_one_query_stay_together_and_in_order() -> None:
    policy = Echo()

    async def story(ask: Ask, scheduler: Scheduler) -> None:
        first = await busy(ask, policy)
        asked = [ask("a", "b", "c"), ask("d", "e"), ask("f", "g", "h", "i", "j")]
        policy.go.set()
        answers = [await one for one in (first, *asked)]
        assert [len(answer.chunks) for answer in answers] == [1, 3, 2, 5]

    scheduled(policy, story, most=4)
    assert policy.instructions == [["wait"], ["a", "b", "c"], ["d", "e"], ["f", "g", "h", "i", "j"]]


def test_a_newer_observation_of_a_robot_takes_the_place_of_its_older_one() -> None:
    policy = Echo()

    async def story(ask: Ask, scheduler: Scheduler) -> None:
        first = await busy(ask, policy)
        old, other = ask("old", robot="r"), ask("other")
        await asyncio.sleep(0)
        new = ask("new", robot="r")
        with pytest.raises(Refused, match="a newer observation of the same robot") as caught:
            await old
        assert caught.value.reason == "superseded"
        policy.go.set()
        await asyncio.gather(first, other, new)

    scheduled(policy, story)
    assert policy.instructions == [["wait"], ["other", "new"]]


def test_what_is_computed_is_not_superseded() -> None:
    policy = Echo()

    async def story(ask: Ask, scheduler: Scheduler) -> None:
        first = await busy(ask, policy)
        second = ask("again", robot="wait")
        await asyncio.sleep(0)
        policy.go.set()
        await asyncio.gather(first, second)

    scheduled(policy, story)
    assert policy.instructions == [["wait"], ["again"]]


def test_nobody_computes_what_nobody_waits_for() -> None:
    policy = Echo()

    async def story(ask: Ask, scheduler: Scheduler) -> None:
        first = await busy(ask, policy)
        gone, late, kept = ask("gone"), ask("late", by=0.01), ask("kept", by=20)
        await asyncio.sleep(0.03)
        gone.cancel()
        policy.go.set()
        with pytest.raises(Refused, match="its deadline passed") as caught:
            await late
        assert caught.value.reason == "late"
        await asyncio.gather(first, kept)

    scheduled(policy, story)
    assert policy.instructions == [["wait"], ["kept"]]


def test_the_queue_is_bounded() -> None:
    policy = Echo()

    async def story(ask: Ask, scheduler: Scheduler) -> None:
        first = await busy(ask, policy)
        waiting = [ask("a"), ask("b")]
        await asyncio.sleep(0)
        with pytest.raises(Refused, match="2 queries are waiting") as caught:
            await ask("c")
        assert caught.value.reason == "busy"
        newer = ask("again", robot="a")  # takes a place, and needs none
        with pytest.raises(Refused, match="newer"):
            await waiting[0]
        policy.go.set()
        await asyncio.gather(first, waiting[1], newer)
        await ask("c")

    scheduled(policy, story, capacity=2)


def test_a_lonely_robot_waits_for_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of those that asked lately each is waited for, for as long as the window is."""
    monkeypatch.setattr("wamkit.serve.scheduler.AWAKE", SECONDS)
    policy = Echo()

    async def lonely(ask: Ask, scheduler: Scheduler) -> None:
        for _ in range(3):
            await ask("alone")
        await asyncio.gather(ask("alone"), ask("other"))
        waiting = ask("other")
        await asyncio.sleep(0.05)
        assert not waiting.done()
        await asyncio.gather(waiting, ask("alone"))

    scheduled(policy, lonely, window=SECONDS)
    assert policy.instructions == [["alone"]] * 3 + [["alone", "other"], ["other", "alone"]]

    async def for_a_window(ask: Ask, scheduler: Scheduler) -> None:
        await asyncio.gather(ask("alone"), ask("other"))
        assert (await ask("other")).timing.queued >= WINDOW

    scheduled(policy, for_a_window, window=WINDOW)


def test_whose_observation_breaks_the_policy_is_told_alone() -> None:
    policy = Echo()

    async def story(ask: Ask, scheduler: Scheduler) -> None:
        first = await busy(ask, policy)
        asked = [ask("a"), ask("break"), ask("b")]
        policy.go.set()
        with pytest.raises(ZeroDivisionError):
            await asked[1]
        await asyncio.gather(first, asked[0], asked[2])

    scheduled(policy, story)
    assert policy.instructions == [["wait"], ["a", "break", "b"], ["a"], ["break"], ["b"]]


def test_where_the_time_went() -> None:
    class Timed(Echo):
        def act(self, observations: Any) -> Any:
            with Span("images"):
                time.sleep(0.02)
                with Span("codec"):
                    time.sleep(0.03)
            return super().act(observations)

    class Listening(Watch):
        def __init__(self) -> None:
            self.told: list[tuple[str, Timing, int]] = []

        def called(self, policy: str, timing: Timing, waiting: int) -> None:
            self.told.append((policy, timing, waiting))

    policy, watch = Timed(), Listening()

    async def story(ask: Ask, scheduler: Scheduler) -> None:
        timing = (await ask("a")).timing
        assert timing.called >= 0.05 and timing.parts["images"] >= 0.02 and timing.parts["codec"] >= 0.03
        assert timing.parts["images"] + timing.parts["codec"] <= timing.called and timing.batch == 1

    scheduled(policy, story, watch=watch)
    assert [(name, waiting) for name, _, waiting in watch.told] == [("echo", 0)]


def test_an_error_of_the_client_is_one_of_the_client() -> None:
    class Strict(Echo):
        def act(self, observations: Any) -> Any:
            raise BadInput("camera 'image' is missing")

    async def story(ask: Ask, scheduler: Scheduler) -> None:
        with pytest.raises(BadInput, match="camera 'image'"):
            await ask("a")

    scheduled(Strict(), story)
