"""Where a command will write is looked at before its work begins."""

from __future__ import annotations

import os
from pathlib import Path

from wamkit_client.types import BadInput

from wamkit.io.files import expect_writable

MARKERS = {"dataset": "meta/info.json", "latent cache": "fingerprint.json"}
DATASET, CACHE = MARKERS


def output_folder(folder: Path, becomes: str = "") -> None:
    """BadInput where `folder` could not be made or written to, or lies in a dataset or a latent cache.

    becomes: DATASET or CACHE where `folder` is to be one, which it may be already.
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
    """`output_folder` for a single file, which may exist."""
    output_folder(path.parent)
    if path.exists() and not path.is_file():
        raise BadInput(f"{path}: is a folder or a device; name a file")
