"""Files that are either whole or absent, folders with one writer, and disk errors in plain words.

A name ending in `.tmp` is an unfinished file, also after `kill -9` and on a full disk. It does not know contents.
"""

from __future__ import annotations

import errno
import fcntl
import hashlib
import os
import shutil
import socket
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from wamkit_client.types import BadInput

from wamkit.io.progress import warn

NO_SPACE = frozenset({errno.ENOSPC, errno.EDQUOT})
NO_LINKS = frozenset({errno.EPERM, errno.ENOSYS, errno.ENOTSUP, errno.EMLINK, errno.EXDEV})
NO_LOCKS = frozenset({errno.ENOSYS, errno.ENOTSUP, errno.ENOLCK, errno.EBADF, errno.EINVAL})
LOCK = ".lock"
POINTER = b"version https://git-lfs.github.com/spec/"
AGAIN = "run the same command again to resume"


def replace_file(path: Path, data: bytes) -> None:
    """Write `data` beside `path`, flush it to the disk, rename it. An OSError leaves no partial file."""
    with replacing(path) as file:
        file.write(data)


@contextmanager
def replacing(path: Path) -> Iterator[BinaryIO]:
    """`replace_file` for what is written piece by piece."""
    temporary = _beside(path)
    try:
        with temporary.open("wb") as file:
            yield file
            _flush(file)
        os.replace(temporary, path)
    except BaseException as error:
        temporary.unlink(missing_ok=True)
        if isinstance(error, OSError) and error.filename in (None, str(temporary)):
            error.filename = str(path)
        raise
    sync(path.parent)


def replace_text(path: Path, text: str) -> None:
    """`replace_file` for text (UTF-8). No-op where the file holds this text already."""
    data = text.encode()
    if not path.is_file() or path.read_bytes() != data:
        replace_file(path, data)


def create_file(path: Path, data: bytes) -> bool:
    """Like `replace_file`, but returns False and writes nothing where `path` exists: of many callers one wins.

    Where the file system has no hard links (object stores), others may see an empty file for a moment.
    """
    temporary = _beside(path)
    try:
        with temporary.open("wb") as file:
            file.write(data)
            _flush(file)
        os.link(temporary, path)
    except FileExistsError:
        return False
    except OSError as error:
        if error.errno not in NO_LINKS:
            raise
        return _create_in_place(path, data)
    finally:
        temporary.unlink(missing_ok=True)
    return True


def _create_in_place(path: Path, data: bytes) -> bool:
    try:
        file = path.open("xb")
    except FileExistsError:
        return False
    try:
        with file:
            file.write(data)
            _flush(file)
    except BaseException:
        path.unlink()
        raise
    return True


def sha256(path: Path) -> str:
    """64 hex digits; the file is never in memory as a whole."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def sync(path: Path) -> None:
    """Wait until the disk has a file's contents, or a folder's entries. Contents come before the rename to them."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def expect_writable(folder: Path) -> None:
    """BadInput where `folder` could not be created or written to; creates nothing."""
    absolute = folder.absolute()
    existing = next(place for place in (absolute, *absolute.parents) if os.path.lexists(place))
    try:
        with tempfile.TemporaryFile(dir=existing):
            pass
    except OSError as error:
        raise explained(OSError(error.errno, error.strerror, str(existing))) from error


@contextmanager
def only_writer(folder: Path, work: str) -> Iterator[None]:
    """Create `folder` and its parents and lock it. BadInput while another process holds it, where it is a file, and
    where it cannot be written to.

    work: what a writer does there, for the message "another process {work} here".
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise explained(error, folder) from error
    expect_writable(folder)
    with try_lock(folder / LOCK) as mine:
        if not mine:
            raise BadInput(f"{folder}: another process {work} here; wait for it or choose another folder")
        yield


@contextmanager
def try_lock(path: Path) -> Iterator[bool]:
    """Lock the file `path` without waiting; yields whether this process has the lock.

    A lock ends with its process; its file is removed on release. Where the file system has no locks, every process gets
    one, with a warning.
    """
    while True:
        with path.open("w") as handle:
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                yield False
                return
            except OSError as error:
                if error.errno not in NO_LOCKS:
                    raise
                warn(f"{path.parent}: this file system has no locks; let only one process write here")
            if not _is_named(handle.fileno(), path):
                continue  # its last owner removed the file between our open and our lock
            try:
                yield True
            finally:
                if _is_named(handle.fileno(), path):  # not where the folder was removed with it
                    path.unlink()
            return


def _is_named(handle: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(handle), path.stat())
    except FileNotFoundError:
        return False


def is_pointer(path: Path) -> bool:
    """Whether `path` is the small text that Git LFS leaves in place of a large file it has not fetched."""
    with path.open("rb") as file:
        return file.read(len(POINTER)) == POINTER


def refuse_pointer(path: Path) -> None:
    """BadInput where `path` is Git LFS's pointer to a file."""
    if is_pointer(path):
        raise BadInput(
            f"{path}: is a Git LFS pointer, not the file itself; run `git lfs pull` in its repository"
        )


def explained(error: OSError, place: str | Path = "") -> BadInput:
    """An error of the disk or of a path as one sentence with a remedy. place: named where the error names no file."""
    where = error.filename or place or "a file, or standard output"
    reason = (error.strerror or str(error)).lower()
    if error.errno in NO_SPACE:
        return BadInput(
            f"{where}: the disk is full; free some space, then {AGAIN}. What was finished is kept"
        )
    remedy = _REMEDIES.get(error.errno or 0, "check the path and the disk")
    return BadInput(f"{where}: {reason}; {remedy}, then run the command again")


_REMEDIES = {
    errno.EACCES: "choose another folder or change its permissions",
    errno.EPERM: "choose another folder or change its permissions",
    errno.EROFS: "choose a folder on a disk that can be written to",
    errno.EEXIST: "it is a file where a folder is needed: choose another name",
    errno.ENOTDIR: "it is a file where a folder is needed: choose another name",
    errno.EISDIR: "it is a folder where a file is needed: choose another name",
    errno.ENOENT: "check the spelling of the path",
    errno.ELOOP: "a symbolic link points to itself: repair it",
    errno.EFBIG: "raise the limit of file sizes (ulimit -f), or choose another disk",
    errno.EIO: "the disk fails to read or write: copy the data to another one",
    errno.EMFILE: "raise the limit of open files (ulimit -n)",
    errno.ENAMETOOLONG: "choose a shorter name",
    errno.ENODEV: "the disk is gone: connect it again",
    errno.ESTALE: "the network disk has changed below: mount it again",
}
DISK_ERRORS = NO_SPACE | _REMEDIES.keys()
"""Errors of the machine or of a path; any other OSError is a bug."""


def disk_full(folder: Path, needed: int, kept: str) -> BadInput:
    """The error for a disk that filled: `needed` more bytes in `folder`; `kept` says what is safe."""
    free = shutil.disk_usage(folder).free / 1e6
    return BadInput(
        f"{folder}: the disk is full ({free:.1f} MB free, about {needed / 1e6:.1f} MB still needed); {kept}. "
        f"Free some space or move the folder to a larger disk, then {AGAIN}"
    )


def _beside(path: Path) -> Path:
    return path.with_name(f"{path.name}.{socket.gethostname()}-{os.getpid()}.tmp")


def _flush(file: BinaryIO) -> None:
    file.flush()
    os.fsync(file.fileno())
