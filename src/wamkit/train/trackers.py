"""Where the rows of a run are shown besides its files: TensorBoard."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Protocol

from wamkit.train.rows import Row

TENSORBOARD = "tensorboard"


class Tracker(Protocol):
    """Shows rows."""

    def write(self, group: str, row: Row) -> None:
        """Show a row. group: what the names of its values begin with; "" or "held_out/"."""

    def close(self) -> None:
        """Nothing more will be written."""


OpenTracker = Callable[[Path, int], Tracker]
"""The tracker of a run directory, whose rows up to that step are there already."""


class TensorBoard:
    """Files in the run directory; rows after `step` that an earlier process left are not shown any more."""

    def __init__(self, run_dir: Path, step: int) -> None:
        from torch.utils.tensorboard import SummaryWriter  # takes a second, and only training needs it

        self._board = SummaryWriter(str(run_dir / TENSORBOARD), purge_step=step + 1)

    def write(self, group: str, row: Row) -> None:
        """See Tracker."""
        for name, value in row.items():
            if name != "step":
                self._board.add_scalar(f"{group}{name}", value, row["step"])
        self._board.flush()

    def close(self) -> None:
        """See Tracker."""
        self._board.close()
