"""How many values a msgpack message holds, told from its headers, before any of them is built.

A byte can announce a map of 64 bytes of memory, so the size of a message bounds neither the memory nor the time that
decoding it takes; the number of its values does. Format: github.com/msgpack/msgpack/blob/master/spec.md.
"""

from __future__ import annotations

from typing import Iterator, Tuple

# Of a first byte: bytes of the count that follows it, bytes to skip, values that follow. Where a count is given it
# stands for that many bytes, or, where values are not 0, for that many times so many values.
Kind = Tuple[int, int, int]


def _kinds() -> Iterator[Kind]:
    for _ in range(0x80):  # small integers
        yield 0, 0, 0
    for count in range(16):  # maps, arrays and strings of few
        yield 0, 0, 2 * count
    for count in range(16):
        yield 0, 0, count
    for count in range(32):
        yield 0, count, 0
    yield from [(0, 0, 0)] * 4  # nil, unused, false, true
    yield from [(1, 0, 0), (2, 0, 0), (4, 0, 0)]  # bytes
    yield from [(1, 1, 0), (2, 1, 0), (4, 1, 0)]  # extensions: a type and bytes
    yield from [(0, 4, 0), (0, 8, 0)]  # floats
    yield from [(0, 1, 0), (0, 2, 0), (0, 4, 0), (0, 8, 0)] * 2  # integers
    yield from [(0, 1 + size, 0) for size in (1, 2, 4, 8, 16)]  # extensions of fixed size
    yield from [(1, 0, 0), (2, 0, 0), (4, 0, 0)]  # strings
    yield from [(2, 0, 1), (4, 0, 1)]  # arrays
    yield from [(2, 0, 2), (4, 0, 2)]  # maps
    for _ in range(0x20):  # negative integers
        yield 0, 0, 0


KINDS = tuple(_kinds())


def more_values_than(most: int, message: bytes) -> bool:
    """Whether the message, as far as it goes, announces more than `most` values, keys of maps among them.

    Looks at `most` headers at the most.
    """
    at, seen, expected = 0, 0, 1
    while expected and at < len(message):
        count_bytes, skipped, values = KINDS[message[at]]
        at += 1
        if count_bytes:
            count = int.from_bytes(message[at : at + count_bytes], "big")
            at += count_bytes
            values *= count
            skipped += 0 if values else count
        at += skipped
        seen += 1
        expected += values - 1
        if seen + expected > most:
            return True
    return False
