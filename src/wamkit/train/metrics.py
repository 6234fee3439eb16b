"""What a run tells while it trains: `metrics.jsonl`, a row per logging step, and `held_out.jsonl` (held_out.py); both
are shown in a tracker.

A row of training has "step" (optimizer steps done), "loss" (weighted total), "loss/<name>" for each loss (unweighted),
"grad_norm" (before clipping), "lr", "steps_per_second" and "data_share" (of the time, spent waiting for
data). Losses and norms are means over the steps since the last row. Does not know how they are computed.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import TypeVar

import torch
from torch import Tensor

from wamkit.io.progress import warn
from wamkit.train.checkpoint import Progress
from wamkit.train.held_out import FILE as HELD_OUT
from wamkit.train.overfitting import news
from wamkit.train.ranks import ALONE, Agreed, Ranks
from wamkit.train.rows import Row, Rows, Table, read_table
from wamkit.train.trackers import Tracker

FILE = "metrics.jsonl"
T = TypeVar("T")


def read_rows(run_dir: Path) -> list[Row]:
    """The rows of a run's metrics; see `read_table`."""
    return read_table(run_dir / FILE)


class Window:
    """The scalars of the steps since the last row; on their device until a row or a checkpoint is due.

    ranks: who trains; their means are told.
    """

    def __init__(self, values: Mapping[str, list[float]], ranks: Ranks = ALONE) -> None:
        self._ranks = ranks
        self.values = {name: list(column) for name, column in values.items()}
        self._unseen: list[tuple[int, tuple[str, ...], dict[str, Tensor]]] = []

    def add(self, step: int, ids: tuple[str, ...], scalars: dict[str, Tensor]) -> None:
        """The scalars of step `step` (from 1), which saw the samples `ids`."""
        self._unseen.append((step, ids, scalars))

    def settle(self) -> None:
        """Read what was added, waiting once for the device. Agreed with step and samples if not finite."""
        if not self._unseen:
            return
        own = torch.stack([value.float() for _, _, scalars in self._unseen for value in scalars.values()])
        numbers = iter(self._ranks.mean(own).tolist())
        for step, ids, scalars in self._unseen:
            found = {name: next(numbers) for name in scalars}
            if not all(map(math.isfinite, found.values())):
                scalars_text = ", ".join(f"{name} {value}" for name, value in found.items())
                seen = [name for own in self._ranks.gathered(ids) for name in own]
                raise Agreed(
                    f"step {step}: not finite: {scalars_text}; samples of this batch: {', '.join(seen)}. "
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

    @contextmanager
    def stopped(self) -> Iterator[None]:
        """What is done meanwhile is not counted."""
        start = time.perf_counter()
        yield
        self._start += time.perf_counter() - start

    def lap(self) -> Row:
        """Since the last lap."""
        seconds = time.perf_counter() - self._start
        row = {"steps_per_second": self._steps / seconds, "data_share": self._waited / seconds}
        self._start, self._waited, self._steps = time.perf_counter(), 0.0, 0
        return row


class Metrics:
    """Writes rows after those that a run has, those up to a checkpoint, and shows them in a tracker.

    training, held_out: the rows of metrics.jsonl and held_out.jsonl. table: what becomes of them.
    """

    def __init__(
        self,
        run_dir: Path,
        training: Sequence[Row],
        held_out: Sequence[Row],
        tracker: Tracker,
        table: type[Rows] = Table,
    ) -> None:
        self.training = table(run_dir / FILE, training)
        self.held_out = table(run_dir / HELD_OUT, held_out)
        self._tracker = tracker

    def __enter__(self) -> Metrics:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._tracker.close()

    def add(self, row: Row) -> None:
        """Append a row of training."""
        self.training.add(row)
        self._tracker.write("", row)

    def add_held_out(self, row: Row) -> None:
        """Append a row of held-out episodes, with a warning where it is the first that shows overfitting."""
        self.held_out.add(row)
        self._tracker.write("held_out/", row)
        if told := news(self.held_out.rows, self.training.rows):
            warn(told)

    def counted(self, progress: Progress) -> Progress:
        """The same, with the rows that are written by now."""
        return replace(progress, rows=len(self.training.rows), held_out=len(self.held_out.rows))

    def sync(self) -> None:
        """Everything written is on the disk."""
        self.training.sync()
        self.held_out.sync()


def sentence(row: Row) -> str:
    """A row as the log line."""
    losses = " ".join(
        f"{name.removeprefix('loss/')} {value:.4f}" for name, value in row.items() if "/" in name
    )
    return (
        f"loss {row['loss']:.4f} ({losses}), grad norm {row['grad_norm']:.2f}, lr {row['lr']:.2e}, "
        f"data {100 * row['data_share']:.0f} %"
    )
