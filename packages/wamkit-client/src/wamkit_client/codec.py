"""Values and arrays as msgpack bytes: arrays in msgpack-numpy's form, never pickle.

A byte can announce a map of 64 bytes of memory, so the length of a message bounds neither the memory nor the time that
decoding takes. The values are therefore counted while they are decoded.
"""

from __future__ import annotations

import math
import re
from typing import Any, Dict, List, Tuple

import msgpack
import numpy as np

LARGEST_MESSAGE = 64 * 2**20  # bytes
# Keys of maps count too. An observation has a hundred values, a chunk of a thousand actions fifty thousand.
MOST_VALUES = 100_000
# In one list or map: msgpack allocates a list as soon as it is announced, nested up to 512 deep.
LONGEST_CONTAINER = 10_000
MOST_DIMENSIONS = 32  # of an array
PLAIN_KINDS = "biuf"
PLAIN_DTYPE = re.compile(r"[<>|=]?[biuf][0-9]{1,2}")


class Malformed(ValueError):
    """Bytes that are no message, or one that would cost too much to decode."""


def pack(value: Any) -> bytes:
    """A tree of plain values and arrays as bytes; TypeError for anything else."""
    packed: bytes = msgpack.packb(value, default=_to_wire, use_bin_type=True)
    return packed


def unpack(message: bytes) -> Any:
    """What `pack` was given, tuples as lists; arrays are read-only views of the message.

    Raises Malformed, before more than MOST_VALUES values have been built.
    """
    left = MOST_VALUES

    def counted(values: List[Any], each: int = 1) -> List[Any]:
        nonlocal left
        left -= each * len(values)
        if left < 0:
            raise Malformed(f"a message of more than {MOST_VALUES} values; send numbers as arrays")
        return values

    def to_map(pairs: List[Tuple[Any, Any]]) -> Any:  # pairs, because a repeated key must count again
        return _from_wire(dict(counted(pairs, 2)))

    try:
        return msgpack.unpackb(
            message,
            raw=False,
            list_hook=counted,
            object_pairs_hook=to_map,
            max_array_len=LONGEST_CONTAINER,
            max_map_len=LONGEST_CONTAINER,
        )
    except Malformed:
        raise
    except (ValueError, TypeError, RecursionError, msgpack.UnpackException) as error:
        raise Malformed(
            f"not a msgpack message, or one with more than {LONGEST_CONTAINER} values in one list or map ({error})"
        ) from None


def _to_wire(value: Any) -> Any:
    if isinstance(value, (np.ndarray, np.generic)) and value.dtype.kind in PLAIN_KINDS:
        one = {b"nd": isinstance(value, np.ndarray), b"type": value.dtype.str, b"data": value.tobytes()}
        return {**one, b"kind": b"", b"shape": value.shape} if one[b"nd"] else one
    raise TypeError(f"{type(value).__name__} cannot be sent; expected plain values and arrays of numbers")


def _from_wire(value: Dict[Any, Any]) -> Any:
    if b"complex" in value:
        raise Malformed("complex numbers are not part of this protocol")
    if b"nd" not in value:
        return value
    try:
        if not PLAIN_DTYPE.fullmatch(value[b"type"]):
            raise ValueError(f"type {value[b'type']!r}")
        dtype, data = np.dtype(value[b"type"]), value[b"data"]
        shape = tuple(value[b"shape"]) if value[b"nd"] else ()
        if len(shape) > MOST_DIMENSIONS:
            raise ValueError(f"{len(shape)} dimensions")
        if min(shape, default=0) < 0 or len(data) != dtype.itemsize * math.prod(shape):
            raise ValueError(f"{len(data)} bytes for {dtype} {shape}")
        array = np.frombuffer(data, dtype).reshape(shape)
    except (KeyError, TypeError, ValueError) as error:
        raise Malformed(f"an array of the message is malformed ({error})") from None
    return array if value[b"nd"] else array[()]
