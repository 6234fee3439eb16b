"""Installed plug-ins: packages with entry points in our groups. Listing them imports none.

`wamkit.policies`: kind -> its config class (policies/base.py). `wamkit.recipes`: name -> a function without arguments
that returns a frozen Run. No module of wamkit names a plug-in.
"""

from __future__ import annotations

from collections.abc import Container
from importlib.metadata import EntryPoint, entry_points
from typing import Any

from wamkit_client.types import BadInput

POLICIES, RECIPES = "wamkit.policies", "wamkit.recipes"


def plug_ins(group: str, ours: Container[str]) -> dict[str, EntryPoint]:
    """Entry points of a group by name. Raises BadInput where two packages take one name, or one of `ours`."""
    found: dict[str, EntryPoint] = {}
    for entry in entry_points(group=group):
        if entry.name in ours:
            raise BadInput(
                f"{origin(entry)}: {group} has {entry.name!r} already, which is part of wamkit; rename its entry "
                "point, or uninstall the package"
            )
        if found.setdefault(entry.name, entry).value != entry.value:
            raise BadInput(
                f"{origin(entry)}: {group} has {entry.name!r} already, of {origin(found[entry.name])}; "
                "uninstall one of them"
            )
    return found


def load(entry: EntryPoint) -> Any:
    """What an entry point names. BadInput naming the package where it cannot be imported."""
    try:
        return entry.load()
    except Exception as error:  # a plug-in may raise anything while it is imported
        raise BadInput(
            f"{origin(entry)}: {entry.group} {entry.name} = {entry.value} cannot be loaded "
            f"({type(error).__name__}: {error}); repair or uninstall the package"
        ) from error


def origin(entry: EntryPoint) -> str:
    """The package, for messages."""
    return f"plug-in {entry.dist.name} {entry.dist.version}" if entry.dist else f"plug-in {entry.value}"
