"""Instructions -> context rows without any weights: the text encoding of the small presets.

Same interface as `umt5.py`: `fingerprint` and `encode(instructions) -> [b, length, width]` float32; rows past
the instruction are zero and stay visible to the network (Light-WAM spec 1.7).
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor
from wamkit_client.types import BadInput

POSITION_SHARE = 0.2  # deviation of the position vector, a word's is 1: order is visible, words dominate


class HashedText:
    """Every word has a random vector of its own, determined by SHAKE-256 of the word.

    Words are lower-cased runs of letters and digits, or single punctuation marks. Row j holds word j plus
    a little of position j, scaled to unit variance; an end mark follows the last word. Integer hashing and plain
    arithmetic give the same bits on every platform.
    """

    END = "</s>"

    def __init__(self, width: int, length: int) -> None:
        self.width = width
        self.length = length

    @property
    def fingerprint(self) -> str:
        """Names this encoding in a latent cache."""
        return f"hashed-text:shake256:{self.width}x{self.length}:{POSITION_SHARE}"

    def encode(self, instructions: Sequence[str]) -> Float[Tensor, "b l d"]:
        """Context rows on the CPU. Raises BadInput where an instruction is empty or has too many words."""
        return torch.stack([self._rows(instruction) for instruction in instructions])

    def store(self, instructions: Sequence[str], device: torch.device) -> None:
        """No-op: there is no network."""

    def _rows(self, instruction: str) -> Float[Tensor, "l d"]:
        words = words_of(instruction)
        if not 0 < len(words) < self.length:
            raise BadInput(
                f"instruction {instruction!r} has {len(words)} words: this text encoding takes 1 to "
                f"{self.length - 1}; reword it, or train with a larger text length"
            )
        rows = np.zeros((self.length, self.width), np.float32)
        for place, word in enumerate([*words, self.END]):
            mixed = _hashed(f"word {word}", self.width) + POSITION_SHARE * _hashed(
                f"place {place}", self.width
            )
            rows[place] = mixed / np.sqrt(1 + POSITION_SHARE**2)
        return torch.from_numpy(rows)


def words_of(instruction: str) -> list[str]:
    """Lower-cased runs of letters and digits, and single punctuation marks."""
    return re.findall(r"\w+|[^\w\s]", instruction.lower())


def _hashed(name: str, width: int) -> np.ndarray:
    """Uniform numbers of mean 0 and variance 1, float64 [width]."""
    numbers = np.frombuffer(hashlib.shake_256(name.encode()).digest(4 * width), "<u4")
    return (numbers / 2**32 - 0.5) * np.sqrt(12)
