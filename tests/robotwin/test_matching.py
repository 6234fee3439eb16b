"""Printed episodes and the server's attempts: who is who."""

from __future__ import annotations

import pytest

from wamkit.robotwin.evaluator import Printed
from wamkit.robotwin.matching import match
from wamkit.serve.dialects.xpolicylab import Attempt


def tried(told: dict[str, int], call: int = -1, **facts: str) -> Attempt:
    return Attempt(0, told, calls=[call] if call >= 0 else [], **facts)


def calls(episodes: list[Printed], attempts: list[Attempt]) -> list[int]:
    """The call of every episode's attempt; -1 where none is known."""
    return [found.calls[0] if found.calls else -1 for found in match(episodes, attempts)]


THREE = [Printed(10, "success"), Printed(13, "failure"), Printed(14, "success")]


@pytest.mark.parametrize(
    ("attempts", "expected"),
    [
        ([tried({"seed": 10}, 0), tried({"seed": 13}, 1), tried({"seed": 14}, 2)], [0, 1, 2]),
        ([tried({"seed": 14}, 2), tried({"seed": 10}, 0), tried({"seed": 13}, 1)], [0, 1, 2]),
        ([tried({"episode": 0}, 0), tried({"episode": 1}, 1), tried({"episode": 2}, 2)], [0, 1, 2]),
        ([tried({"seed": 10}), tried({"seed": 10}, 0), tried({"seed": 13}), tried({"seed": 14}, 2)], [0, -1, 2]),
        ([tried({}, 0), tried({}, 1), tried({}, 2)], [-1, -1, -1]),
        ([tried({"seed": 13}, 0), tried({"seed": 13}, 1, outcome="failure")], [-1, 1, -1]),
        ([tried({"seed": 13}, 0), tried({"seed": 13}, 1)], [-1, -1, -1]),
        ([tried({"seed": 10}, 0, outcome="failure"), tried({"seed": 13}, 1, outcome="failure")], [-1, 1, -1]),
    ],
)  # fmt: skip
def test_by_what_was_told(attempts: list[Attempt], expected: list[int]) -> None:
    assert calls(THREE, attempts) == expected


def test_a_seed_that_is_printed_twice() -> None:
    twice = [Printed(10, "failure"), Printed(10, "success"), Printed(11, "success")]
    both = [
        tried({"seed": 10}, 0, outcome="failure"),
        tried({"seed": 10}, 1, outcome="success"),
        tried({"seed": 11}, 2),
    ]
    assert calls(twice, both) == [0, 1, 2]
    assert calls(twice, [tried({"seed": 10}, 7), *both]) == [0, 1, 2]  # one that was given up
    assert calls(twice, both[1:]) == [-1, -1, 2]
    assert calls(twice, [both[1], both[0], both[2]]) == [-1, -1, 2]  # the outcomes contradict


def test_why_it_is_not_known() -> None:
    crashed = Printed(10, "failure", "RuntimeError: no camera")
    assert match([crashed], [tried({"seed": 10})])[0].error == "RuntimeError: no camera"
    assert "asked this policy nothing" in match(THREE, [])[0].error
    assert (
        "told the policy failure and printed success"
        in match(THREE, [tried({"seed": 10}, 0, outcome="failure")])[0].error
    )
    refused = tried({"seed": 10}, error="camera 'x' is missing")
    assert match([crashed], [refused])[0] is refused
