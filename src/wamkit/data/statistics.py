"""Statistics of a column, dimension by dimension, computed from its rows in float64.

The statistics in a dataset's own files are not used: their quantiles are averages or extremes of the episodes'
quantiles, depending on the LeRobot version that wrote them.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from wamkit_client.types import BadInput

QUANTILES = {"q01": 0.01, "q10": 0.10, "q50": 0.50, "q90": 0.90, "q99": 0.99}
STILL = 1e-4
"""A dimension whose range is smaller does not move."""

MEASURES = ("min", "max", "mean", "std")
ARRAYS = (*MEASURES, *QUANTILES)
RESTORE = "restore it from a copy of the run"


@dataclass(frozen=True)
class Stats:
    """One number per dimension (float64 [d]), in the column's units; std is that of the population.

    Quantiles are NaN where they are not known, which is null in JSON.
    """

    min: np.ndarray
    max: np.ndarray
    mean: np.ndarray
    std: np.ndarray
    q01: np.ndarray
    q10: np.ndarray
    q50: np.ndarray
    q90: np.ndarray
    q99: np.ndarray
    count: int

    @classmethod
    def of(cls, rows: np.ndarray) -> Stats:
        """Statistics of rows [n, d]. BadInput where there is no row or a value is not finite."""
        if len(rows) == 0:
            raise BadInput("statistics of an empty column; expected at least one row")
        if not np.isfinite(rows).all():
            row, dim = np.argwhere(~np.isfinite(rows))[0]
            raise BadInput(
                f"row {row}, dimension {dim} is {rows[row, dim]}; expected finite numbers, correct the data"
            )
        # one dimension at a time, so that no float64 copy of all rows is needed
        columns = (rows[:, dim].astype(np.float64) for dim in range(rows.shape[1]))
        table = np.array(
            [[x.min(), x.max(), x.mean(), x.std(), *np.quantile(x, [*QUANTILES.values()])] for x in columns]
        ).reshape(-1, len(ARRAYS))  # a robot may have no proprio
        return cls(**dict(zip(ARRAYS, table.T, strict=True)), count=len(rows))

    @classmethod
    def of_pixels(cls, histogram: np.ndarray) -> Stats:
        """Statistics per channel in [0, 1] from counts [3, 256] of 8-bit values; quantiles by rank."""
        levels = np.arange(256) / 255
        count = int(histogram[0].sum())
        cumulative = histogram.cumsum(axis=1)
        mean = histogram @ levels / count
        quantile = {
            name: levels[np.array([np.searchsorted(c, max(q * count, 1)) for c in cumulative])]
            for name, q in QUANTILES.items()
        }
        return cls(
            min=levels[(histogram > 0).argmax(axis=1)],
            max=levels[255 - (histogram[:, ::-1] > 0).argmax(axis=1)],
            mean=mean,
            std=np.sqrt((histogram * (levels - mean[:, None]) ** 2).sum(axis=1) / count),
            **quantile,
            count=count,
        )

    def to_dict(self) -> dict[str, Any]:
        """Lists of numbers (null where unknown), and the count, for JSON."""
        lists = {name: vars(self)[name].tolist() for name in ARRAYS}
        known = {name: [None if math.isnan(x) else x for x in row] for name, row in lists.items()}
        return known | {"count": self.count}

    @classmethod
    def from_dict(cls, values: Any, where: str) -> Stats:
        """The inverse of `to_dict`.

        BadInput, beginning with `where` and naming list and dimension, where something is missing, unknown, of another
        length or impossible.
        """
        if not isinstance(values, dict) or values.keys() != {*ARRAYS, "count"}:
            found = list(values) if isinstance(values, dict) else values
            raise BadInput(f"{where}: expected {', '.join(ARRAYS)} and count, got {found!r:.200}; {RESTORE}")
        arrays = {name: _numbers(values[name], f"{where}.{name}") for name in ARRAYS}
        lengths = {name: len(array) for name, array in arrays.items()}
        if len({*lengths.values()}) > 1:
            raise BadInput(f"{where}: expected lists of one length, got {lengths}; {RESTORE}")
        if type(values["count"]) is not int or values["count"] < 1:
            raise BadInput(f"{where}.count is {values['count']!r}; expected a number of rows; {RESTORE}")
        for wrong, what in (
            (arrays["max"] < arrays["min"], "max is below min"),
            (arrays["std"] < 0, "std is negative"),
        ):
            if wrong.any():
                raise BadInput(f"{where}: {what} in dimension {int(wrong.argmax())}; {RESTORE}")
        return cls(**arrays, count=values["count"])


def _numbers(values: Any, where: str) -> np.ndarray:
    """A list from JSON. null (NaN in older files) is an unknown quantile, and allowed nowhere else."""
    numbers = values if isinstance(values, list) else [values]
    unknown = where.rpartition(".")[2] in QUANTILES
    for dim, x in enumerate(numbers):
        missing = x is None or (type(x) is float and math.isnan(x))
        if not (missing and unknown) and not (type(x) in (int, float) and math.isfinite(x)):
            raise BadInput(f"{where}[{dim}] is {x!r:.60}; expected a finite number; {RESTORE}")
    return np.array([math.nan if x is None else x for x in numbers], np.float64)
