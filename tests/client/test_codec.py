"""Values and arrays as bytes: they survive, and no bytes do harm."""

from __future__ import annotations

import struct
import tracemalloc

import msgpack
import numpy as np
import pytest
from wamkit_client.codec import LONGEST_CONTAINER, MOST_VALUES, Malformed, pack, unpack


def array_of(count: int, value: bytes) -> bytes:
    return b"\xdd" + struct.pack(">I", count) + count * value


def peak(message: bytes, said: str) -> int:
    """Bytes that it takes to refuse the message."""
    tracemalloc.start()
    with pytest.raises(Malformed, match=said):
        unpack(message)
    most = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    return most


def test_values_survive() -> None:
    values = {
        "strided": np.arange(6, dtype=np.float64).reshape(2, 3)[:, ::2],
        "empty": np.zeros((0, 3), np.uint8),
        "scalar": np.float32(0.5),
        "plain": [1, "two", None, True, {"x": b"y"}],
    }
    found = unpack(pack(values))
    for name in ("strided", "empty", "scalar"):
        np.testing.assert_array_equal(found[name], values[name])
        assert found[name].dtype == np.asarray(values[name]).dtype
    assert found["plain"] == values["plain"]
    for other in (np.array([object()]), np.array(["text"]), object()):
        with pytest.raises(TypeError, match="cannot be sent"):
            pack({"x": other})


@pytest.mark.parametrize("value", [b"\x80", b"\xc0", b"\xcb" + bytes(8), b"\x81\xa1k\x90"], ids=str)
def test_millions_of_values_are_refused_before_they_are_built(value: bytes) -> None:
    assert peak(array_of(3_000_000, value), f"more than {LONGEST_CONTAINER} values in one list") < 1e6
    inner = array_of(LONGEST_CONTAINER, value)
    assert peak(array_of(300, inner), f"more than {MOST_VALUES} values") < 3e7


def test_a_key_that_is_repeated_counts_again() -> None:
    repeated = b"\xdf" + struct.pack(">I", LONGEST_CONTAINER) + LONGEST_CONTAINER * b"\xa1k\xc0"
    assert peak(array_of(1000, repeated), f"more than {MOST_VALUES} values") < 3e6


def test_announcing_lists_in_lists_costs_no_more_than_the_largest_message() -> None:
    assert peak(512 * array_of(LONGEST_CONTAINER, b"")[:5], "not a msgpack message") < 5e7


@pytest.mark.parametrize(
    ("message", "said"),
    [
        (b"", "not a msgpack message"),
        (b"\xdd\xff\xff\xff\xff", "more than"),
        (b"\xdf\x00\xff\xff\xff", "more than"),
        (b"\xc6\xff\xff\xff\xffabc", "not a msgpack message"),
        (b"\x91" * 50_000 + b"\x00", "not a msgpack message"),
        (msgpack.packb({b"nd": True, b"type": "<f4", b"data": b"", b"shape": [2**62] * 9000}), "9000 dimensions"),
        (msgpack.packb({b"nd": True, b"type": "<f4", b"data": b"", b"shape": [-(2**62), 2**63]}), "malformed"),
        (msgpack.packb({b"nd": True, b"type": "|O", b"data": b"pickle", b"shape": [1]}), r"\|O"),
        (msgpack.packb({b"complex": True, b"data": b"1j"}), "complex"),
    ],
)  # fmt: skip
def test_small_messages_that_would_cost_much(message: bytes, said: str) -> None:
    assert peak(message, said) < 2e6
