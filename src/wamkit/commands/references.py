"""Words of a command line that refer to the hub -> paths of this machine; values of a recipe are pinned to a commit.

A run keeps its values, so those name a commit of the hub and no folder of this machine; all other paths are used now.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from wamkit_client.types import BadInput

from wamkit.commands.overrides import PREFIXES
from wamkit.io.hub import PREFIX, local, pinned

NAMED = re.compile(rf"(?P<before>(?:[^\s=]+=)?)(?P<reference>{PREFIX}\S+)")
WRITTEN = ("--out", "--cache")


def found(args: Sequence[str]) -> list[str]:
    """The words with every hf://OWNER/NAME in them found. BadInput as of `local`, and where it would be written to."""
    if args[:1] == ["hub"] or {"-h", "--help"} & {*args}:
        return list(args)
    return [_found(word, flag) for flag, word in zip(["", *args], args, strict=False)]


def _found(word: str, flag: str) -> str:
    named = NAMED.fullmatch(word)
    if not named:
        return word
    flag = named["before"].removesuffix("=") if word.startswith("--") else flag
    if flag in WRITTEN:
        raise BadInput(
            f"{flag} {named['reference']}: is of the hub, where nothing is written; name a folder here"
        )
    place = pinned(named["reference"]) if flag.startswith(PREFIXES) else str(local(named["reference"]))
    return named["before"] + place
