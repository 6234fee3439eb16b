"""One shard of the latent cache: a range of samples, in `shard-00000000.safetensors` with a JSON manifest beside it.

Every field is a table of distinct rows and an index, so a prompt's context is stored once per shard however many
samples share it. The manifest is written last and has the sha256 of the tensors. Does not know which samples make up
a cache, nor what the fields mean.
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import torch
from pydantic import ConfigDict
from torch import Tensor
from wamkit_client.types import BadInput

from wamkit.data.samples import Encoded
from wamkit.io.files import refuse_pointer, sha256
from wamkit.io.records import read_record, write_record
from wamkit.io.tensors import write_tensors
from wamkit.tree import tree_leaves, tree_of

INPUTS = "inputs."
OTHERS = ("actions", "action_is_pad", "frame_is_pad")


def columns_of(samples: Encoded) -> dict[str, Tensor]:
    """What is stored of samples, by name; their dimensions are all of one robot, so a step is valid or padding."""
    return tree_leaves(samples.inputs, INPUTS) | {
        "actions": samples.actions,
        "action_is_pad": ~samples.valid.any(dim=2),
        "frame_is_pad": samples.frame_is_pad,
    }


def samples_of(
    columns: Mapping[str, Tensor], embodiments: tuple[str, ...], ids: tuple[str, ...], hz: float
) -> Encoded:
    """The inverse of `columns_of`; what the columns do not tell is given."""
    inputs = {name.removeprefix(INPUTS): column for name, column in columns.items() if name not in OTHERS}
    valid = (~columns["action_is_pad"])[:, :, None].expand(columns["actions"].shape)
    return Encoded(
        inputs=tree_of(inputs),
        actions=columns["actions"],
        valid=valid,
        frame_is_pad=columns["frame_is_pad"],
        hz=torch.full((len(ids),), hz),
        embodiments=embodiments,
        ids=ids,
    )


@dataclass(frozen=True)
class Manifest:
    """What a finished shard holds. `shapes` are those of one sample, by field."""

    __pydantic_config__: ClassVar[ConfigDict] = ConfigDict(extra="forbid")

    first: int
    ids: tuple[str, ...]
    embodiments: tuple[str, ...]
    shapes: dict[str, list[int]]
    bytes: int
    sha256: str


def shards_of(folder: Path, samples: int, shard_size: int) -> Iterator[Shard]:
    """Those of a cache of that size, in order."""
    for first in range(0, samples, shard_size):
        yield Shard(folder, first, min(shard_size, samples - first))


@dataclass(frozen=True)
class Shard:
    """Samples `first` to `first + count - 1` and their two files."""

    folder: Path
    first: int
    count: int

    @property
    def name(self) -> str:
        return f"shard-{self.first:08d}"

    @property
    def tensors(self) -> Path:
        return self.folder / f"{self.name}.safetensors"

    @property
    def manifest(self) -> Path:
        return self.folder / f"{self.name}.json"

    @property
    def remedy(self) -> str:
        """What to do about a damaged one."""
        return f"delete the shard's files ({self.name}.*) and encode again; the other shards are kept"

    def finished(self, names: Collection[str]) -> bool:
        """The manifest is written last. names: of the folder's files."""
        return f"{self.name}.json" in names

    def clear(self, names: Collection[str]) -> None:
        """Remove what a dead owner left unfinished. names: of the folder's files."""
        for name in names:
            if name.startswith((f"{self.tensors.name}.", f"{self.manifest.name}.")) and name.endswith(".tmp"):
                (self.folder / name).unlink(missing_ok=True)

    def read_manifest(self) -> Manifest:
        """BadInput where the shard is missing, truncated or of other samples."""
        manifest = read_record(self.manifest, Manifest, self.remedy)
        got = manifest.first, len(manifest.ids), len(manifest.embodiments)
        if got != (self.first, self.count, self.count):
            raise BadInput(
                f"{self.manifest}: expected {self.count} samples from {self.first} on, got {got[1]} from {got[0]}; "
                f"{self.remedy}"
            )
        if not self.tensors.is_file():
            raise BadInput(f"{self.tensors}: missing; {self.remedy}")
        if (size := self.tensors.stat().st_size) != manifest.bytes:
            refuse_pointer(self.tensors)
            raise BadInput(f"{self.tensors}: expected {manifest.bytes} bytes, got {size}; {self.remedy}")
        return manifest

    def verify(self, manifest: Manifest) -> None:
        """BadInput where the bytes are not those that were written."""
        if sha256(self.tensors) != manifest.sha256:
            raise BadInput(
                f"{self.tensors}: its bytes have changed since it was written (sha256 differs); {self.remedy}"
            )

    def write(self, content: Content) -> None:
        """Both files, the manifest last."""
        digest = write_tensors(self.tensors, content.tensors())
        manifest = Manifest(
            first=self.first,
            ids=tuple(content.ids),
            embodiments=tuple(content.embodiments),
            shapes={name: list(table.rows[0].shape) for name, table in content.tables.items()},
            bytes=self.tensors.stat().st_size,
            sha256=digest,
        )
        write_record(self.manifest, manifest)


class Content:
    """What will be one shard, gathered batch by batch; a repeated row takes memory once."""

    def __init__(self) -> None:
        self.tables: dict[str, Table] = {}
        self.ids: list[str] = []
        self.embodiments: list[str] = []

    def add(self, samples: Encoded) -> None:
        """The next samples."""
        for name, column in columns_of(samples).items():
            self.tables.setdefault(name, Table()).add(column)
        self.ids += samples.ids
        self.embodiments += samples.embodiments

    def tensors(self) -> dict[str, Tensor]:
        """By field name: `rows.<name>` [distinct, ...] and `index.<name>` int32 [n]."""
        rows = {f"rows.{name}": torch.stack(table.rows) for name, table in self.tables.items()}
        index = {
            f"index.{name}": torch.tensor(table.index, dtype=torch.int32)
            for name, table in self.tables.items()
        }
        return rows | index


def digest(row: Tensor) -> bytes:
    """Of its bytes; on the CPU."""
    data = row.contiguous().reshape(-1).view(torch.uint8).numpy().data
    return hashlib.blake2b(data, digest_size=20).digest()


class Table:
    """One field of many samples: `rows`, the distinct ones as they appear, and `index`, for each sample its row.

    Rows are the same when their bytes are.
    """

    def __init__(self) -> None:
        self.rows: list[Tensor] = []
        self.index: list[int] = []
        self._number: dict[bytes, int] = {}

    def add(self, column: Tensor) -> None:
        """The field of the next samples, [n, ...] on the CPU."""
        for row in column:
            number = self._number.setdefault(digest(row), len(self.rows))
            if number == len(self.rows):
                self.rows.append(row.clone(memory_format=torch.contiguous_format))
            self.index.append(number)
