"""The values of a recipe as its help lists them: flag, type, default, and what the config class says of it.

A config class describes its fields in its docstring, "name: text. other, third: text."; so every value is described in
one place, and nothing here knows any of them.
"""

from __future__ import annotations

import re
import shlex
import textwrap
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields, is_dataclass
from types import NoneType
from typing import Any, Literal, get_args, get_origin, get_type_hints

from wamkit.commands.overrides import SECTIONS, SHORTCUTS, SUITE, flag_of, value_words
from wamkit.io.progress import console
from wamkit.recipes import recipe

WIDTH = 120


@dataclass(frozen=True)
class Value:
    """One line of the help. kind: its type, as a command line spells it. default: of the recipe, spelt likewise."""

    flag: str
    kind: str
    default: str
    about: str


@dataclass(frozen=True)
class Values:
    """Those of one config. path: where it is, "policy.size". about: what it is."""

    path: str
    about: str
    values: tuple[Value, ...]


def print_values(name: str, prog: str) -> None:
    """Every value of a recipe, with its flag. name: as the command line refers to it. prog: the command they may be
    given to. Raises BadInput where there is no such recipe."""
    width = min(console.width, WIDTH)
    lines = [f"Values of {name}, each for `{prog} ... FLAG VALUE`:"]
    for section in values(recipe(name)):
        lines += ["", *textwrap.wrap(f"{section.path}: {section.about}", width, subsequent_indent="  ")]
        for value in section.values:
            lines.append(f"  {value.flag} {value.kind} (default: {value.default})")
            lines += textwrap.wrap(value.about, width, initial_indent=" " * 8, subsequent_indent=" " * 8)
    console.print("\n".join(lines), soft_wrap=True, markup=False)


def values(run: Any) -> Iterator[Values]:
    """All that a command line can change of a run, config by config."""
    yield Values("run", "", tuple(_own(run, "", [SUITE])))
    for section in SECTIONS:
        yield from _below(section, getattr(run, section))


def _below(path: str, config: Any) -> Iterator[Values]:
    names = [field.name for field in fields(config) if field.name != "kind"]
    inner = [name for name in names if is_dataclass(getattr(config, name))]
    own = [name for name in names if name not in inner]
    if own:
        yield Values(path, _headline(type(config)), tuple(_own(config, f"{path}.", own)))
    for name in inner:
        yield from _below(f"{path}.{name}", getattr(config, name))


def _own(config: Any, prefix: str, names: Sequence[str]) -> Iterator[Value]:
    types, about = get_type_hints(type(config)), described(type(config))
    short = {long: word for word, long in SHORTCUTS.items()}
    for name in names:
        spelt = flag_of(prefix + name)
        also = f" Short: {short[spelt]}." if spelt in short else ""
        default = shlex.join(value_words(getattr(config, name))) or "empty"
        yield Value(spelt, spelt_type(types[name]), default, about.get(name, "") + also)


def described(config: type) -> dict[str, str]:
    """What the docstrings of a config class and its bases say of its fields, by name."""
    found: dict[str, str] = {}
    for each in reversed(config.__mro__[:-1]):
        text, entries = each.__doc__ or "", _entries(config, each)
        ends = [following.start() for following in entries[1:]] + [len(text)]
        for match, end in zip(entries, ends, strict=True):
            about = " ".join(text[match.end() : end].partition("\n\n")[0].split()).rstrip(".;") + "."
            names = match[1].split(", ")
            together = f"{match[1]}: " if len(names) > 1 else ""
            found |= dict.fromkeys(names, together + about)
    return found


def _entries(config: type, described_by: type) -> list[re.Match[str]]:
    """Where a docstring begins to describe a field of `config`, or several: "name, other: "."""
    names = "|".join(map(re.escape, get_type_hints(config)))
    entry = rf"(?:^|(?<=[.;)] )|(?<=\n)) *((?:{names})(?:, (?:{names}))*):\s"
    return list(re.finditer(entry, described_by.__doc__ or ""))


def _headline(config: type) -> str:
    """What a docstring says before it describes fields; nothing of a dataclass without one, which has its signature."""
    text = config.__doc__ or ""
    first = next((match.start() for match in _entries(config, config)), len(text))
    is_signature = text.startswith(f"{config.__name__}(")
    return "" if is_signature else " ".join(text[:first].partition("\n\n")[0].split())


def spelt_type(kind: Any) -> str:
    """A type as a command line asks for it: INT, {a,b}, "FLOAT ..." for any number of them."""
    origin, inner = get_origin(kind), get_args(kind)
    if origin is Literal:
        return "{" + ",".join(map(str, inner)) + "}"
    if kind is bool:
        return "{True,False}"
    if origin is tuple:
        one = inner[:1] if inner[-1] is Ellipsis else inner
        return " ".join(map(spelt_type, one)) + (" ..." if inner[-1] is Ellipsis else "")
    if isinstance(origin, type) and issubclass(origin, Mapping):
        return "NAME=COLUMN ..."
    if inner:  # a union
        return "|".join(spelt_type(one) for one in inner if one is not NoneType)
    return str(kind.__name__).upper()
