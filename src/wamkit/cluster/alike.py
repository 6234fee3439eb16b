"""Nodes of a cluster must be alike: the same wamkit and libraries, and the folders that the work reads.

It runs on every node before anything else does there, and does not know Ray.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

import wamkit_client
from wamkit_client.types import BadInput

from wamkit import io
from wamkit.io.provenance import versions

SOURCES = "source files of wamkit"


@dataclass(frozen=True)
class Needs:
    """What a node must have. software: by name, as this process has it. paths: files and folders. folder: where this
    process is, which a node need not have."""

    software: Mapping[str, str]
    paths: tuple[Path, ...]
    folder: Path = field(default_factory=Path.cwd)

    @classmethod
    def here(cls, paths: Sequence[Path]) -> Needs:
        """As this process has it."""
        return cls(software(), tuple(path.absolute() for path in paths))

    def expect(self, node: str) -> None:
        """BadInput where this process, on `node`, has other software or lacks a path."""
        there = software()
        for name in dict.fromkeys((*self.software, *there)):
            ours, theirs = (found.get(name, "none") for found in (self.software, there))
            if ours != theirs:
                raise BadInput(
                    f"node {node}: its {name} is {theirs}, that of this command {ours}; install the same on every "
                    "node, and start Ray there again"
                )
        for path in self.paths:
            if not path.exists():
                raise BadInput(
                    f"node {node}: {path} is not there; give a folder that all nodes share, or copy it to the same "
                    "place there"
                )

    @contextmanager
    def met(self, node: str) -> Iterator[None]:
        """For work on `node`, which is checked first; in the folder, where it is there: relative paths in values of a
        run then mean what they mean here. BadInput as of `expect`; what the work raises names the node."""
        self.expect(node)
        if self.folder.is_dir():
            os.chdir(self.folder)
        try:
            yield
        except BadInput as error:
            raise BadInput(f"node {node}: {error}") from None


@cache
def software() -> dict[str, str]:
    """Versions, and a hash of wamkit's own sources, which a version may not tell."""
    roots = (Path(io.__file__).parents[1], Path(wamkit_client.__file__).parent)
    sources = (path for root in roots for path in sorted(root.rglob("*.py")))
    found = hashlib.sha256()
    for path in sources:
        found.update(path.read_bytes())
    return {**versions(), SOURCES: found.hexdigest()[:12]}
