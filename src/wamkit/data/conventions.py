"""Names under which people keep actions, states and cameras, and what a dataset's columns are therefore taken for.

Proposals, for error messages and for `wamkit init`: a run reads what its DataSpec says, and nothing else. It knows
names, no numbers (data/evidence.py).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from wamkit.data.lerobot.columns import SOURCES, numeric_columns
from wamkit.data.lerobot.files import Info

KNOWN: Mapping[str, Mapping[str, str]] = {
    "action": {
        "action": "LeRobot and GR00T",
        "actions": "openpi",
        "actions.joint.position+actions.effector.position": "AgiBot World",
    },
    "proprio": {
        "observation.state": "LeRobot and GR00T",
        "state": "openpi",
        "joint_position+gripper_position": "openpi, for DROID",
        "observation.states.joint.position+observation.states.effector.position": "AgiBot World",
        "observation.joint_position+observation.gripper_position": "DROID",
        "observation.qpos": "ALOHA",
        "qpos": "ALOHA",
        **dict.fromkeys(
            (
                "states",
                "proprio",
                "observation.proprio",
                "robot_state",
                "observation.robot_state",
                "joint_states",
            ),
            "other datasets",
        ),
    },
}
"""Where each field is kept, and by whom; what stands first is looked for first."""

PREFIXES: Mapping[str, tuple[str, ...]] = {
    "action": ("action.", "actions."),
    "proprio": ("observation.state.", "observation.states.", "state.", "states."),
}
"""Of columns that are parts of a field, where it is not kept as a whole."""

LOOSE = {"action": re.compile("act|command|cmd"), "proprio": re.compile("stat|qpos|proprio|joint")}
"""Words in the name of a column that may be the field, where nothing else is."""

DEPTH = re.compile("depth|disparity", re.IGNORECASE)
NEAR_THE_HAND = re.compile("wrist|hand|grip|eef|palm", re.IGNORECASE)


@dataclass(frozen=True)
class Proposal:
    """What the columns and cameras of a dataset are taken for.

    columns: of the fields that are not under their usual names (DataSpec.columns). views: cameras, those that see the
    scene first, those at a hand last, no depth. reasons: why, by field and view; with a question mark where it is a
    guess. missing: fields for which nothing was found.
    """

    columns: Mapping[str, str]
    views: tuple[str, ...]
    reasons: Mapping[str, str]
    missing: tuple[str, ...]


def proposal(info: Info) -> Proposal:
    """What the columns of a dataset are taken for, by their names."""
    columns, reasons, missing = {}, {}, []
    for field, usual in SOURCES.items():
        column, reason = _field(info, field)
        if not column:
            missing.append(field)
            continue
        reasons[field] = reason
        if column != usual:
            columns[field] = column
    views = tuple(sorted((name for name in info.cameras if not _is_depth(info, name)), key=_at_hand))
    for view in views:
        reasons[view] = "at a hand, by its name" if _at_hand(view) else "sees the scene"
    return Proposal(columns, views, reasons, tuple(missing))


def columns_flag(columns: Mapping[str, str]) -> str:
    """The columns as a command line takes them."""
    return f"--data.columns {_quoted(','.join(f'{name}={column}' for name, column in columns.items()))}"


def view_flag(info: Info, views: tuple[str, ...]) -> str:
    """The flag that gives each of a policy's views one of the dataset's cameras; "" where these are too few."""
    cameras = list(proposal(info).views)
    found: dict[str, str] = {}
    for view in (view for view in views if view in cameras):
        found[view] = view
        cameras.remove(view)
    for view in sorted((view for view in views if view not in found), key=_at_hand, reverse=True):
        if not cameras:
            return ""
        found[view] = cameras.pop() if _at_hand(view) else cameras.pop(0)
    pairs = [view if found[view] == view else f"{view}={info.cameras[found[view]]}" for view in views]
    return f"--data.views {' '.join(map(_quoted, pairs))}"


def _field(info: Info, field: str) -> tuple[str, str]:
    """Where a field is, and why; "" where nothing is like it."""
    there = numeric_columns(info.features)
    for column, who in KNOWN[field].items():
        if all(part in there for part in column.split("+")):
            return column, f"as in {who}"
    for prefix in PREFIXES[field]:
        if parts := [name for name in there if name.startswith(prefix)]:
            return "+".join(parts), f"every column {prefix}*, in the order of meta/info.json?"
    if len(loose := [name for name in there if LOOSE[field].search(name.lower())]) == 1:
        return loose[0], "the only column with such a name?"
    return "", ""


def _is_depth(info: Info, camera: str) -> bool:
    stored: Mapping[str, object] = info.features[info.cameras[camera]].get("info") or {}
    return DEPTH.search(camera) is not None or stored.get("video.is_depth_map") is True


def _at_hand(camera: str) -> bool:
    return NEAR_THE_HAND.search(camera) is not None


def _quoted(words: str) -> str:
    """As a shell takes it: brackets are patterns there."""
    return f"'{words}'" if re.search(r"[^\w.,=+:/-]", words) else words
