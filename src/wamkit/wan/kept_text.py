"""What cross-attention sees of instructions, kept from query to query: a robot is told the same thing many times.

Per instruction, keys and values of its rows in every block are kept; only those of the tokens beside it, such as the
robot's own state, are made at every query. Rows of zeros, the padding of a prompt, are all the same: one key with the
logarithm of their number added to its scores does the work of all (exact in real arithmetic).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from wamkit.wan.fused import FusedContext, Seen, seen

INSTRUCTIONS = 64
"""How many are kept; at full size one of 20 words takes 4 MB (Light-WAM), in bfloat16."""

PADDING_KEYS = 3
"""Keys that padding becomes: what rounding takes from the logarithm of the first is left for the next."""

ROWS = 16
"""Keys are a multiple of this, so that a few shapes serve all instructions, and attention kernels need no padding."""


@dataclass(frozen=True)
class Told:
    """One instruction. kv: its rows as keys and values. bias: what is added to their scores."""

    kv: Float[Tensor, "blocks 2 n s e"]
    bias: Float[Tensor, " s"]


@dataclass(frozen=True)
class Kept:
    """Keys and values of a batch, with room for those of other tokens, which come first. bias: see `Seen`."""

    kv: Float[Tensor, "blocks 2 b n s e"]
    bias: Float[Tensor, "b 1 1 s"]

    def beside(self, kv: Float[Tensor, "blocks 2 b n tokens e"]) -> tuple[Seen, ...]:
        """By block, with these tokens in place of those of the last query."""
        self.kv[..., : kv.shape[4], :].copy_(kv)
        return seen(self.kv, self.bias)


class KeptText:
    """Instructions as `context` sees them; the weights do not change any more.

    tokens: how many others are seen beside the text. capacity: how many instructions are kept, those asked for last.
    """

    def __init__(self, context: FusedContext, tokens: int, capacity: int = INSTRUCTIONS) -> None:
        self.context, self.tokens, self.capacity = context, tokens, capacity
        self._told: dict[str, Told] = {}
        self._last: tuple[tuple[str, ...], Kept] | None = None

    def of(self, text: Float[Tensor, "b l text"], instructions: Sequence[str]) -> Kept:
        """The rows of `text`, which say these instructions; (): unknown ones, of which nothing is kept."""
        names = tuple(instructions)
        if not names:
            return self._together([self._tell(rows) for rows in text])
        if self._last is None or self._last[0] != names:
            found = {name: self._find(name, rows) for name, rows in zip(names, text, strict=True)}
            self._last = names, self._together([found[name] for name in names])
            self._told |= found
            for oldest in list(self._told)[: -self.capacity]:
                del self._told[oldest]
        return self._last[1]

    def _find(self, name: str, rows: Float[Tensor, "l text"]) -> Told:
        """As kept, or new."""
        return self._told.pop(name) if name in self._told else self._tell(rows)

    def _tell(self, rows: Float[Tensor, "l text"]) -> Told:
        words, padding = distinct(rows)
        embedded = self.context.text_embedding(words[None].to(self.context.dtype))
        kv = self.context.keys_values(embedded)[:, :, 0]  # blocks 2 n s e, padding last
        weights = shares(padding, kv.dtype).to(kv.device)
        kv = torch.cat([kv, kv[..., -1:, :].expand(-1, -1, -1, len(weights) - 1, -1)], dim=3)
        return Told(kv, torch.cat([weights.new_zeros(len(words) - 1), weights]))

    def _together(self, told: Sequence[Told]) -> Kept:
        """Of a batch: rows that an instruction does not have are seen by nobody."""
        blocks, two, heads, _, channels = told[0].kv.shape
        rows = self.tokens + max(len(each.bias) for each in told)
        rows = math.ceil(rows / ROWS) * ROWS
        kv = told[0].kv.new_zeros(blocks, two, len(told), heads, rows, channels)
        bias = told[0].bias.new_full((len(told), 1, 1, rows), -math.inf)
        bias[..., : self.tokens] = 0
        for row, each in enumerate(told):
            place = slice(self.tokens, self.tokens + len(each.bias))
            kv[:, :, row, :, place], bias[row, ..., place] = each.kv, each.bias
        return Kept(kv, bias)


def distinct(rows: Float[Tensor, "l text"]) -> tuple[Float[Tensor, "s text"], int]:
    """Rows that are not all zero and, last, one that is; how many of those there were.

    On the meta device nobody knows: there all are kept.
    """
    words = rows if rows.is_meta else rows[rows.any(dim=1)]
    return torch.cat([words, rows.new_zeros(1, rows.shape[1])]), len(rows) - len(words)


def shares(count: int, dtype: torch.dtype) -> Float[Tensor, " keys"]:
    """Biases of PADDING_KEYS equal keys that together weigh as much as `count` keys without one, -inf for no key.

    One rounded logarithm would be off by up to 1.6 % in bfloat16. Each is rounded down, the next makes up for it.
    """
    found, left = [], torch.tensor(float(count), dtype=torch.float64)
    for _ in range(PADDING_KEYS):
        exact = left.log()
        found.append((exact - exact.abs() * torch.finfo(dtype).eps).to(dtype))
        left -= found[-1].double().exp()
    return torch.stack(found)
