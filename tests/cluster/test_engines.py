"""Queries of many simulators, answered by one policy, without a cluster."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from threading import Event

import numpy as np
import pytest
from wamkit_client.types import ActionChunk, BadInput, Observation

from tests.client.toy import Reacher

pytest.importorskip("ray")
from wamkit.cluster.engines import Answers


def seen(target: int) -> Observation:
    return Observation({"eye": np.full((4, 4, 3), target, np.uint8)}, np.zeros(1, np.float32), "reach", "toy")


class Waits(Reacher):
    """Answers when it is told to."""

    def __init__(self) -> None:
        super().__init__()
        self.go, self.asked = Event(), False

    def act(self, observations: Sequence[Observation]) -> list[ActionChunk]:
        self.asked = True
        assert self.go.wait(60)
        return super().act(observations)


@pytest.mark.parametrize(("most", "batches"), [(1, [1] * 6), (3, [1, 3, 2]), (16, [1, 5])])
def test_what_waits_together_is_answered_together(most: int, batches: list[int]) -> None:
    policy, targets = Waits(), [10, 50, 90, 130, 170, 210]

    async def ask() -> list[ActionChunk]:
        answers = Answers(policy, most)
        asked = [asyncio.ensure_future(answers.to(seen(targets[0])))]
        while not policy.asked:
            await asyncio.sleep(0.001)
        asked += [asyncio.ensure_future(answers.to(seen(target))) for target in targets[1:]]
        await asyncio.sleep(0)  # they wait now, while the policy is at the first
        policy.go.set()
        return await asyncio.gather(*asked)

    chunks = asyncio.run(ask())
    assert policy.batches == batches
    for target, chunk in zip(targets, chunks, strict=True):
        [alone] = Reacher().act([seen(target)])
        np.testing.assert_array_equal(chunk.actions, alone.actions)


def test_an_error_of_the_policy_reaches_all_that_it_was_asked_for() -> None:
    class Refuses(Reacher):
        def act(self, observations: Sequence[Observation]) -> list[ActionChunk]:
            raise BadInput("camera missing")

    async def ask() -> list[object]:
        answers = Answers(Refuses(), 16)
        asked = [answers.to(seen(10)) for _ in range(3)]
        return list(await asyncio.gather(*asked, return_exceptions=True))

    assert [str(error) for error in asyncio.run(ask())] == ["camera missing"] * 3
