"""What a policy is shown of a dataset, as values: images, numbers, words and action chunks.

Measured by stages/inspection.py, judged by stages/findings.py, drawn by report/inspection.py. Nothing is read here.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float
from torch import Tensor

from wamkit.analysis.open_loop import Chunk, OpenLoop, correlation
from wamkit.data.actions import ActionSpace
from wamkit.data.statistics import STILL, Stats
from wamkit.types import DataSpec
from wamkit.wan.prompts import Prompt

PIXEL_STEP = 2 / 255
"""One step of an 8-bit pixel on a canvas in [-1, 1]."""


@dataclass(frozen=True)
class Look:
    """The images of one sample. id: "episode:step".

    canvas: as `tile` made it, in [-1, 1]. decoded: what the codec gives back of it, in [-1, 1]; no frame (t = 0)
    where the codec's weights are not there.
    """

    id: str
    instruction: str
    canvas: Float[Tensor, "3 t H W"]
    decoded: Float[Tensor, "3 _ H W"]
    is_pad: Bool[Tensor, " t"]

    @property
    def errors(self) -> Float[Tensor, " t"]:
        """Mean squared error of each decoded frame."""
        return (self.decoded - self.canvas).square().mean(dim=(0, 2, 3))


@dataclass(frozen=True)
class View:
    """A camera. source: height and width as recorded. box: top, left, height and width on the canvas.

    frames: of all looks, cut out of the canvas.
    """

    name: str
    source: tuple[int, int]
    box: tuple[int, int, int, int]
    frames: Float[Tensor, "n 3 h w"]

    @property
    def colour(self) -> list[int]:
        """Mean RGB, 0..255."""
        mean: list[int] = ((self.frames.mean(dim=(0, 2, 3)) + 1) / PIXEL_STEP).round().int().tolist()
        return mean


@dataclass(frozen=True)
class Field:
    """Every step's action or proprio, and what the normaliser makes of it.

    names: the recipe's for actions, else the dataset's. recorded_as: the dataset's, "" where it has none.
    kinds: of actions; "" for proprio. values [n, d] physical; stats: of them. unit [n, d]: as the policy is given
    them, clamped; no row where it is not, or where the normaliser does not know the robot. low, high [d]: what becomes
    -1 and 1.
    """

    field: str
    mode: str
    names: tuple[str, ...]
    recorded_as: tuple[str, ...]
    kinds: tuple[str, ...]
    values: np.ndarray
    stats: Stats
    unit: np.ndarray
    low: np.ndarray
    high: np.ndarray

    def moves(self, i: int) -> bool:
        """Whether dimension i is more than a constant."""
        return bool(self.stats.max[i] - self.stats.min[i] >= STILL)

    def beyond(self, i: int, limit: float) -> float:
        """Share of the steps whose dimension i is at least `limit` from 0 in unit range."""
        return float((np.abs(self.unit[:, i]) >= limit).mean())


@dataclass(frozen=True)
class Seen:
    """Everything.

    trained: the normaliser and the policy are a run's; else the normaliser was fitted on this dataset.
    robot: the dataset's; known: the normaliser's. canvas: height and width.
    contradictions: what the numbers say against the kinds of actions (data/evidence.py).
    padded_actions: share of all chunks' actions that lie past an episode's end.
    broken: what is wrong with the numbers of the run's weights; "" where nothing is.
    no_codec, no_tokens, no_policy: why images are not decoded, tokens not known, nothing predicted; "" where not.
    """

    spec: DataSpec
    space: ActionSpace
    trained: bool
    robot: str
    known: tuple[str, ...]
    canvas: tuple[int, int]
    views: tuple[View, ...]
    looks: tuple[Look, ...]
    fields: tuple[Field, ...]
    contradictions: tuple[str, ...]
    prompts: tuple[Prompt, ...]
    chunks: tuple[Chunk, ...]
    open_loop: OpenLoop
    padded_actions: float
    no_codec: str
    no_tokens: str
    no_policy: str
    broken: str

    def field(self, name: str) -> Field:
        """ "action" or "proprio"."""
        return next(field for field in self.fields if field.field == name)


def gripper_direction(seen: Seen) -> list[str]:
    """What a high gripper command goes with in the state, where the dataset names a gripper there."""
    action, state = seen.field("action"), seen.field("proprio")
    grippers = [(j, name) for j, name in enumerate(state.names) if "grip" in name.lower()]
    found = []
    for i, kind in enumerate(action.kinds):
        if kind != "gripper" or not grippers or not action.moves(i):
            continue
        pairs = [(correlation(action.values[:, i], state.values[:, j]), name) for j, name in grippers]
        r, name = max(pairs, key=lambda pair: abs(np.nan_to_num(pair[0])))
        if abs(r) > 0.3:
            size = "large" if r > 0 else "small"
            what = f"A high {action.names[i]} command goes with a {size} {name} in the state (correlation {r:.2f})"
            found.append(f"{what}: if that is an opening, high {'opens' if r > 0 else 'closes'}.")
    return found
