"""Confidence intervals of a success rate, and a paired comparison of two policies.

Knows counts only.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Dict, Hashable, Tuple

from wamkit_client.types import BadInput

Z95 = 1.959964


def wilson(successes: int, trials: int, z: float = Z95) -> Tuple[float, float]:
    """Wilson's score interval of a success rate, within [0, 1]; (0, 1) without trials."""
    if not 0 <= successes <= trials:
        raise BadInput(f"{successes} successes of {trials} trials are impossible")
    if trials == 0:
        return 0.0, 1.0
    rate = successes / trials
    centre = rate + z * z / (2 * trials)
    spread = z * math.sqrt(rate * (1 - rate) / trials + z * z / (4 * trials * trials))
    scale = 1 + z * z / trials
    low = 0.0 if successes == 0 else (centre - spread) / scale
    high = 1.0 if successes == trials else (centre + spread) / scale
    return low, high


@dataclass(frozen=True)
class Paired:
    """Two policies on the same episodes.

    difference: rate of the second minus rate of the first, with its 95 % interval (Bonett and Price 2012).
    only_first, only_second: episodes that just one of them solved.
    p_value: exact two-sided McNemar test of "both are equally good".
    """

    trials: int
    only_first: int
    only_second: int
    difference: float
    interval: Tuple[float, float]
    p_value: float


def paired(first: Dict[Hashable, bool], second: Dict[Hashable, bool], z: float = Z95) -> Paired:
    """Compare successes by episode (task and seed); BadInput when the episodes are not the same."""
    if first.keys() != second.keys() or not first:
        raise BadInput(
            f"a paired comparison needs the same episodes: {len(first)} and {len(second)} given, "
            f"{len(first.keys() & second.keys())} in common; evaluate both with the same suite and seeds"
        )
    trials = len(first)
    only_first = sum(first[key] and not second[key] for key in first)
    only_second = sum(second[key] and not first[key] for key in first)
    loss, gain = (only_first + 1) / (trials + 2), (only_second + 1) / (trials + 2)
    spread = z * math.sqrt((gain + loss - (gain - loss) ** 2) / (trials + 2))
    interval = max(-1.0, gain - loss - spread), min(1.0, gain - loss + spread)
    difference = (only_second - only_first) / trials
    return Paired(trials, only_first, only_second, difference, interval, _mcnemar(only_first, only_second))


def _mcnemar(first: int, second: int) -> float:
    total = first + second
    tail = sum(math.comb(total, count) for count in range(min(first, second) + 1)) / 2**total
    return min(1.0, 2 * tail)
