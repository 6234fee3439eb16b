"""Files that are either whole or absent, also after `kill -9` and on a full disk.

Knows nothing about what is in them. A name ending in `.tmp` is somebody's unfinished work.
"""

from __future__ import annotations

import errno
import os
import shutil
import socket
from pathlib import Path

from wamkit_client.types import BadInput

NO_SPACE = frozenset({errno.ENOSPC, errno.EDQUOT})


def replace_file(path: Path, data: bytes) -> None:
    """Write `data` beside `path`, flush it to the disk, take the name. OSError leaves no partial file."""
    temporary = _write_temporary(path, data)
    os.replace(temporary, path)
    sync_folder(path.parent)


def create_file(path: Path, data: bytes) -> bool:
    """Like `replace_file`, but False (and nothing written) where `path` exists: of many callers one wins."""
    temporary = _write_temporary(path, data)
    try:
        os.link(temporary, path)
    except FileExistsError:
        return False
    finally:
        temporary.unlink()
    return True


def sync_folder(folder: Path) -> None:
    """Make renames inside `folder` survive a power cut."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def disk_full(folder: Path, needed: int, kept: str) -> BadInput:
    """The error for a disk that filled: `needed` more bytes in `folder`; `kept` says what is safe."""
    free = shutil.disk_usage(folder).free / 1e6
    return BadInput(
        f"{folder}: the disk is full ({free:.1f} MB free, about {needed / 1e6:.1f} MB still needed); {kept}. "
        "Free some space or move the folder to a larger disk, then run the same command again."
    )


def _write_temporary(path: Path, data: bytes) -> Path:
    temporary = path.with_name(f"{path.name}.{socket.gethostname()}-{os.getpid()}.tmp")
    try:
        with temporary.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    return temporary
