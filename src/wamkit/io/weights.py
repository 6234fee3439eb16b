"""The weights of a run directory: one file, and beside it the record of what it was when it was written.

Does not know what they are the weights of.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from pydantic import ConfigDict
from torch import Tensor
from wamkit_client.types import BadInput

from wamkit.io.files import refuse_pointer, sha256
from wamkit.io.records import read_record, write_record
from wamkit.io.tensors import read_tensors, write_tensors

WEIGHTS = "weights.safetensors"
WEIGHTS_RECORD = "weights.json"


@dataclass(frozen=True)
class WeightsRecord:
    """`weights.json`: what `weights.safetensors` was when it was written."""

    __pydantic_config__: ClassVar[ConfigDict] = ConfigDict(extra="forbid")

    bytes: int
    sha256: str


def save_weights(run_dir: Path, tensors: Mapping[str, Tensor]) -> None:
    """`weights.safetensors` and, beside it, `weights.json` with its size and sha256."""
    path, record, staged = run_dir / WEIGHTS, run_dir / WEIGHTS_RECORD, run_dir / f"{WEIGHTS}.tmp"
    digest = write_tensors(staged, tensors)  # a disk that refuses leaves both files as they were
    record.unlink(missing_ok=True)  # not for a moment the record of other weights
    os.replace(staged, path)
    write_record(record, WeightsRecord(path.stat().st_size, digest))


def run_weights(run_dir: Path) -> dict[str, Tensor]:
    """A run's trained weights, memory-mapped. BadInput where they are missing or not as they were written.

    Runs from before `weights.json` was written are only checked for being whole.
    """
    path, remedy = run_dir / WEIGHTS, "copy the run directory again, or repeat its `wamkit train`"
    if not path.is_file():
        raise BadInput(
            f"{run_dir}: {WEIGHTS} is missing; training writes it at its end: finish `wamkit train`"
        )
    if (run_dir / WEIGHTS_RECORD).exists():
        refuse_pointer(path)
        record = read_record(run_dir / WEIGHTS_RECORD, WeightsRecord, remedy)
        if path.stat().st_size != record.bytes:
            raise BadInput(f"{path}: expected {record.bytes} bytes, got {path.stat().st_size}; {remedy}")
        if sha256(path) != record.sha256:
            raise BadInput(f"{path}: its bytes have changed since it was written (sha256 differs); {remedy}")
    return read_tensors(path)
