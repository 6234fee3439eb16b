"""Which columns of a dataset are the action and the proprio, and which camera is which view, where names differ.

    action=actions                       another name
    proprio=state[0:7]+gripper           parts of columns, one after the other
    front=observation.images.cam_high    a camera

The files are not changed: a dataset that was opened with these names has "action", "observation.state" and the views
beside everything else. It does not know about runs or episodes.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from types import MappingProxyType

import numpy as np

from wamkit.data.lerobot.disk import Broken
from wamkit.data.lerobot.files import INFO, NUMBERS, Feature, Info, dimension_names

SOURCES = {"action": "action", "proprio": "observation.state"}
"""Usual column of each field that a policy reads."""

NO_COLUMNS: Mapping[str, str] = MappingProxyType({})
PART = re.compile(r"(?P<column>.+)\[(?P<first>\d*)(?P<colon>:?)(?P<end>\d*)\]")


@dataclass(frozen=True)
class Part:
    """Some dimensions of a column, in a row."""

    column: str
    dims: slice


@dataclass(frozen=True)
class Names:
    """What the parts of a dataset are called.

    joined: columns that are made of others, by name. features: stored ones and those. cameras: feature keys by name.
    """

    joined: Mapping[str, tuple[Part, ...]]
    features: Mapping[str, Feature]
    cameras: Mapping[str, str]

    def column(self, name: str, stored: Callable[[str], np.ndarray]) -> np.ndarray:
        """Rows of a column: as `stored` returns them by a stored name or, of several, as [n d]."""
        if name not in self.joined:
            return stored(name)
        parts = [(stored(part.column), part.dims) for part in self.joined[name]]
        return np.concatenate([rows.reshape(len(rows), -1)[:, dims] for rows, dims in parts], axis=1)


def named(info: Info, columns: Mapping[str, str]) -> Names:
    """The names of a dataset where `columns` (DataSpec.columns) say what is what.

    Raises Broken for a column or camera that is not there, dimensions that it does not have, and a column of images or
    words where numbers are expected.
    """
    fields = {field: text for field, text in columns.items() if field in SOURCES}
    joined = {SOURCES[field]: _parts(info, field, text) for field, text in fields.items()}
    made = {name: _feature(info, parts) for name, parts in joined.items()}
    views = {view: _camera(info, view, text) for view, text in columns.items() if view not in SOURCES}
    others = {name: key for name, key in info.cameras.items() if key not in views.values()}
    return Names(joined, {**info.features, **made}, others | views)


def numeric_columns(features: Mapping[str, Feature]) -> tuple[str, ...]:
    """Columns of numbers that are not the format's own."""
    own = (*NUMBERS, "timestamp")
    return tuple(name for name, feature in features.items() if _is_numeric(feature) and name not in own)


def near(name: str, known: Iterable[str]) -> str:
    """For messages: which of the known names was meant, if one is near, and which there are."""
    choices = list(known)
    meant = difflib.get_close_matches(name, choices, n=1)
    return (f"did you mean {meant[0]!r}? " if meant else "") + f"it has {', '.join(choices) or 'none'}"


def _parts(info: Info, field: str, text: str) -> tuple[Part, ...]:
    if text in info.features:  # a name may hold + and brackets
        return (_part(info, field, text),)
    return tuple(_part(info, field, part.strip()) for part in text.split("+"))


def _part(info: Info, field: str, text: str) -> Part:
    found = None if text in info.features else PART.fullmatch(text)
    column = found["column"] if found else text
    flag = f"data.columns {field}={text}"
    if column not in info.features:
        remedy = f"give another column; of numbers {near(column, numeric_columns(info.features))}"
        raise Broken(INFO, f"{flag}: column {column!r} is missing", remedy)
    feature = info.features[column]
    if not _is_numeric(feature):
        raise Broken(
            INFO,
            f"{flag}: column {column!r} is of {feature['dtype']}, expected numbers",
            f"of numbers it has {', '.join(numeric_columns(info.features)) or 'none'}",
        )
    width = _width(feature)
    if not found:
        return Part(column, slice(0, width))
    first = int(found["first"] or 0)
    end = int(found["end"] or width) if found["colon"] else first + 1
    if not (found["colon"] or found["first"]) or not 0 <= first < end <= width:
        raise Broken(
            INFO,
            f"{flag}: column {column!r} has {width} dimension(s)",
            f"give dimensions from 0 to below {width}, as {column}[0:{width}] or {column}[{width - 1}]",
        )
    return Part(column, slice(first, end))


def _feature(info: Info, parts: tuple[Part, ...]) -> Feature:
    """How a joined column would be stored."""
    names: list[str] = []
    for part in parts:
        feature = info.features[part.column]
        names += dimension_names(feature, _width(feature))[part.dims]
    return {
        "dtype": info.features[parts[0].column]["dtype"],
        "shape": [len(names)],
        "names": names if all(names) else None,
    }


def _camera(info: Info, view: str, text: str) -> str:
    """The feature key of a view, which may be named as the camera, too."""
    if text in info.cameras.values():
        return text
    if text in info.cameras:
        return info.cameras[text]
    flag = f"data.views {view}={text}"
    cameras = near(text, info.cameras.values())
    if text in info.features:
        what = f"{flag}: column {text!r} is of {info.features[text]['dtype']}, expected images"
        raise Broken(INFO, what, f"give a camera; {cameras}")
    raise Broken(INFO, f"{flag}: camera {text!r} is missing", f"give another; {cameras}")


def _is_numeric(feature: Feature) -> bool:
    return feature["dtype"] not in ("video", "image", "string")


def _width(feature: Feature) -> int:
    width = 1
    for size in feature["shape"]:
        width *= size
    return width
