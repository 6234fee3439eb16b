"""Memory that is freed stays with the process, to be given out again.

glibc returns the pages of large freed blocks to the system, and a training step on the processor frees and asks for
the same sizes thousands of times: each time the system gives zeroed pages anew, some 5,000 of them in a step of the
demo. It knows no tensors.
"""

from __future__ import annotations

import ctypes

M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3
LARGEST = 2**25
"""Bytes up to which blocks come from the heap; the most that every version of glibc allows."""
NEVER = 2**31 - 1
"""Bytes that are free at the end of the heap before it is shortened."""


def keep_freed_memory() -> None:
    """From now on, for the whole process. Does nothing where the C library has no such settings (only glibc has)."""
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, TypeError):  # no such function; Windows has no library of all that is loaded
        return
    # The second setting alone would fix the first at 128 KiB.
    if mallopt(M_MMAP_THRESHOLD, LARGEST):
        mallopt(M_TRIM_THRESHOLD, NEVER)
