"""Whether a dataset has what is asked of it: cameras, rate, columns of their width, instructions."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from wamkit_client.types import BadInput

from wamkit.data.actions import ActionSpace
from wamkit.data.conventions import columns_flag, proposal, view_flag
from wamkit.data.lerobot.columns import SOURCES, numeric_columns
from wamkit.data.lerobot.dataset import Dataset
from wamkit.io.progress import command
from wamkit.types import DataSpec


def expect_fit(dataset: Dataset, spec: DataSpec, space: ActionSpace) -> None:
    """BadInput where it has not, with the flags that would change that."""
    _expect_cameras(dataset, spec)
    if abs(dataset.fps - spec.hz) > 1e-6:
        raise _misfit(
            dataset,
            f"{dataset.fps:g} frames per second, the recipe asks for {spec.hz:g} Hz; change the recipe's hz "
            f"(--data.hz {dataset.fps:g}, and times that are whole steps of it), or record at that rate",
        )
    _expect_columns(dataset, spec)
    if len(space) != spec.action_dim:
        raise BadInput(
            f"the action space names {len(space)} dimensions, the recipe has {spec.action_dim}; "
            "name every dimension once"
        )
    silent = [index for index, task in dataset.tasks.items() if not task.strip()]
    if silent or not dataset.tasks:
        raise BadInput(
            f"{dataset.root}: {f'task {silent[0]} has' if silent else 'there are'} no instructions, and a policy "
            "is told what to do in words; add the texts to meta/tasks"
        )


def _expect_cameras(dataset: Dataset, spec: DataSpec) -> None:
    for view in spec.views:
        if view not in dataset.cameras:
            flag = view_flag(dataset.info, spec.views)
            raise _misfit(
                dataset,
                f"camera {view!r} is missing; the dataset has {list(dataset.cameras)}. "
                f"Name one of these in the recipe's views{flag and f', or give {flag}'}",
            )


def _expect_columns(dataset: Dataset, spec: DataSpec) -> None:
    widths = {"action": spec.action_dim, "proprio": spec.proprio_dim}
    needed = {name: width for name, width in widths.items() if width}
    for name, width in needed.items():
        column = SOURCES[name]
        if column not in dataset.features:
            raise BadInput(
                f"{dataset.root}: column {column!r} is missing; {_remedy(dataset, spec, name, needed)}"
            )
        got = int(np.prod(dataset.features[column]["shape"]))
        if got != width:
            source = spec.columns.get(name, column)
            part = columns_flag({name: f"{source}[0:{width}]"}) if source in dataset.info.features else ""
            raise _misfit(
                dataset,
                f"{column if source == column else f'{name}={source}'} has {got} dimension(s), the recipe expects "
                f"{width}; choose the recipe of this robot, or change the recipe's dimension"
                + (f", or read a part: {part}" if part and got > width else ""),
            )


def _remedy(dataset: Dataset, spec: DataSpec, missing: str, needed: Mapping[str, int]) -> str:
    """What to do about a field that is not under its usual name."""
    columns = dict(proposal(dataset.info).columns) | dict(spec.columns)
    flag = columns_flag({name: columns[name] for name in needed if name in columns})
    give = f"give {flag}" if missing in columns else f"say where it is: --data.columns {missing}=COLUMN"
    without = ", or --data.proprio-dim 0 to do without" if missing == "proprio" else ""
    there = ", ".join(numeric_columns(dataset.features)) or "none"
    return f"{give}{without} (columns of numbers: {there})"


def _misfit(dataset: Dataset, what: str) -> BadInput:
    written = command("wamkit", "init", dataset.root)
    return BadInput(f"{dataset.root}: {what}. `{written} > my_recipe.py` writes a recipe that fits")
