"""`wamkit init`: what a recipe for a dataset should say, from its meta files, its numbers and a few of its frames.

Names of columns are judged by data/conventions.py, what actions mean by data/evidence.py; sizes and training are those
of a row of recipes/scales.py. Written down by stages/recipe_text.py.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import ceil
from pathlib import Path

import numpy as np
from wamkit_client.types import BadInput

from wamkit.data.conventions import Proposal as Conventions
from wamkit.data.conventions import proposal as by_name
from wamkit.data.evidence import Recording, Verdict, judge
from wamkit.data.joined import AnyDataset, open_datasets
from wamkit.data.lerobot.columns import NO_COLUMNS
from wamkit.data.lerobot.dataset import Dataset
from wamkit.data.rules import Mode
from wamkit.data.statistics import STILL, Stats
from wamkit.recipes import RECIPES
from wamkit.recipes.scales import CANVASES, Scale
from wamkit.wan.text import words_of

SPACING = 0.2
"""Seconds between video frames, where the rate has such steps."""
STRETCHED = 0.02
"""Changes of a view's shape that are smaller are not worth a word."""
RARE = 5.0
"""A range this many times that of 98 % of the steps is one of outliers."""
HELD_OUT = ((20, 0.05), (10, 0.1), (5, 0.2), (0, 0.0))
"""Share of the episodes that is held out, by how many there are at least."""
UNNAMED = "action_{}"
"""A dimension that the dataset has no name for."""
DIGITS = re.compile(r"[^A-Za-z0-9]+")


@dataclass(frozen=True)
class Views:
    """names, and their images' height and width as recorded. canvas, height, width: as the policy sees them.

    omitted: cameras that are not used.
    """

    names: tuple[str, ...]
    recorded: tuple[tuple[int, int], ...]
    canvas: str
    height: int
    width: int
    omitted: tuple[str, ...]


@dataclass(frozen=True)
class Timing:
    """In control steps. stride: between video frames. horizon: of a chunk, of which `executed` are executed."""

    stride: int
    horizon: int
    executed: int


@dataclass(frozen=True)
class Proposal:
    """Everything that a recipe file says.

    name: of the recipe. about: the dataset in words. names, verdicts: of the action dimensions.
    normalization: of action and proprio; remarks: why, where it is not as usual. steps: of training.
    words: of the longest instruction, and one more, in sixteens. parts, stage1_parts: of a batch, for the memory
        that there is; memory: what was found of it.
    """

    name: str
    scale: Scale
    datasets: tuple[Path, ...]
    about: str
    hz: float
    columns: Mapping[str, str]
    reasons: Mapping[str, str]
    views: Views
    timing: Timing
    names: tuple[str, ...]
    verdicts: tuple[Verdict, ...]
    proprio_dim: int
    normalization: tuple[Mode, Mode]
    remarks: tuple[str, ...]
    held_out: float
    steps: int
    stage1_steps: int
    words: int
    parts: int = 1
    stage1_parts: int = 1
    memory: tuple[str, ...] = ()


def propose(
    datasets: Sequence[Path],
    scale: Scale,
    name: str = "",
    columns: Mapping[str, str] = NO_COLUMNS,
    views: Sequence[str] = (),
) -> Proposal:
    """What a recipe for these datasets, read as one, should say.

    name: of the recipe; "": that of the first folder. columns, views: those that are known (DataSpec); others are
    found by their names. Raises BadInput where a dataset cannot be read or lacks actions or cameras, where datasets
    differ, and for a name that is taken.
    """
    name = _name(name, datasets[0])
    meant = _columns(Dataset.open(datasets[0], columns), columns, views)
    dataset = open_datasets(datasets, meant.columns)
    recording = Recording.of(dataset)
    seen = _views(dataset, meant.views, scale)
    timing = _timing(dataset.fps, scale)
    modes, remarks = _normalization(recording)
    episodes, samples = len(dataset.episodes), sum(episode.actions for episode in dataset.episodes)
    longest = max((len(words_of(text)) for text in dataset.tasks.values()), default=0)
    return Proposal(
        name=name,
        scale=scale,
        datasets=tuple(datasets),
        about=f"robot {dataset.robot_type!r}: {episodes} episodes, {dataset.total_steps} steps at {dataset.fps:g} Hz",
        hz=dataset.fps,
        columns=meant.columns,
        reasons=meant.reasons,
        views=seen,
        timing=timing,
        names=tuple(own or UNNAMED.format(dim) for dim, own in enumerate(recording.names)),
        verdicts=judge(recording),
        proprio_dim=recording.states[0].shape[1],
        normalization=modes,
        remarks=remarks,
        held_out=next(share for least, share in HELD_OUT if episodes >= least),
        steps=_steps(scale.steps, samples, scale),
        stage1_steps=_steps(scale.stage1_steps, samples, scale),
        words=16 * ceil((longest + 1) / 16),
    )


def _name(name: str, path: Path) -> str:
    """A name for the recipe, which is that of no recipe that there is."""
    proposed = name or DIGITS.sub("_", path.resolve().name).strip("_") or "robot"
    if proposed in RECIPES:
        raise BadInput(
            f"--name: {proposed} is a recipe of wamkit; give another name, such as --name my_{proposed}"
        )
    if not re.fullmatch(r"\w[\w.-]*", proposed):
        raise BadInput(f"--name {name}: expected letters, digits, '_', '-' and '.'")
    return proposed


def _columns(dataset: Dataset, given: Mapping[str, str], views: Sequence[str]) -> Conventions:
    """Which columns and cameras are what: as given, and else by their names."""
    found = by_name(dataset.info)
    if "action" in found.missing and "action" not in given:
        raise BadInput(
            f"{dataset.root}: no column is named as actions are; name it with --data.columns action=COLUMN. It has "
            f"{', '.join(dataset.features)}"
        )
    if not (views or found.views):
        raise BadInput(f"{dataset.root}: no camera; a policy cannot be trained without one")
    columns = {**found.columns, **given}
    reasons = {field: reason for field, reason in found.reasons.items() if field not in given}
    return Conventions(columns, tuple(views) or found.views, reasons, found.missing)


def _views(dataset: AnyDataset, names: Sequence[str], scale: Scale) -> Views:
    """As many cameras as a canvas takes, and the size in which they are seen."""
    used, omitted = tuple(names[: max(CANVASES)]), tuple(names[max(CANVASES) :])
    recorded = tuple(_size(dataset, view) for view in used)
    canvas = "separate" if scale.pair else CANVASES[len(used)]
    height, (rows, columns) = scale.heights[canvas], recorded[0]
    shape = 1.0 if scale.square else columns / rows
    width = scale.multiple * max(1, round(height * shape / scale.multiple))
    return Views(used, recorded, canvas, height, width, omitted)


def _size(dataset: AnyDataset, view: str) -> tuple[int, int]:
    """Of a camera's images in the first, the middle and the last episode, decoded. BadInput where they differ."""
    episodes = dataset.episodes
    sizes = {
        dataset.frames(view, episodes[place].index, [0]).shape[1:3]
        for place in {0, len(episodes) // 2, len(episodes) - 1}
    }
    if len(sizes) > 1:
        found = " and ".join(sorted(f"{height}x{width}" for height, width in sizes))
        raise BadInput(
            f"{dataset.where}: images of camera {view!r} are {found}; expected one size, run `wamkit data check`"
        )
    return sizes.pop()


def _timing(hz: float, scale: Scale) -> Timing:
    """Whole steps for any rate; a chunk that is not too short to be worth a query, nor too long to be predicted."""
    stride = min(max(1, round(SPACING * hz)), scale.stride)
    least, most = scale.actions
    horizon = min(max(round(scale.seconds * hz), least), most)
    return Timing(stride, horizon, max(1, int(scale.executed * horizon)))


def _normalization(recording: Recording) -> tuple[tuple[Mode, Mode], tuple[str, ...]]:
    """min_max, but z_score where a few steps lie far outside of what all others do; and what to know of it."""
    modes: list[Mode] = []
    remarks = []
    for field, rows, names in (
        ("action", recording.flat, recording.names),
        ("proprio", np.concatenate(recording.states), recording.state_names),
    ):
        stats = Stats.of(rows) if rows.shape[1] else Stats.of(np.zeros((1, 0)))
        span, usual = stats.max - stats.min, stats.q99 - stats.q01
        still = [name or str(dim) for dim, name in enumerate(names) if span[dim] < STILL]
        ratios = np.where(usual >= STILL, span / np.maximum(usual, STILL), 1.0)
        outlying = len(ratios) > 0 and ratios.max() > RARE
        modes.append("z_score" if outlying and not still else "min_max")
        if outlying:
            worst = int(ratios.argmax())
            remarks.append(
                f"{field} {names[worst] or worst}: min .. max is {ratios[worst]:.2g} times what 98 % of the steps need"
            )
        if still:
            remarks.append(f"{field} {', '.join(still)}: never moves, min_max only shifts it")
    return (modes[0], modes[1]), tuple(remarks)


def _steps(steps: int, samples: int, scale: Scale) -> int:
    """As many for each sample as the row says, within its bounds, in hundreds."""
    least, most = scale.shares
    return round(steps * min(max(samples / scale.samples, least), most) / 100) * 100
