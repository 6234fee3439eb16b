"""The hash of files by their names and contents: which assets, which task files a result was made with."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Iterable, Sequence

from wamkit_client.types import BadInput

BLOCK = 1 << 20  # bytes read at a time


def digest(folder: Path, files: Iterable[Path]) -> str:
    """16 hex digits. files: in `folder`, in any order."""
    sha = hashlib.sha256()
    for path in sorted(files):
        sha.update(f"{path.relative_to(folder).as_posix()} {path.stat().st_size}\n".encode())
        with path.open("rb") as file:
            for block in iter(lambda: file.read(BLOCK), b""):
                sha.update(block)
    return sha.hexdigest()[:16]


def expect_contents(folder: Path, files: Sequence[Path], known: str, what: str, package: str) -> None:
    """BadInput where files in `folder` have another digest than `known`. package: what has them, with its version."""
    found = digest(folder, files) if files else "none"
    if found != known:
        raise BadInput(
            f"{folder}: {what}; expected those of {package} ({known}), got {found}; install them with: make libero   "
            "(or, in a simulator's own environment: see docs/libero.md)"
        )
