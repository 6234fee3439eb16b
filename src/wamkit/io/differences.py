"""Nested settings by dotted name, as the command line spells them: {"policy": {"kind": x}} is policy.kind.

It knows no setting, only trees of JSON and of dataclasses.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

ABSENT = "absent"


def flatten(tree: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """{"policy": {"kind": x}} -> {"policy.kind": x}."""
    flat: dict[str, Any] = {}
    for key, value in tree.items():
        flat |= flatten(value, f"{prefix}{key}.") if type(value) is dict else {prefix + key: value}
    return flat


def differing(before: dict[str, Any], after: dict[str, Any]) -> Iterator[tuple[str, Any, Any]]:
    """Name, old and new value of everything that two trees do not have in common; ABSENT where one has no value."""
    old, new = flatten(before), flatten(after)
    for name in dict.fromkeys([*new, *old]):
        pair = old.get(name, ABSENT), new.get(name, ABSENT)
        if pair[0] != pair[1]:
            yield name, *pair


def replaced(config: Any, changes: Mapping[str, Any]) -> Any:
    """A frozen dataclass of frozen dataclasses with values replaced by dotted name, all of them at once."""
    own: dict[str, Any] = {}
    inner: dict[str, dict[str, Any]] = {}
    for path, value in changes.items():
        name, _, rest = path.partition(".")
        if rest:
            inner.setdefault(name, {})[rest] = value
        else:
            own[name] = value
    own |= {name: replaced(getattr(config, name), below) for name, below in inner.items()}
    return replace(config, **own)
