"""The chunk executor: which action runs now, when a new chunk is due, which chunks are refused."""

from __future__ import annotations

import numpy as np
import pytest
from wamkit_client.chunk import ChunkExecutor
from wamkit_client.types import ActionChunk, BadInput


def chunk(first: int, length: int = 5) -> ActionChunk:
    return ActionChunk(np.arange(first, first + length, dtype=np.float32)[:, None])


def test_takes_replan_steps_of_every_chunk() -> None:
    executor, taken = ChunkExecutor(3), []
    for first in (0, 100):
        assert executor.needs_chunk
        executor.give(chunk(first))
        while not executor.needs_chunk:
            taken.append(float(executor.next_action()[0]))
    assert taken == [0, 1, 2, 100, 101, 102]


def test_an_action_without_a_chunk_is_a_bug() -> None:
    executor = ChunkExecutor(1)
    with pytest.raises(RuntimeError, match="without a chunk"):
        executor.next_action()
    executor.give(chunk(0))
    executor.next_action()
    with pytest.raises(RuntimeError, match="without a chunk"):
        executor.next_action()


@pytest.mark.parametrize(
    ("actions", "message"),
    [
        (np.zeros((2, 1)), "has 2 actions but replan_steps is 3"),
        (np.zeros(4), r"shape \(4,\), expected \[k, a\]"),
        (np.full((4, 1), np.nan), "NaN"),
        (np.full((4, 1), np.inf), "infinity"),
    ],
)
def test_bad_chunks_are_refused(actions: np.ndarray, message: str) -> None:
    with pytest.raises(BadInput, match=message):
        ChunkExecutor(3).give(ActionChunk(actions))


def test_replan_steps_must_be_positive() -> None:
    with pytest.raises(BadInput, match="at least 1"):
        ChunkExecutor(0)
