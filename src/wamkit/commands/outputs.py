"""Checks of where a command will write, before its work begins."""

from __future__ import annotations

import os
from pathlib import Path

from wamkit_client.types import BadInput

from wamkit.io.files import expect_writable

MARKERS = {"dataset": "meta/info.json", "latent cache": "fingerprint.json"}
DATASET, CACHE = MARKERS


def output_folder(folder: Path, becomes: str = "") -> None:
    """Raises BadInput if `folder` cannot be made or written to, or lies in a dataset or a latent cache.

    becomes: DATASET or CACHE if `folder` will be one; it may be one already.
    """
    expect_writable(folder)
    real = Path(os.path.realpath(folder))
    for place in (real, *real.parents):
        for kind, marker in MARKERS.items():
            if (place / marker).is_file() and not (place == real and kind == becomes):
                raise BadInput(
                    f"{folder}: lies in the {kind} {place}, which holds its own files only; "
                    "choose a folder beside it"
                )


def output_file(path: Path) -> None:
    """`output_folder` for a file, which may exist."""
    output_folder(path.parent)
    if path.exists() and not path.is_file():
        raise BadInput(f"{path}: is a folder or a device; name a file")
