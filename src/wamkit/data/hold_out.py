"""Which episodes are trained on, and in which order: all of them, or all but a share that is held out.

The share is drawn as the released code does it (Light-WAM spec 3.1), so that a run omits the same episodes and numbers
its samples alike. The seed is fixed.
"""

from __future__ import annotations

import numpy as np
from wamkit_client.types import BadInput

from wamkit.types import DataSpec

SEED = 42


def kept_episodes(count: int, spec: DataSpec) -> list[int]:
    """Positions of the episodes of one folder that are trained on, in the order of their samples.

    Where a share is held out, all `count` episodes are shuffled and the last ones omitted. The others stay shuffled, as
    in the released reader of LeRobot folders, or are sorted again where only whole windows are taken, as in its reader
    of HDF5 recordings. Raises BadInput where none is left; at least one is held out.
    """
    kept = list(range(count))
    if spec.held_out > 0:
        np.random.default_rng(SEED).shuffle(kept)
        kept = kept[: int(count * (1 - spec.held_out))]
        if not kept:
            raise BadInput(
                f"data.held_out: {spec.held_out:g} of {count} episodes leaves none to train on; give --data.held-out 0"
            )
    return sorted(kept) if spec.whole_windows else kept


def held_out_episodes(count: int, spec: DataSpec) -> list[int]:
    """Positions of the others, in order; none where nothing is held out."""
    return sorted({*range(count)}.difference(kept_episodes(count, spec)))
