"""Counting the values of a message from its headers."""

from __future__ import annotations

import random
from datetime import UTC, datetime

import msgpack
import pytest
from wamkit_client.codec import KINDS, more_values_than


def count(value: object) -> int:
    if isinstance(value, dict):
        return 1 + sum(count(key) + count(own) for key, own in value.items())
    return 1 + sum(map(count, value)) if isinstance(value, list) else 1


ATOMS = [
    *(None, True, False, 0, 127, 128, 255, 256, 2**16, 2**32, 2**64 - 1, -1, -32, -33, -129, -(2**15) - 1, -(2**63)),
    *(0.5, "", "a" * 31, "a" * 32, "a" * 256, "a" * 70_000, b"", b"b" * 255, b"b" * 256, b"b" * 70_000),
    *(msgpack.ExtType(5, b"x" * size) for size in (0, 1, 2, 3, 4, 8, 16, 17, 300, 70_000)),
    datetime(2026, 1, 1, tzinfo=UTC),
]  # fmt: skip
CONTAINERS = [
    [],
    {},
    [0] * 15,
    [0] * 16,
    ["a"] * 70_000,
    {i: [i] for i in range(15)},
    {i: {} for i in range(70_000)},
]


@pytest.mark.parametrize(
    "value", [*ATOMS, *CONTAINERS, [ATOMS, {"x": CONTAINERS}]], ids=lambda value: str(value)[:20]
)
def test_every_kind_of_value(value: object) -> None:
    message = msgpack.packb([value, value], datetime=True)
    most = count([value, value])
    assert not more_values_than(most, message) and more_values_than(most - 1, message)


def test_the_table_has_a_row_for_every_byte() -> None:
    assert len(KINDS) == 256


def test_what_is_announced_counts_at_once() -> None:
    assert more_values_than(1000, b"\xdd\xff\xff\xff\xff")
    assert more_values_than(1000, b"\x91" * 500 + b"\xdf\x00\x00\xff\xff")
    for message in (b"", b"\x92\x01", b"\xdd\x00", b"\xc6\xff\xff\xff\xffabc", b"\xc1"):
        assert not more_values_than(1000, message)  # cut short: msgpack says so


def test_any_bytes_are_counted_without_an_error() -> None:
    rng = random.Random(0)
    for _ in range(2000):
        more_values_than(50, rng.randbytes(rng.randrange(40)))
