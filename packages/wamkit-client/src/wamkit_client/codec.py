"""Values and arrays as msgpack bytes, in the forms of openpi's clients and of msgpack-numpy; never pickle.

Packing is msgpack's. Reading is our own: the package copies every array out of the message, and allocates what a header
announces, which lists in lists make a thousand times the size of the message. Here an array is a view of the message
and nothing is built that the message does not hold, so that memory and time are linear in its length.

openpi's form of an array is {b"__ndarray__": True, b"data", b"dtype", b"shape"}, of a NumPy scalar {b"__npgeneric__":
True, b"data", b"dtype"}; msgpack-numpy's of both is {b"nd": whether an array, b"type", b"kind", b"shape", b"data"}.
"""

from __future__ import annotations

import math
from struct import Struct, error
from typing import Any, Callable, Dict, Tuple, Union

import msgpack
import numpy as np

LARGEST_MESSAGE = 64 * 2**20  # bytes
# Keys of maps count too. An observation has a hundred values, a chunk of a thousand actions fifty thousand.
MOST_VALUES = 100_000
DEEPEST = 32  # lists and maps inside each other; an observation of XPolicyLab's has seven
MOST_DIMENSIONS = 32  # of an array
SCALARS = {
    "b": (bool,),
    "i": (int,),
    "u": (int,),
    "f": (float, int),
}  # what a scalar's number may be, by kind
# By every way to write it, also without a byte order.
_DTYPES = {
    order + name: np.dtype(order + name)
    for order in ("", "<", ">", "|", "=")
    for name in ("b1", "i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8", "f2", "f4", "f8")
}

Array = Union[np.ndarray, np.generic]


class Malformed(ValueError):
    """Bytes that are no message, or one that would cost too much to decode."""


def openpi(array: Array) -> Dict[bytes, Any]:
    """An array or a NumPy scalar in openpi's form."""
    if isinstance(array, np.generic):
        return {b"__npgeneric__": True, b"data": array.item(), b"dtype": array.dtype.str}
    return {b"__ndarray__": True, b"data": array.tobytes(), b"dtype": array.dtype.str, b"shape": array.shape}


def msgpack_numpy(array: Array) -> Dict[bytes, Any]:
    """An array or a NumPy scalar in msgpack-numpy's form."""
    one = {b"nd": isinstance(array, np.ndarray), b"type": array.dtype.str, b"data": array.tobytes()}
    return {**one, b"kind": b"", b"shape": array.shape} if one[b"nd"] else one


def pack(value: Any, form: Callable[[Array], Dict[bytes, Any]] = openpi) -> bytes:
    """A tree of plain values and arrays as bytes; TypeError for anything else. form: of the arrays."""

    def to_wire(value: Any) -> Dict[bytes, Any]:
        if isinstance(value, (np.ndarray, np.generic)) and value.dtype.str in _DTYPES:
            return form(value)
        raise TypeError(f"{type(value).__name__} cannot be sent; expected plain values and arrays of numbers")

    packed: bytes = msgpack.packb(value, default=to_wire, use_bin_type=True)
    return packed


def unpack(message: bytes) -> Any:
    """What `pack` was given, in either form, tuples as lists.

    Arrays are read-only views of the message, or copies where an item would lie across the words of its memory.
    Raises Malformed, before more than MOST_VALUES values have been built.
    """
    reader = _Reader(message)
    try:
        value = reader.value(DEEPEST)
    except (IndexError, error):
        raise Malformed("not a msgpack message: it ends too early") from None
    except UnicodeDecodeError as wrong:
        raise Malformed(f"not a msgpack message: text that is not UTF-8 ({wrong.reason})") from None
    if reader.at != len(message):
        raise Malformed(f"not a msgpack message: {len(message) - reader.at} more bytes follow")
    return value


class _Reader:
    """Reads one value after the other from `at` on. Raises Malformed, and IndexError, struct.error and
    UnicodeDecodeError where the message is damaged."""

    def __init__(self, message: bytes) -> None:
        self.at = 0
        self._message, self._memory = message, memoryview(message)
        self._left = MOST_VALUES

    def value(self, depth: int) -> Any:
        """The next value, `depth` lists and maps deep at most."""
        first = self._message[self.at]
        self.at += 1
        read, size = _FIRST_BYTES[first]
        return read(self, self._number(size) if type(size) is Struct else size, depth)

    def plain(self, value: Any, depth: int) -> Any:
        return value

    def refuse(self, first: int, depth: int) -> Any:
        raise Malformed(f"not a msgpack message of plain values: a value begins with the byte {first:#x}")

    def binary(self, length: int, depth: int) -> bytes:
        start = self._skip(length)
        return self._message[start : self.at]

    def text(self, length: int, depth: int) -> str:
        start = self._skip(length)
        return self._message[start : self.at].decode()

    def list(self, length: int, depth: int) -> Any:
        self._count(length, depth)
        return [self.value(depth - 1) for _ in range(length)]

    def map(self, length: int, depth: int) -> Any:
        self._count(2 * length, depth)
        fields: Dict[Union[str, bytes], Any] = {}
        in_truth: Callable[[Dict[Any, Any]], Any] = _plain
        for _ in range(length):
            key = self.value(depth - 1)
            if type(key) is bytes:
                in_truth = _ARRAYS.get(key, in_truth)
            elif type(key) is not str:
                raise Malformed(f"a key of a map is a {type(key).__name__}, expected text")
            fields[key] = self._data(depth - 1) if key == b"data" else self.value(depth - 1)
        return in_truth(fields)

    def _data(self, depth: int) -> Any:
        """The next value, which may be an array's data: bytes are a view."""
        read, size = _FIRST_BYTES[self._message[self.at]]
        if read is not _Reader.binary:
            return self.value(depth)
        self.at += 1
        start = self._skip(self._number(size))
        return self._memory[start : self.at]

    def _skip(self, length: int) -> int:
        """Where the next `length` bytes begin; `at` is where they end."""
        start, self.at = self.at, self.at + length
        if self.at > len(self._message):
            raise IndexError
        return start

    def _number(self, form: Struct) -> Any:
        (number,) = form.unpack_from(self._message, self.at)
        self.at += form.size
        return number

    def _count(self, values: int, depth: int) -> None:
        """Values of another list or map, before they are read."""
        self._left -= values
        if self._left < 0:
            raise Malformed(f"a message of more than {MOST_VALUES} values; send numbers as arrays")
        if depth == 0:
            raise Malformed(f"lists and maps are more than {DEEPEST} deep")


# How a value is read, by its first byte: a method, and the size or number that it is given, or the Struct of it.
_FIRST_BYTES: Dict[int, Tuple[Callable[..., Any], Any]] = {
    **{first: (_Reader.refuse, first) for first in range(0x100)},
    **{first: (_Reader.plain, first) for first in range(0x80)},
    **{0x80 + size: (_Reader.map, size) for size in range(0x10)},
    **{0x90 + size: (_Reader.list, size) for size in range(0x10)},
    **{0xA0 + size: (_Reader.text, size) for size in range(0x20)},
    **{0x100 + number: (_Reader.plain, number) for number in range(-0x20, 0)},
    **{0xC0: (_Reader.plain, None), 0xC2: (_Reader.plain, False), 0xC3: (_Reader.plain, True)},
    **{0xC4 + i: (_Reader.binary, Struct(">" + size)) for i, size in enumerate("BHI")},
    **{0xCA + i: (_Reader.plain, Struct(">" + number)) for i, number in enumerate("fdBHIQbhiq")},
    **{0xD9 + i: (_Reader.text, Struct(">" + size)) for i, size in enumerate("BHI")},
    **{0xDC + i: (_Reader.list, Struct(">" + size)) for i, size in enumerate("HI")},
    **{0xDE + i: (_Reader.map, Struct(">" + size)) for i, size in enumerate("HI")},
}


def _plain(fields: Dict[Any, Any]) -> Any:
    if type(fields.get(b"data")) is memoryview:
        fields[b"data"] = bytes(fields[b"data"])
    return fields


def _openpi_array(fields: Dict[Any, Any]) -> np.ndarray:
    return _view(fields, b"dtype", fields.get(b"shape"))


def _openpi_scalar(fields: Dict[Any, Any]) -> Any:
    number: Any = fields.get(b"data")
    kind = _dtype(fields, b"dtype")
    if type(number) not in SCALARS[kind.kind]:
        raise Malformed(f"a scalar of type {kind} holds a {type(number).__name__}")
    if kind.kind in "iu" and not np.iinfo(kind).min <= number <= np.iinfo(kind).max:
        raise Malformed(f"{number} is no number of type {kind}")
    with np.errstate(over="ignore"):
        return kind.type(number)


def _msgpack_numpy(fields: Dict[Any, Any]) -> Any:
    return _view(fields, b"type", fields.get(b"shape")) if fields[b"nd"] else _view(fields, b"type", [])[()]


def _refuse_complex(fields: Dict[Any, Any]) -> Any:
    raise Malformed("complex numbers are not part of this protocol")


def _dtype(fields: Dict[Any, Any], key: bytes) -> np.dtype:
    name = fields.get(key)
    if type(name) is not str or name not in _DTYPES:
        raise Malformed(f"an array is malformed: type {name!r:.100}, expected numbers or truth values")
    return _DTYPES[name]


def _view(fields: Dict[Any, Any], key: bytes, shape: Any) -> np.ndarray:
    dtype, data = _dtype(fields, key), fields.get(b"data")
    if type(data) is not memoryview:
        raise Malformed(f"an array is malformed: its data are a {type(data).__name__}, expected bytes")
    if type(shape) is not list or not {*map(type, shape)} <= {int} or min(shape, default=0) < 0:
        raise Malformed(f"an array is malformed: shape {shape!r:.100}, expected a list of integers from 0")
    if len(shape) > MOST_DIMENSIONS:
        raise Malformed(f"an array is malformed: {len(shape)} dimensions, expected at most {MOST_DIMENSIONS}")
    if len(data) != dtype.itemsize * math.prod(shape):
        raise Malformed(f"an array is malformed: {len(data)} bytes for {dtype} {shape}")
    try:
        array: np.ndarray = np.ndarray(shape, dtype, data)
    except ValueError as wrong:  # nothing, but in dimensions that NumPy cannot count
        raise Malformed(f"an array is malformed: shape {shape} ({wrong})") from None
    if not array.flags.aligned:
        array = array.copy()
        array.flags.writeable = False
    return array


# By the key that gives it away, what a map is in truth.
_ARRAYS: Dict[bytes, Callable[[Dict[Any, Any]], Any]] = {
    b"__ndarray__": _openpi_array,
    b"__npgeneric__": _openpi_scalar,
    b"nd": _msgpack_numpy,
    b"complex": _refuse_complex,
}
