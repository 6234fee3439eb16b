"""Where the rows of a run are shown besides its files: TensorBoard, which needs nobody, or Weights & Biases."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Literal, Protocol

from wamkit_client.types import BadInput

from wamkit.io.files import create_file
from wamkit.train.rows import Row

TENSORBOARD, WANDB = "tensorboard", "wandb"
TrackerName = Literal["tensorboard", "wandb"]


class Tracker(Protocol):
    """Shows rows."""

    def write(self, group: str, row: Row) -> None:
        """Show a row. group: what the names of its values begin with, such as "held_out/"; "": of training.

        Rows of a group come in the order of their steps; those of a slower group may come late.
        """

    def close(self) -> None:
        """Nothing more will be written."""


OpenTracker = Callable[[Path, int], Tracker]
"""The tracker of a run directory, whose rows up to that step are there already."""


class Nowhere:
    """Shows nothing."""

    def write(self, group: str, row: Row) -> None:
        """See Tracker."""

    def close(self) -> None:
        """See Tracker."""


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


class WeightsAndBiases:
    """A run of Weights & Biases, named after the run directory, in whose folder `wandb` its files lie.

    facts: what it says of the run. The package reads WANDB_MODE (offline: nothing leaves this machine), WANDB_PROJECT
    and the login by itself. A resumed run goes on as the same one. Raises BadInput where it cannot begin.
    """

    def __init__(self, run_dir: Path, facts: Mapping[str, Any]) -> None:
        import wandb

        (run_dir / WANDB).mkdir(exist_ok=True)
        name = run_dir / WANDB / "id"
        create_file(name, secrets.token_hex(4).encode())  # keeps the one that is there
        try:
            self._run = wandb.init(
                project=wandb.setup().settings.project or "wamkit",
                name=run_dir.resolve().name,
                id=name.read_text(),
                resume="allow",
                dir=str(run_dir),
                config=dict(facts),
                settings=wandb.Settings(console="off"),  # the progress bar stays a bar
            )
        except wandb.Error as error:
            raise BadInput(
                f"--tracker wandb: {error}; run `wandb login`, or set WANDB_MODE=offline and `wandb sync` later"
            ) from error
        # Steps of its own, since rows may come late, and a resumed run repeats those after its last checkpoint.
        self._run.define_metric("*", step_metric="step")

    def write(self, group: str, row: Row) -> None:
        """See Tracker."""
        self._run.log({name if name == "step" else f"{group}{name}": value for name, value in row.items()})

    def close(self) -> None:
        """See Tracker."""
        self._run.finish()


def tracker_of(name: TrackerName, facts: Mapping[str, Any]) -> OpenTracker:
    """The tracker of that name. facts: what it may say of the run. BadInput where its package is not installed."""
    if name == TENSORBOARD:
        return TensorBoard
    try:
        from wandb import init  # noqa: F401 - a folder of this name, which runs have, has no such function
    except ImportError as error:
        raise BadInput(
            f"--tracker wandb: Weights & Biases is not installed ({error}); pip install 'wamkit[wandb]', or omit it"
        ) from error
    return lambda run_dir, step: WeightsAndBiases(run_dir, facts)
