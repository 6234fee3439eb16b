"""What a policy is shown of a dataset, as values: pictures, numbers, words and action chunks.

Measured by wamkit/stages/inspection.py, judged by report/findings.py, shown by report/inspection.py. Nothing is read
here.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float
from torch import Tensor

from wamkit.data.actions import ActionSpace
from wamkit.data.statistics import Stats
from wamkit.types import DataSpec


@dataclass(frozen=True)
class Look:
    """The pictures of one sample. id: "episode:step".

    canvas: as `tile` made it, in [-1, 1]. decoded: what the codec gives back of it, in [-1, 1]; no frame (t = 0)
    where the codec's weights are not there.
    """

    id: str
    instruction: str
    canvas: Float[Tensor, "3 t H W"]
    decoded: Float[Tensor, "3 _ H W"]
    is_pad: Bool[Tensor, " t"]


@dataclass(frozen=True)
class Field:
    """Every step's action or proprio, and what the normaliser makes of it.

    names: the recipe's for actions, else the dataset's. recorded_as: the dataset's, "" where it has none.
    kinds: of actions; "" for proprio. values [n, d] physical; stats: of them. unit [n, d]: as the policy is given
    them, clamped; no row where the normaliser does not know the robot. low, high [d]: what becomes -1 and 1.
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


@dataclass(frozen=True)
class Prompt:
    """What a text encoder makes of an instruction.

    prompt: the exact sentence. tokens: the pieces it is cut into, in order; none where they are not known here.
    used: context rows that are not padding; 0 where not known. rows: all rows. problem: "" where there is none.
    """

    instruction: str
    prompt: str
    tokens: tuple[str, ...]
    used: int
    rows: int
    problem: str


@dataclass(frozen=True)
class Chunk:
    """Actions of one sample, physical units, and what the policy predicts there (no row without a policy)."""

    id: str
    instruction: str
    recorded: Float[np.ndarray, "k a"]
    is_pad: Bool[np.ndarray, " k"]
    predicted: Float[np.ndarray, "_ a"]


@dataclass(frozen=True)
class OpenLoop:
    """Predicted against recorded actions, padding left out; one number per dimension, over `samples` chunks.

    error: mean absolute error, physical; unit_error: in the normaliser's units. constant_error: mean absolute error
    of always predicting the median of these actions. correlation: of predicted and recorded; NaN where one is still.
    """

    samples: int
    error: np.ndarray
    unit_error: np.ndarray
    constant_error: np.ndarray
    correlation: np.ndarray


@dataclass(frozen=True)
class Seen:
    """Everything.

    trained: the normaliser and the policy are a run's; else the normaliser was fitted on this dataset.
    robot: the dataset's; known: the normaliser's. sources: height and width of every view as recorded.
    padded_actions: share of all chunks' actions that lie past an episode's end.
    broken: what is wrong with the numbers of the run's weights; "" where nothing is.
    no_codec, no_tokens, no_policy: why pictures are not decoded, tokens not known, nothing predicted; "" where not.
    """

    spec: DataSpec
    space: ActionSpace
    trained: bool
    robot: str
    known: tuple[str, ...]
    sources: Mapping[str, tuple[int, int]]
    looks: tuple[Look, ...]
    fields: tuple[Field, ...]
    prompts: tuple[Prompt, ...]
    chunks: tuple[Chunk, ...]
    open_loop: OpenLoop
    padded_actions: float
    no_codec: str
    no_tokens: str
    no_policy: str
    broken: str


def open_loop(chunks: list[Chunk], scale: np.ndarray) -> OpenLoop:
    """Compare what was predicted with what was recorded. scale [a]: unit range per physical unit."""
    recorded, predicted = _together(chunks)
    nothing = np.full(len(scale), np.nan)
    if not len(predicted):
        return OpenLoop(0, nothing, nothing, nothing, nothing)
    error = np.abs(predicted - recorded).mean(axis=0)
    constant = np.abs(recorded - np.median(recorded, axis=0)).mean(axis=0)
    pairs = zip(predicted.T, recorded.T, strict=True)
    return OpenLoop(len(chunks), error, error * scale, constant, np.array([correlation(*p) for p in pairs]))


def _together(chunks: list[Chunk]) -> tuple[np.ndarray, np.ndarray]:
    """Recorded and predicted actions [n, a] of the steps that are not padding."""
    judged = [chunk for chunk in chunks if len(chunk.predicted)]
    if not judged:
        return np.zeros((0, 0)), np.zeros((0, 0))
    recorded = np.concatenate([chunk.recorded[~chunk.is_pad] for chunk in judged])
    return recorded, np.concatenate([chunk.predicted[~chunk.is_pad] for chunk in judged])


def correlation(x: np.ndarray, y: np.ndarray) -> float:
    """Pearson's, of [n] and [n]; NaN where either does not move or is not finite."""
    if len(x) < 2 or not np.isfinite([x, y]).all() or np.ptp(x) == 0 or np.ptp(y) == 0:
        return float("nan")
    return float(np.corrcoef(x, y)[0, 1])
