"""Rows of numbers in a file of a run directory, one JSON object on a line: what is written while a run trains.

Every row has "step". Does not know what else is in them.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from wamkit_client.types import BadInput

from wamkit.io.files import replace_file, sync

Row = dict[str, float]


def read_table(path: Path) -> list[Row]:
    """All rows. A last line that a killed process left unfinished is none; another broken line is BadInput."""
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


def rows_until(path: Path, step: int, expected: int) -> list[Row]:
    """The rows up to a checkpoint of `step`, which counted `expected`. BadInput where there are not as many."""
    if not (expected or path.exists()):
        return []
    rows = [row for row in read_table(path) if row["step"] <= step]
    if len(rows) != expected:
        raise BadInput(
            f"{path}: expected {expected} rows up to step {step}, got {len(rows)}; "
            "restore the file, or start over in another run directory"
        )
    return rows


class Rows:
    """Rows that are kept and not written. path: of the file that another process writes."""

    def __init__(self, path: Path, rows: Sequence[Row]) -> None:
        self.path, self.rows = path, list(rows)

    def add(self, row: Row) -> None:
        """Append one row."""
        self.rows.append(row)

    def sync(self) -> None:
        """Everything written is on the disk."""


class Table(Rows):
    """A file that is written after `rows`, so that after a resume every row is there once; no file without a row."""

    def __init__(self, path: Path, rows: Sequence[Row]) -> None:
        super().__init__(path, rows)
        if rows or path.exists():
            replace_file(path, "".join(map(_line, rows)).encode())

    def add(self, row: Row) -> None:
        """Append one row. Numbers are written so that reading gives the same float."""
        with self.path.open("a") as file:
            file.write(_line(row))
        self.rows.append(row)

    def sync(self) -> None:
        """Everything written is on the disk."""
        if self.rows:
            sync(self.path)


def _line(row: Row) -> str:
    return json.dumps(row, allow_nan=False) + "\n"
