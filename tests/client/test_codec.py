"""Values and arrays as bytes: they survive, and no bytes do harm."""

from __future__ import annotations

import math
import struct
import tracemalloc
from typing import Any

import msgpack
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from wamkit_client.codec import DEEPEST, MOST_VALUES, Malformed, msgpack_numpy, openpi, pack, unpack

NUMBERS = st.integers(-(2**63), 2**64 - 1) | st.floats(allow_nan=False)
PLAIN = st.recursive(
    st.none() | st.booleans() | NUMBERS | st.text(max_size=300) | st.binary(max_size=300),
    lambda inner: (
        st.lists(inner, max_size=20) | st.dictionaries(st.text() | st.just(b"data"), inner, max_size=20)
    ),
    max_leaves=40,
)


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


@pytest.mark.parametrize("form", [openpi, msgpack_numpy])
def test_values_survive(form: Any) -> None:
    values = {
        "strided": np.arange(6, dtype=np.float64).reshape(2, 3)[:, ::2],
        "empty": np.zeros((0, 3), np.uint8),
        "point": np.array(7, np.int16),
        "scalar": np.float32(0.5),
        "large": np.uint64(2**64 - 1),
        "true": np.bool_(True),
        "foreign": np.arange(3, dtype=">i4"),
        "plain": [1, "two", None, True, {"x": b"y"}],
    }
    found = unpack(pack(values, form))
    for name in ("strided", "empty", "point", "scalar", "large", "true", "foreign"):
        np.testing.assert_array_equal(found[name], values[name])
        assert found[name].dtype == np.asarray(values[name]).dtype
        assert isinstance(found[name], np.ndarray) == isinstance(values[name], np.ndarray)
    assert found["plain"] == values["plain"]
    for other in (np.array([object()]), np.array(["text"]), np.longdouble(1), np.array([1j]), object()):
        with pytest.raises(TypeError, match="cannot be sent"):
            pack({"x": other}, form)


@given(PLAIN)
@settings(max_examples=100, deadline=None)
def test_plain_values_are_read_as_the_package_reads_them(value: Any) -> None:
    message = msgpack.packb(value)
    assert unpack(message) == msgpack.unpackb(message) == value


def test_arrays_on_the_wire_are_those_of_openpi() -> None:
    """Byte for byte: its clients look at nothing else."""
    state = np.array([1.5, -2.0], np.float32)
    array = b"\x84\xc4\x0b__ndarray__\xc3\xc4\x04data\xc4\x08" + state.tobytes()
    assert pack(state) == array + b"\xc4\x05dtype\xa3<f4\xc4\x05shape\x91\x02"
    scalar = b"\x83\xc4\x0d__npgeneric__\xc3\xc4\x04data\xca\x3f\xc0\x00\x00\xc4\x05dtype\xa3<f4"
    assert unpack(scalar) == np.float32(1.5)
    assert unpack(pack(np.float32(1.5))).dtype == np.float32


def test_an_array_is_a_view_of_the_message() -> None:
    """Neither time nor memory for a copy; one that numbers cannot be read from in place is copied."""
    message = pack({"image": np.zeros((480, 640, 3), np.uint8), "state": np.arange(3.0)})
    tracemalloc.start()
    found = unpack(message)
    assert tracemalloc.get_traced_memory()[1] < 20_000 < len(message)
    tracemalloc.stop()
    assert not found["image"].flags.writeable and np.shares_memory(
        found["image"], np.frombuffer(message, "u1")
    )
    for pad in range(8):  # wherever in the message it stands
        state = unpack(pack(["x" * pad, np.arange(3.0)]))[1]
        assert state.flags.aligned and not state.flags.writeable and state.tolist() == [0, 1, 2]


@pytest.mark.parametrize("value", [b"\x80", b"\xc0", b"\xcb" + bytes(8), b"\x81\xa1k\x90"], ids=str)
def test_millions_of_values_are_refused_before_they_are_built(value: bytes) -> None:
    assert peak(array_of(3_000_000, value), f"more than {MOST_VALUES} values") < 1e5
    assert peak(array_of(300, array_of(10_000, value)), f"more than {MOST_VALUES} values") < 3e7


def test_a_key_that_is_repeated_counts_again() -> None:
    repeated = b"\xdf" + struct.pack(">I", 10_000) + 10_000 * b"\xa1k\xc0"
    assert peak(array_of(1000, repeated), f"more than {MOST_VALUES} values") < 3e6


def test_announcing_lists_in_lists_costs_nothing() -> None:
    assert peak(512 * array_of(10_000, b"")[:5], "deep|values") < 1e5
    assert peak(DEEPEST * array_of(1_000, b"")[:5], "too early") < 1e5


def test_lists_are_as_deep_as_anybody_needs() -> None:
    assert unpack(DEEPEST * b"\x91" + b"\x00")
    with pytest.raises(Malformed, match=f"more than {DEEPEST} deep"):
        unpack((DEEPEST + 1) * b"\x91" + b"\x00")


def array(**fields: Any) -> bytes:
    whole = {"__ndarray__": True, "data": bytes(8), "dtype": "<f4", "shape": [2], **fields}
    return msgpack.packb({name.encode(): value for name, value in whole.items() if value != "none"})


@pytest.mark.parametrize(
    ("message", "said"),
    [
        (b"", "too early"),
        (b"\xdd\xff\xff\xff\xff", "more than"),
        (b"\xdf\x00\xff\xff\xff", "more than"),
        (b"\xc6\xff\xff\xff\xffabc", "too early"),
        (b"\xd9", "too early"),
        (b"\x91" * 50_000 + b"\x00", "deep"),
        (b"\xc1", "begins with the byte 0xc1"),
        (msgpack.packb(msgpack.ExtType(4, b"x")), "plain values"),
        (msgpack.packb(msgpack.Timestamp(0)), "plain values"),
        (b"\xa2\xff\xfe", "UTF-8"),
        (b"\xc0\xc0", "1 more bytes"),
        (b"\x81\x01\x02", "key of a map is a int"),
        (b"\x81\x90\x02", "key of a map is a list"),
        (msgpack.packb({b"nd": True, b"type": "<f4", b"data": b"", b"shape": [2**62] * 9000}), "9000 dimensions"),
        (msgpack.packb({b"nd": True, b"type": "<f4", b"data": b"", b"shape": [-(2**62), 2**63]}), "from 0"),
        (msgpack.packb({b"nd": True, b"type": "|O", b"data": b"pickle", b"shape": [1]}), r"\|O"),
        (msgpack.packb({b"nd": False, b"type": "<f8", b"data": b"1234"}), "4 bytes"),
        (msgpack.packb({b"complex": True, b"data": b"1j"}), "complex"),
        (array(shape=[0, 2**62, 2**62], data=b""), "is malformed"),
        (array(shape=[3]), "8 bytes for float32"),
        (array(shape=[True, 2]), "integers"),
        (array(shape="none"), "shape None"),
        (array(data="12345678"), "expected bytes"),
        (array(data=[0] * 8), "expected bytes"),
        (array(dtype="<f2,<f2"), "type '<f2,<f2'"),
        (array(dtype="<V4"), "type '<V4'"),
        (array(dtype=b"<f4"), "type b'<f4'"),
        (array(dtype="<f3"), "type '<f3'"),
        (msgpack.packb({b"__npgeneric__": True, b"data": 300, b"dtype": "|u1"}), "300 is no number"),
        (msgpack.packb({b"__npgeneric__": True, b"data": -1, b"dtype": "<u8"}), "-1 is no number"),
        (msgpack.packb({b"__npgeneric__": True, b"data": "1", b"dtype": "<f4"}), "holds a str"),
        (msgpack.packb({b"__npgeneric__": True, b"dtype": "<f4"}), "holds a NoneType"),
    ],
)  # fmt: skip
def test_small_messages_that_would_cost_much_or_mean_nothing(message: bytes, said: str) -> None:
    assert peak(message, said) < 2e6


WHOLE = pack({
    "observation/image": np.zeros((8, 8, 3), np.uint8),
    "state": {"arm": np.arange(7.0), "open": np.float32(0.5)},
    "prompt": "lift the cup",
    "numbers": [0, -1, 2**40, 0.5, None, True, b"raw"],
})  # fmt: skip


@st.composite
def damaged(draw: st.DrawFn) -> bytes:
    """A message that was cut, had bytes altered, or says of a part that it is larger than it is."""
    data = bytearray(WHOLE)
    for _ in range(draw(st.integers(0, 6))):
        data[draw(st.integers(0, len(data) - 1))] = draw(st.integers(0, 255))
    return bytes(data[: draw(st.integers(0, len(data)))])


@given(st.binary(max_size=200) | damaged())
@settings(max_examples=500, deadline=None)
def test_whatever_is_received_is_a_value_or_malformed(message: bytes) -> None:
    try:
        value = unpack(message)
    except Malformed as error:
        assert str(error)
    else:
        assert count(value) <= MOST_VALUES


def count(value: Any) -> int:
    if isinstance(value, dict):
        return 1 + sum(map(count, value.values()))
    if isinstance(value, list):
        return 1 + sum(map(count, value))
    assert not isinstance(value, np.ndarray) or value.nbytes == math.prod(value.shape) * value.itemsize
    return 1
