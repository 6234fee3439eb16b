"""HDF5 files of recordings: what is missing or damaged is one message with file and key. It knows no layout."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from wamkit_client.types import BadInput

from wamkit.io.files import explained

if TYPE_CHECKING:
    import h5py


@contextmanager
def opened(path: Path) -> Iterator[h5py.File]:
    """An HDF5 file to read. BadInput where it, or what is read inside the block, is damaged; or h5py is missing."""
    try:
        import h5py
    except ModuleNotFoundError as error:
        raise BadInput(
            "HDF5 files are read with h5py; install it with: pip install 'wamkit[hdf5]'"
        ) from error
    try:
        with h5py.File(path, "r") as file:
            yield file
    except PermissionError as error:
        raise explained(error, path) from error
    except (OSError, RuntimeError, KeyError) as error:  # how HDF5 says that bytes make no sense
        raise BadInput(
            f"{path}: cannot be read ({error}); copy it again, close the program that writes it, or leave it out"
        ) from error


def rows_at(file: h5py.File, key: str) -> h5py.Dataset:
    """The dataset at `key`. BadInput where there is none, or it has no rows."""
    import h5py

    found = file.get(key)
    if not isinstance(found, h5py.Dataset) or found.ndim == 0:
        raise BadInput(f"{file.filename}: no dataset {key!r} with a row per step; leave the file out")
    if len(found) == 0:
        raise BadInput(f"{place(found)} has no rows; leave the file out")
    return found


def numbers(table: h5py.Dataset, steps: int, dtype: type[np.floating]) -> np.ndarray:
    """The first `steps` rows [steps, d]. BadInput where they are no finite numbers."""
    where = place(table)
    if table.ndim != 2 or table.shape[1] == 0 or table.dtype.kind not in "fiu":
        raise BadInput(f"{where} is {table.dtype} {list(table.shape)}; expected numbers [steps, dimensions]")
    with np.errstate(over="ignore"):  # what is too large for the dtype is found below
        rows = table[:steps].astype(dtype)
    if not np.isfinite(rows).all():
        step, dim = np.argwhere(~np.isfinite(rows))[0]
        raise BadInput(
            f"{where}, step {step}: dimension {dim} is {rows[step, dim]}; mend the value, or leave the file out"
        )
    return rows


def place(table: h5py.Dataset) -> str:
    """File and key, for messages."""
    return f"{table.file.filename}: {table.name.removeprefix('/')}"
