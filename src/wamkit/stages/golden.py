"""Golden observations of a run directory: recorded moments and what its policy answers (wamkit_client/golden.py)."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from wamkit_client.golden import Golden
from wamkit_client.types import BadInput

from wamkit.config import Run, load_acting, load_normalizer
from wamkit.stages.evaluation import policy_facts
from wamkit.stages.run import best_device, open_clips

SMALLEST_SPREAD = 1e-6
"""Of an action dimension that did not move in training, in its unit."""
TOLD = ("recipe", "steps", "weights", "precision", "device")


def golden(run_dir: Path, asked: Run, datasets: Sequence[Path], count: int) -> Golden:
    """`count` moments at equal distances through the datasets, of a mixture through its first source; the seeds of the
    noise count them.

    BadInput where the datasets do not fit the run, are of another robot or have fewer moments, and as of `load_acting`.
    """
    if count < 1:
        raise BadInput(f"--count is {count}, expected at least 1")
    clips = open_clips(asked, datasets)[0]
    if len(clips) < count:
        raise BadInput(f"--count is {count}, and the datasets have {len(clips)} moments; ask for fewer")
    device = best_device()
    engine, facts = load_acting(asked, run_dir, device), policy_facts(run_dir, asked, device)
    numbers = np.linspace(0, len(clips) - 1, count).round().astype(int)
    seen = [clips[int(i)].observation(noise_seed=order) for order, i in enumerate(numbers)]
    chunks = [engine.act([each])[0].actions for each in seen]
    stats = load_normalizer(run_dir).stats[seen[0].embodiment]["action"]
    return Golden(
        observations=seen,
        chunks=chunks,
        names=clips.space.names,
        spread=np.maximum(stats.max - stats.min, SMALLEST_SPREAD),
        answered_by=", ".join(f"{name} {facts[name]!s:.16}" for name in TOLD),
    )
