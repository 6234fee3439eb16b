"""The pages of the documentation: their fenced blocks, and running a command line that stands in one."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.processes import command

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]
FENCE = re.compile(r"^```(\w+)([^\n]*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


@dataclass(frozen=True)
class Block:
    """A fenced block; `title` is what stands behind the language."""

    page: Path
    line: int
    language: str
    title: str
    text: str

    def __str__(self) -> str:
        return f"{self.page.relative_to(ROOT)}:{self.line}"

    def commands(self) -> Iterator[list[str]]:
        """The words of each command: one a line, or more lines joined by a backslash."""
        for line in self.text.replace("\\\n", " ").splitlines():
            words = shlex.split(line, comments=True)
            if words:
                yield [words[0].removeprefix(".venv/bin/"), *words[1:]]


def blocks(language: str) -> list[Block]:
    return [
        Block(page, text.count("\n", 0, found.start()) + 1, *found.groups())
        for page in PAGES
        for text in [page.read_text()]
        for found in FENCE.finditer(text)
        if found[1] == language
    ]


def run(words: Sequence[str], folder: Path) -> str:
    """Run a command line of a page in a folder. `> FILE` at the end takes what it prints. Returns everything that it
    printed; AssertionError where it fails."""
    words, out = (words[:-2], folder / words[-1]) if ">" in words else (words, None)
    done = command(words, folder)
    assert done.status == 0, f"{' '.join(words)}\n{done.out}{done.err}"
    if out:
        out.write_text(done.out)
    return done.out + done.err
