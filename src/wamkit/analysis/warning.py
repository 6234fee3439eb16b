"""Scores that should be low in usual episodes: which threshold to alarm at, and how well they tell episodes apart.

Knows numbers only.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import ceil

import numpy as np
from jaxtyping import Float
from wamkit_client.types import BadInput

Numbers = Sequence[float] | np.ndarray
DRAWS = 2000
"""Of a bootstrap interval."""
FLOOR = 0.1
"""Least usual error of a patch, in means over patches: where nothing ever moved, a speck is no surprise."""


def conformal_threshold(scores: Sequence[float], rate: float) -> float:
    """Exceeded with a probability of at most `rate` by one more score that is exchangeable with these (split conformal:
    Vovk et al. 2005). BadInput where there are too few."""
    rank = ceil(round((len(scores) + 1) * (1 - rate), 9))
    if rank > len(scores):
        raise BadInput(
            f"a false-alarm rate of {rate:g} needs {ceil(round(1 / rate, 9)) - 1} episodes for the threshold, got "
            f"{len(scores)}; record more, or allow more false alarms"
        )
    return float(np.sort(scores)[rank - 1])


def usual_errors(found: Sequence[Float[np.ndarray, " s"]]) -> Float[np.ndarray, " s"]:
    """Mean error of each patch, and no less than FLOOR of the mean over all."""
    mean = np.mean(found, axis=0)
    return np.maximum(mean, FLOOR * mean.mean())


def auroc(usual: Numbers, unusual: Numbers) -> float:
    """How often a score of an unusual episode is above one of a usual episode; 0.5: they cannot be told apart."""
    low, high = np.asarray(usual)[None], np.asarray(unusual)[:, None]
    return float((high > low).mean() + (high == low).mean() / 2)


def auroc_interval(usual: Numbers, unusual: Numbers, seed: int = 0) -> tuple[float, float]:
    """95 % bootstrap interval over episodes."""
    rng, low, high = np.random.default_rng(seed), np.asarray(usual), np.asarray(unusual)
    found = [
        auroc(low[rng.integers(len(low), size=len(low))], high[rng.integers(len(high), size=len(high))])
        for _ in range(DRAWS)
    ]
    first, last = np.quantile(found, (0.025, 0.975))
    return float(first), float(last)
