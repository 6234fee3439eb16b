"""Tensor names of one code base <-> another's, as a table a person can read. Knows no model."""

from __future__ import annotations

import re

PLACEHOLDERS = {
    "i": r"\d+",
    "w": "weight|bias",
    "side": "down|up",
    "p": "[qkvo]",
    "attn": "self_attn|cross_attn",
    "rest": ".+",
}


class Renaming:
    """A table of name pairs that is read in both directions; the first pair that fits a name decides.

    A name may hold the placeholders of PLACEHOLDERS in braces: `blocks.{i}.norm2.{w}` <-> `blocks.{i}.norm3.{w}`.
    """

    def __init__(self, *pairs: tuple[str, str]) -> None:
        self._forward = [(_pattern(left), right) for left, right in pairs]
        self._backward = [(_pattern(right), left) for left, right in pairs]

    def forward(self, name: str) -> str:
        """Left name -> right name. Raises KeyError where no pair fits."""
        return _apply(self._forward, name)

    def backward(self, name: str) -> str:
        """Right name -> left name. Raises KeyError where no pair fits."""
        return _apply(self._backward, name)


def under(prefixes: tuple[str, str], *pairs: tuple[str, str]) -> list[tuple[str, str]]:
    """Name pairs of a part, each with the part's prefix in front."""
    return [(prefixes[0] + left, prefixes[1] + right) for left, right in pairs]


def _pattern(name: str) -> re.Pattern[str]:
    text = re.escape(name).replace(r"\{", "{").replace(r"\}", "}")
    return re.compile(text.format(**{key: f"(?P<{key}>{pattern})" for key, pattern in PLACEHOLDERS.items()}))


def _apply(pairs: list[tuple[re.Pattern[str], str]], name: str) -> str:
    for pattern, other in pairs:
        if match := pattern.fullmatch(name):
            return other.format(**match.groupdict())
    raise KeyError(name)
