"""Which sample stands at which place of the endless stream that training reads.

A pure function of (seed, place): two runs with one seed see the same samples in the same order whatever the policy, the
workers and the ranks, and a resumed run needs no state.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache, lru_cache
from itertools import accumulate

import numpy as np


@dataclass(frozen=True)
class Order:
    """The endless stream of samples of one or several sources, numbered one source after the other.

    sizes: samples of each source. weights: of a source's samples against those of the others; equal weights read every
    sample once per epoch, in a fresh permutation. In a mixture, a block of sum(sizes) samples has size * weight of each
    source in proportion, read off that source's own stream of permutations, and is shuffled.
    """

    sizes: tuple[int, ...]
    weights: tuple[float, ...]
    seed: int = 0

    @property
    def quotas(self) -> tuple[int, ...]:
        """Samples of each source in a block: shares of it, rounded by largest remainder."""
        shares = np.multiply(self.sizes, self.weights)
        exact = shares / shares.sum() * sum(self.sizes)
        counts = np.floor(exact + 1e-9).astype(int)
        for source in np.argsort(counts - exact, kind="stable")[: sum(self.sizes) - counts.sum()]:
            counts[source] += 1
        return tuple(map(int, counts))

    def at(self, place: int) -> int:
        """The number of the sample at a place of the stream."""
        # A block is laid out source by source, a run of quotas[source] slots for each, and then shuffled: slot says
        # which run the place is in, and how far along.
        total = sum(self.sizes)
        block, rest = divmod(place, total)
        slot = int(_permutations(total, self.seed)(block)[rest])
        ends = list(accumulate(self.quotas))
        source = bisect_right(ends, slot)
        quota, size = self.quotas[source], self.sizes[source]
        number = slot - (ends[source] - quota)
        # A run as long as its source is the whole source, shuffled with the block already. A shorter or longer one goes
        # on where the previous block left the source's own stream, so that no sample is seen twice before all are.
        if quota != size:
            epoch, number = divmod(block * quota + number, size)
            number = int(_permutations(size, self.seed, 1 + source)(epoch)[number])
        return sum(self.sizes[:source]) + number


@dataclass(frozen=True)
class Share:
    """What one of `count` processes reads of every batch: of each of its parts, the `rank`-th of `count` equal pieces.

    So the parts of a batch are the same samples, whatever the number of processes.
    """

    rank: int = 0
    count: int = 1

    def rows(self, batch_size: int, parts: int) -> tuple[int, ...]:
        """Rows of a global batch of `batch_size`, a multiple of parts * count, in the order in which they are read."""
        size = batch_size // parts
        piece = size // self.count
        starts = range(self.rank * piece, batch_size, size)
        return tuple(row for start in starts for row in range(start, start + piece))


WHOLE_BATCH = Share()


@cache
def _permutations(count: int, *seed: int) -> Callable[[int], np.ndarray]:
    """The permutations of one stream by epoch.

    Each stream keeps its own latest ones: those of a mixture of many sources would push each other out of a common
    cache, and every sample would cost a permutation.
    """
    first, *rest = seed
    return lru_cache(maxsize=8)(lambda epoch: np.random.default_rng((first, epoch, *rest)).permutation(count))


def augmentation_seed(seed: int, place: int) -> int:
    """Of the sample at a place of the stream."""
    return int(np.random.SeedSequence([seed, place, 1]).generate_state(1, np.uint64)[0] >> 1)
