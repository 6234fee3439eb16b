"""Columns and cameras by name on a command line: `--data.columns action=actions,proprio=state`,
`--data.views front=observation.images.cam_high wrist`."""

from __future__ import annotations

import collections.abc
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, get_origin

from tyro.constructors import ConstructorRegistry, PrimitiveConstructorSpec, PrimitiveTypeInfo
from wamkit_client.types import BadInput

from wamkit.io.differences import replaced

if TYPE_CHECKING:
    from wamkit.config import Run
    from wamkit.types import DataSpec

VIEWS, COLUMNS = "data.views", "data.columns"
EACH = ("data.held_out", "data.only.")
"""What every source of a run takes from the command line."""
PAIRS = ConstructorRegistry()
"""How the parser reads and shows a mapping; to be entered around it."""


@PAIRS.primitive_rule
def _pairs(info: PrimitiveTypeInfo) -> PrimitiveConstructorSpec[Any] | None:
    if get_origin(info.type) is not collections.abc.Mapping:
        return None
    return PrimitiveConstructorSpec(
        nargs="*",
        metavar="NAME=COLUMN",
        instance_from_str=pairs,
        is_instance=lambda value: isinstance(value, Mapping),
        str_from_instance=pair_words,
    )


def pairs(words: Sequence[str]) -> dict[str, str]:
    """ "a=b,c=d" or "a=b" "c=d". ValueError for a word that is no pair, and for a name that is given twice."""
    found: dict[str, str] = {}
    for word in ",".join(words).split(","):
        name, equals, column = word.partition("=")
        if not (name and equals and column):
            raise ValueError(f"expected NAME=COLUMN, as action=actions, got {word!r}")
        if name in found:
            raise ValueError(f"{name} is given twice: {found[name]} and {column}")
        found[name] = column
    return found


def pair_words(columns: Mapping[str, str]) -> list[str]:
    """The inverse of `pairs`."""
    return [f"{name}={column}" for name, column in columns.items()]


def cameras(words: Sequence[str]) -> list[tuple[str, str]]:
    """Views, in order, with the camera of each: "front=observation.images.cam_1" "wrist"; "" for one named as its
    camera. BadInput for a view whose camera is not named."""
    found = []
    for word in (part for group in words for part in group.split(",")):
        view, equals, camera = word.partition("=")
        if equals and not camera:
            raise BadInput(
                f"--data.views {word}: no camera; give {word}CAMERA, or {view} where it is named so"
            )
        found.append((view, camera))
    return found


def with_columns(data: DataSpec, overrides: Mapping[str, Any]) -> dict[str, Any]:
    """Overrides in which views that are given with their cameras are views and columns.

    Columns that a recipe has and the command line does not name are kept, but for those of views that are gone.
    """
    changes = dict(overrides)
    columns = dict(data.columns)
    if VIEWS in overrides:
        given = cameras(overrides[VIEWS])
        changes[VIEWS] = tuple(view for view, _ in given)
        gone = {*data.views}.difference(changes[VIEWS])
        columns = {name: column for name, column in columns.items() if name not in gone}
        columns |= {view: camera for view, camera in given if camera}
    columns |= overrides.get(COLUMNS, {})
    return changes | ({COLUMNS: columns} if columns != data.columns else {})


def in_sources(run: Run, overrides: Mapping[str, Any]) -> dict[str, Any]:
    """The sources of a run with those overrides that are for each of them; nothing for a run without.

    BadInput for columns and cameras, which each source has of its own.
    """
    if not run.sources:
        return {}
    if COLUMNS in overrides:
        names = ", ".join(source.name for source in run.sources)
        raise BadInput(
            f"data.columns: the sources of run {run.recipe} ({names}) have columns and cameras of their own; change "
            "them in the recipe"
        )
    each = {path.removeprefix("data."): value for path, value in overrides.items() if path.startswith(EACH)}
    sources = (replace(source, data=replaced(source.data, each)) for source in run.sources)
    return {"sources": tuple(sources)} if each else {}
