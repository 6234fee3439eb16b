"""The files of a dataset as the disk has them: whole, or `Broken` says what is there instead.

Symbolic links are followed, files and folders alike. It knows bytes, rows and types, not what the files mean
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
from pydantic import TypeAdapter, ValidationError
from wamkit_client.types import BadInput

from wamkit.io.files import is_pointer

PARTS = ("meta", "data", "videos")
"""The folders of a dataset."""

RESTORE = "copy or record it again"
SMALL = 1024
"""Bytes that no video or parquet file is smaller than, and every Git LFS pointer is."""


class Broken(BadInput):
    """Something in a dataset that cannot be used.

    where: the file, from here relative to the dataset. what: what is wrong. remedy: what to do.
    """

    def __init__(self, where: str, what: str, remedy: str):
        self.where, self.what, self.remedy = where, what, remedy
        super().__init__(f"{where}: {what}; {remedy}")


def sizes(root: Path, parts: Sequence[str] = PARTS) -> dict[str, int]:
    """Bytes of every file in some folders of the dataset, by path relative to the root. Raises Broken.

    Links are followed, but not to a folder they stand in; a link that leads nowhere has 0 bytes (`expect` says why).
    """
    folders = [root / part for part in parts if (root / part).is_dir()]
    return {file: size for folder in folders for file, size in _below(root, folder, frozenset())}


def _below(root: Path, folder: Path, above: frozenset[tuple[int, int]]) -> Iterator[tuple[str, int]]:
    """The files in a folder and in those below it. above: the folders it stands in."""
    try:
        status = folder.stat()
        entries = list(os.scandir(folder))
    except OSError as error:
        raise _refused(root, folder.relative_to(root).as_posix(), error, RESTORE) from error
    here = (status.st_dev, status.st_ino)
    if here in above:
        return
    for entry in entries:
        try:
            status = entry.stat()
        except OSError:
            yield Path(entry.path).relative_to(root).as_posix(), 0
            continue
        if stat.S_ISDIR(status.st_mode):
            yield from _below(root, Path(entry.path), above | {here})
        else:
            yield Path(entry.path).relative_to(root).as_posix(), status.st_size


def expect(root: Path, file: str, remedy: str = RESTORE) -> Path:
    """The path of a file. Raises Broken where there is none, where the disk refuses, and for a Git LFS pointer."""
    path = root / file
    try:
        status = path.stat()
        pointer = status.st_size < SMALL and stat.S_ISREG(status.st_mode) and is_pointer(path)
    except OSError as error:
        raise _refused(root, file, error, remedy) from error
    if pointer:
        raise Broken(
            file, "is a Git LFS pointer, not the file itself", "run `git lfs pull` in its repository"
        )
    if not stat.S_ISREG(status.st_mode):
        kind = "a folder" if stat.S_ISDIR(status.st_mode) else "a pipe or a device"
        raise Broken(file, f"is {kind} where a file is needed", remedy)
    return path


def _refused(root: Path, file: str, error: OSError, remedy: str) -> Broken:
    """Why a file cannot be reached."""
    if error.errno == errno.ELOOP:
        return Broken(file, "is a symbolic link that leads to itself", "mend the link")
    if error.errno not in (errno.ENOENT, errno.ENOTDIR):
        return Broken(file, f"cannot be read ({(error.strerror or str(error)).lower()})", "mend that first")
    for path in (root / part for part in (file, *map(str, PurePosixPath(file).parents))):
        if path.is_symlink() and not path.exists():
            link = "it" if path == root / file else path.relative_to(root).as_posix()
            what = f"is missing: {link} is a symbolic link to {os.readlink(path)}, where nothing is"
            return Broken(file, what, "mend the link, or copy what it led to")
    return Broken(file, "is missing", remedy)


def read_json(root: Path, file: str, remedy: str) -> dict[str, Any]:
    """A file that holds a JSON object. Raises Broken."""
    return validated(_OBJECT, _parsed(file, _text(root, file, remedy), "JSON", remedy), file, remedy)


def read_jsonl(root: Path, file: str) -> list[dict[str, Any]]:
    """A file that holds a JSON object a line. Raises Broken."""
    lines = [line for line in _text(root, file, RESTORE).split("\n") if line.strip()]
    rows = [_parsed(file, line, "a file of JSON lines", RESTORE) for line in lines]
    return validated(_OBJECTS, rows, file, RESTORE)


def _text(root: Path, file: str, remedy: str) -> str:
    path = expect(root, file, remedy)
    try:
        return path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise Broken(file, f"is not JSON ({error.reason} at byte {error.start})", remedy) from error
    except OSError as error:
        raise _refused(root, file, error, remedy) from error


def _parsed(file: str, text: str, form: str, remedy: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise Broken(file, f"is not {form} ({error})", remedy) from error


def column_names(root: Path, file: str) -> list[str]:
    """The columns of a parquet file. Raises Broken."""
    with _parquet(root, file, ()) as parquet:
        names: list[str] = parquet.schema_arrow.names
        return names


def read_parquet(root: Path, file: str, columns: Sequence[str] = ()) -> pa.Table:
    """A parquet file, all columns or some. Raises Broken where it is missing, truncated, or lacks a column."""
    with _parquet(root, file, columns) as parquet:
        table = parquet.read(list(columns) or None)
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
    """The row behind the last one of each row group of a parquet file: int64 [groups]. Raises Broken."""
    with _parquet(root, file, ()) as parquet:
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
def _parquet(root: Path, file: str, columns: Sequence[str]) -> Iterator[pq.ParquetFile]:
    path = expect(root, file)
    try:
        # ParquetFile, because read_table would take folder names such as a=1 for further columns
        with pq.ParquetFile(path, page_checksum_verification=True) as parquet:
            names = parquet.schema_arrow.names
            twice = [name for name, count in Counter(names).items() if count > 1]
            if twice:
                raise Broken(file, f"column {twice[0]!r:.60} is there twice", RESTORE)
            lacking = [name for name in columns if name not in names]
            if lacking:
                raise Broken(
                    file, f"column {lacking[0]!r} is missing", "write the file again with all features"
                )
            yield parquet
    except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
        raise _unreadable(file, error) from error


def _unreadable(file: str, error: Exception) -> Broken:
    if isinstance(error, PermissionError):
        return Broken(file, "cannot be read (permission denied)", "mend that first")
    what = f"is truncated or no parquet file ({str(error).partition(chr(10))[0]:.200})"
    return Broken(file, what, "copy or record it again (an unfinished recording has no footer)")


T = TypeVar("T")


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


_OBJECT = TypeAdapter(dict[str, Any]).validate_python
_OBJECTS = TypeAdapter(list[dict[str, Any]]).validate_python
