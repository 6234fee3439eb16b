"""Reading the files of a dataset: each is whole, or `Broken` says what is there instead.

Symbolic links are followed, to files and to folders. It knows bytes, rows and types, not what the files mean
(data/lerobot/files.py).
"""

from __future__ import annotations

import errno
import json
import os
import stat
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import Any, TypeVar

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from pydantic import ValidationError
from wamkit_client.types import BadInput

from wamkit.io.files import is_pointer

RESTORE = "copy or record it again"
NO_FOOTER = f"{RESTORE} (an unfinished recording has no footer)"
SMALL = 1024
"""Bytes: every Git LFS pointer is smaller, no video or parquet file is."""

T = TypeVar("T")


class Broken(BadInput):
    """Something in a dataset that cannot be used: raised by what reads it, listed by `wamkit data check`.

    where: the file, relative to the dataset or as a whole path. what: what is wrong. remedy: what to do.
    """

    def __init__(self, where: str, what: str, remedy: str):
        self.where, self.what, self.remedy = where, what, remedy
        super().__init__(f"{where}: {what}; {remedy}")


@contextmanager
def inside(root: Path) -> Iterator[None]:
    """`Broken` raised inside names files relative to `root`; outside, it names the whole path."""
    try:
        yield
    except Broken as broken:
        raise Broken(str(root / broken.where), broken.what, broken.remedy) from broken


def files_below(root: Path, *parts: str) -> list[str]:
    """Every file in some folders of the dataset, sorted, relative to the root; no folder has no files.

    Links are followed, except to a folder they are in. Raises Broken where a folder cannot be read.
    """
    return sorted(file for part in parts if (root / part).is_dir() for file in _below(root, part, ()))


def file_size(path: Path) -> int:
    """Bytes; 0 for a link that leads nowhere."""
    try:
        return path.stat().st_size
    except OSError:
        return 0


def _below(root: Path, folder: str, above: tuple[str, ...]) -> Iterator[str]:
    """above: the real paths of the folders this one is in; a link back to one of them would never end."""
    real = os.path.realpath(root / folder)
    if real in above:
        return
    try:
        entries = list(os.scandir(root / folder))
    except OSError as error:
        raise _unreachable(root, folder, error, RESTORE) from error
    for entry in entries:
        place = f"{folder}/{entry.name}"
        if os.path.isdir(entry.path) if entry.is_symlink() else entry.is_dir():
            yield from _below(root, place, (*above, real))
        else:
            yield place


def expect(root: Path, file: str, remedy: str = RESTORE) -> Path:
    """The path of a file. Raises Broken where it is missing, unreadable, no regular file, or a Git LFS pointer."""
    path = root / file
    try:
        status = path.stat()
        # only regular files are opened: opening a pipe would wait for ever
        pointer = status.st_size < SMALL and stat.S_ISREG(status.st_mode) and is_pointer(path)
    except OSError as error:
        raise _unreachable(root, file, error, remedy) from error
    if pointer:
        raise Broken(
            file, "is a Git LFS pointer, not the file itself", "run `git lfs pull` in its repository"
        )
    if not stat.S_ISREG(status.st_mode):
        kind = "a folder" if stat.S_ISDIR(status.st_mode) else "a pipe or a device"
        raise Broken(file, f"is {kind} where a file is needed", remedy)
    return path


def _unreachable(root: Path, file: str, error: OSError, remedy: str) -> Broken:
    if error.errno == errno.ELOOP:
        return Broken(file, "is a symbolic link that leads to itself", "repair the link")
    if error.errno not in (errno.ENOENT, errno.ENOTDIR):
        return Broken(file, f"cannot be read ({(error.strerror or str(error)).lower()})", "repair that first")
    for path in (root / part for part in (file, *map(str, PurePosixPath(file).parents))):
        if path.is_symlink() and not path.exists():
            link = "it" if path == root / file else path.relative_to(root).as_posix()
            what = f"is missing: {link} is a symbolic link to {os.readlink(path)}, where nothing is"
            return Broken(file, what, "repair the link, or copy what it led to")
    return Broken(file, "is missing", remedy)


def read_json(root: Path, file: str, remedy: str) -> dict[str, Any]:
    """A file that holds a JSON object. Raises Broken."""
    return _objects(file, [_text(root, file, remedy)], "JSON", remedy)[0]


def read_jsonl(root: Path, file: str) -> list[dict[str, Any]]:
    """A file with a JSON object on each line. Raises Broken."""
    lines = [line for line in _text(root, file, RESTORE).split("\n") if line.strip()]
    return _objects(file, lines, "a file of JSON lines", RESTORE)


def _text(root: Path, file: str, remedy: str) -> str:
    path = expect(root, file, remedy)
    try:
        return path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise Broken(file, f"is not JSON ({error.reason} at byte {error.start})", remedy) from error
    except OSError as error:
        raise _unreachable(root, file, error, remedy) from error


def _objects(file: str, texts: Sequence[str], form: str, remedy: str) -> list[dict[str, Any]]:
    try:
        parsed = [json.loads(text) for text in texts]
    except (ValueError, RecursionError) as error:
        raise Broken(file, f"is not {form} ({error})", remedy) from error
    for value in parsed:
        if not isinstance(value, dict):
            raise Broken(file, f"is not {form} ({value!r:.60} is no object)", remedy)
    return parsed


def column_names(root: Path, file: str) -> list[str]:
    """The columns of a parquet file. Raises Broken."""
    with _parquet(root, file) as parquet:
        names: list[str] = parquet.schema_arrow.names
        return names


def read_parquet(root: Path, file: str, columns: Sequence[str] | None = None) -> pa.Table:
    """A parquet file, all columns or some. Raises Broken where it is missing, truncated, or lacks a column."""
    with _parquet(root, file, columns or ()) as parquet:
        table = parquet.read(columns)
        table.validate(full=True)
        return table


def read_rows(root: Path, file: str, columns: Sequence[str]) -> list[dict[str, Any]]:
    """The rows of some columns of a parquet file. Raises Broken as `read_parquet`."""
    table = read_parquet(root, file, columns)
    try:
        return table.to_pylist()
    except (ValueError, OverflowError, pa.ArrowException) as error:
        raise _unreadable(file, error) from error


def group_ends(root: Path, file: str) -> np.ndarray:
    """For each row group of a parquet file, the row after its last one: int64 [groups]. Raises Broken."""
    with _parquet(root, file) as parquet:
        groups = range(parquet.num_row_groups)
        ends = np.cumsum([parquet.metadata.row_group(group).num_rows for group in groups], dtype=np.int64)
        if ends[-1:].sum() != parquet.metadata.num_rows:
            raise Broken(file, "its row groups are not as long as the file says", RESTORE)
        return ends


def read_group(root: Path, file: str, column: str, group: int) -> pa.ChunkedArray:
    """A column of one row group, the smallest piece of a parquet file that can be read. Raises Broken."""
    with _parquet(root, file, [column]) as parquet:
        table = parquet.read_row_group(group, [column])
        table.validate(full=True)
        if len(table) != parquet.metadata.row_group(group).num_rows:
            raise Broken(file, f"row group {group} is not as long as the file says", RESTORE)
        return table[column]


@contextmanager
def _parquet(root: Path, file: str, columns: Sequence[str] = ()) -> Iterator[pq.ParquetFile]:
    path = expect(root, file)
    try:
        # ParquetFile, because read_table would take folder names such as a=1 for further columns
        with pq.ParquetFile(path, page_checksum_verification=True) as parquet:
            names = Counter(parquet.schema_arrow.names)
            for name, count in names.items():
                if count > 1:
                    raise Broken(file, f"column {name!r:.60} is there twice", RESTORE)
            for name in columns:
                if name not in names:
                    what = f"column {name!r} is missing"
                    raise Broken(file, what, "write the file again with all features")
            yield parquet
    except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
        raise _unreadable(file, error) from error


def _unreadable(file: str, error: Exception) -> Broken:
    if isinstance(error, PermissionError):
        return Broken(file, "cannot be read (permission denied)", "repair that first")
    return Broken(
        file, f"is truncated or no parquet file ({str(error).partition(chr(10))[0]:.200})", NO_FOOTER
    )


def validated(validate: Callable[[Any], T], raw: Any, where: str, remedy: str) -> T:
    """What a file holds, with the types it must have. Raises Broken naming the first value that has not."""
    try:
        return validate(raw)
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(map(str, first["loc"])) or "the content"
        if first["type"] == "missing":
            raise Broken(where, f"{place!r} is missing", remedy) from error
        raise Broken(where, f"{place}: {first['msg'].lower()}, got {first['input']!r:.60}", remedy) from error
