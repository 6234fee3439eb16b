"""What a run tells while it trains: `metrics.jsonl` and TensorBoard files, one row per logging step.

A row has "step" (optimizer steps done), "loss" (weighted total), "loss/<name>" for each loss (unweighted),
"grad_norm" (before clipping), "lr", "steps_per_second" and "data_share" (of the time, spent waiting for
data). Losses and norms are means over the steps since the last row. Does not know how they are computed.
"""

from __future__ import annotations

import json
import math
import os
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import TypeVar

import torch
from torch import Tensor
from wamkit_client.types import BadInput

from wamkit.io.files import replace_file

FILE = "metrics.jsonl"
TENSORBOARD = "tensorboard"
Row = dict[str, float]
T = TypeVar("T")


def read_rows(run_dir: Path) -> list[Row]:
    """All rows. A last line that a killed process left unfinished is none; another broken line is BadInput."""
    path = run_dir / FILE
    if not path.is_file():
        raise BadInput(f"{path}: missing; it belongs to the run's checkpoints, restore it or start a new run")
    *lines, unfinished = path.read_text().split("\n")
    del unfinished  # "" in a whole file
    rows: list[Row] = []
    for number, line in enumerate(lines, 1):
        try:
            row = json.loads(line)
            row["step"]
        except (ValueError, KeyError, TypeError) as error:
            raise BadInput(
                f"{path}: line {number} is not a metrics row ({error}); restore the file or start a new run"
            ) from error
        rows.append(row)
    return rows


class Window:
    """The scalars of the steps since the last row; on their device until a row or a checkpoint is due."""

    def __init__(self, values: Mapping[str, list[float]]) -> None:
        self.values = {name: list(column) for name, column in values.items()}
        self._unseen: list[tuple[int, tuple[str, ...], dict[str, Tensor]]] = []

    def add(self, step: int, ids: tuple[str, ...], scalars: dict[str, Tensor]) -> None:
        """The scalars of step `step` (from 1), which saw the samples `ids`."""
        self._unseen.append((step, ids, scalars))

    def settle(self) -> None:
        """Read what was added, waiting once for the device. BadInput with step and samples if not finite."""
        if not self._unseen:
            return
        flat = torch.stack(
            [value.float() for _, _, scalars in self._unseen for value in scalars.values()]
        ).tolist()
        numbers = iter(flat)
        for step, ids, scalars in self._unseen:
            found = {name: next(numbers) for name in scalars}
            if not all(map(math.isfinite, found.values())):
                scalars_text = ", ".join(f"{name} {value}" for name, value in found.items())
                raise BadInput(
                    f"step {step}: not finite: {scalars_text}; samples of this batch: {', '.join(ids)}. "
                    "Earlier checkpoints are good. Look at these samples (wamkit data check), lower "
                    "train.learning_rate or use train.precision fp32, then run again."
                )
            for name, value in found.items():
                self.values.setdefault(name, []).append(value)
        self._unseen.clear()

    def close(self) -> Row:
        """The means, and begin anew."""
        self.settle()
        means = {name: math.fsum(column) / len(column) for name, column in self.values.items()}
        self.values.clear()
        return means


class Stopwatch:
    """How fast steps are, and which share of the time is spent waiting for data."""

    def __init__(self) -> None:
        self._start, self._waited, self._steps = time.perf_counter(), 0.0, 0

    def next(self, stream: Iterator[T]) -> T:
        """The next item of `stream`, with the wait for it counted."""
        start = time.perf_counter()
        item = next(stream)
        self._waited += time.perf_counter() - start
        self._steps += 1
        return item

    def lap(self) -> Row:
        """Since the last lap."""
        seconds = time.perf_counter() - self._start
        row = {"steps_per_second": self._steps / seconds, "data_share": self._waited / seconds}
        self._start, self._waited, self._steps = time.perf_counter(), 0.0, 0
        return row


class Metrics:
    """Writes rows after `rows`, those up to `step`, so that after a resume every step is there once."""

    def __init__(self, run_dir: Path, rows: Sequence[Row], step: int) -> None:
        from torch.utils.tensorboard import SummaryWriter  # takes a second, and only training needs it

        path = run_dir / FILE
        replace_file(path, "".join(json.dumps(row) + "\n" for row in rows).encode())
        self.rows = len(rows)
        self._file = path.open("a")
        self._board = SummaryWriter(str(run_dir / TENSORBOARD), purge_step=step + 1)

    def __enter__(self) -> Metrics:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._file.close()
        self._board.close()

    def write(self, row: Row) -> None:
        """Append one row. Numbers are written so that reading gives the same float."""
        self._file.write(json.dumps(row, allow_nan=False) + "\n")
        self._file.flush()
        self.rows += 1
        for name, value in row.items():
            if name != "step":
                self._board.add_scalar(name, value, row["step"])
        self._board.flush()

    def sync(self) -> None:
        """Everything written is on the disk."""
        os.fsync(self._file.fileno())


def sentence(row: Row) -> str:
    """A row as the log line."""
    losses = " ".join(
        f"{name.removeprefix('loss/')} {value:.4f}" for name, value in row.items() if "/" in name
    )
    return (
        f"loss {row['loss']:.4f} ({losses}), grad norm {row['grad_norm']:.2f}, lr {row['lr']:.2e}, "
        f"{row['steps_per_second']:.2f} steps/s, data {100 * row['data_share']:.0f} %"
    )
