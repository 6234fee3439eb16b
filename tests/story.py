"""The story of the documentation in short: its commands, on few episodes and with seconds of training."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from tests.pages import blocks

SHORT = {
    "record.py": ("--episodes", "8"),
    "train": ("--train.steps", "4", "--train.warmup-steps", "1", "--train.batch-size", "4"),
    "eval": ("--episodes", "1"),
}
"""What is added to a command, by its script or name, so that it takes seconds."""


def story(page: Path) -> list[list[str]]:
    """The commands of the block in which a page tells it, word by word."""
    told = next(
        block for block in blocks("bash") if block.page == page and "record.py arm/dataset" in block.text
    )
    return list(told.commands())


def in_short(words: Sequence[str]) -> list[str]:
    """The same command line, for seconds."""
    return [*words, *SHORT.get(Path(words[1]).name, ())]
