"""Open-loop error: chunks predicted from recorded observations against the chunks that were recorded there.

Beside the policy stand two guesses that need none: the action before the chunk, repeated, and the mean action of what
it was trained on. Padding past an episode's end is left out everywhere. It does not know policies or datasets.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Int

PREDICTED, PREVIOUS, MEAN = "predicted", "previous action", "mean action"
BASELINES = (PREVIOUS, MEAN)

ToUnit = Callable[[np.ndarray], np.ndarray]
"""Actions [n k a] of one robot from physical units to the range that its policy is trained in."""


@dataclass(frozen=True)
class Chunk:
    """Actions of one sample, physical units, and what the policy predicts there (no row without a policy).

    id: "episode:step". before: the action of the step before; no row where the sample begins its episode.
    """

    id: str
    instruction: str
    recorded: Float[np.ndarray, "k a"]
    is_pad: Bool[np.ndarray, " k"]
    predicted: Float[np.ndarray, "_ a"]
    before: Float[np.ndarray, "_ a"]


@dataclass(frozen=True)
class OpenLoop:
    """Predicted against recorded actions, without padding; one number per dimension, over `samples` chunks.

    error: mean absolute error, physical; unit_error: in the normaliser's units. constant_error: mean absolute error
    of always predicting the median of these actions. correlation: of predicted and recorded; NaN where one is still.
    """

    samples: int
    error: np.ndarray
    unit_error: np.ndarray
    constant_error: np.ndarray
    correlation: np.ndarray


def open_loop(chunks: Sequence[Chunk], scale: np.ndarray) -> OpenLoop:
    """Compare what was predicted with what was recorded. scale [a]: unit range per physical unit."""
    judged = [chunk for chunk in chunks if len(chunk.predicted)]
    if not judged:
        nothing = np.full(len(scale), np.nan)
        return OpenLoop(0, nothing, nothing, nothing, nothing)
    recorded = np.concatenate([chunk.recorded[~chunk.is_pad] for chunk in judged])  # [n, a]
    predicted = np.concatenate([chunk.predicted[~chunk.is_pad] for chunk in judged])  # [n, a]
    error = np.abs(predicted - recorded).mean(axis=0)
    constant = np.abs(recorded - np.median(recorded, axis=0)).mean(axis=0)
    return OpenLoop(len(judged), error, error * scale, constant, correlations(judged))


def correlations(chunks: Sequence[Chunk]) -> Float[np.ndarray, " a"]:
    """Of predicted and recorded actions, without padding, by dimension; at least one chunk."""
    recorded = np.concatenate([chunk.recorded[~chunk.is_pad] for chunk in chunks])
    predicted = np.concatenate([chunk.predicted[~chunk.is_pad] for chunk in chunks])
    pairs = zip(predicted.T, recorded.T, strict=True)
    return np.array([correlation(*pair) for pair in pairs])


def correlation(x: np.ndarray, y: np.ndarray) -> float:
    """Pearson's, of [n] and [n]; NaN where either does not move or is not finite."""
    if len(x) < 2 or not np.isfinite([x, y]).all() or np.ptp(x) == 0 or np.ptp(y) == 0:
        return float("nan")
    return float(np.corrcoef(x, y)[0, 1])


@dataclass(frozen=True)
class StepErrors:
    """Mean absolute errors by step of the chunk and dimension; a step that is padding in every chunk has NaN.

    counts: chunks with a recorded action at each step. errors: by guess (PREDICTED and BASELINES).
    """

    counts: Int[np.ndarray, " k"]
    errors: Mapping[str, Float[np.ndarray, "k a"]]

    def by_dimension(self, guess: str) -> Float[np.ndarray, " a"]:
        """Means over all actions."""
        seen = self.counts > 0
        return np.average(self.errors[guess][seen], axis=0, weights=self.counts[seen])

    def by_step(self, guess: str) -> Float[np.ndarray, " k"]:
        """Means over dimensions."""
        return self.errors[guess].mean(axis=1)

    def total(self, guess: str) -> float:
        """The mean over all actions and dimensions."""
        return float(self.by_dimension(guess).mean())

    def against_baselines(self) -> Float[np.ndarray, "k a"]:
        """The policy's error in multiples of the better baseline's; NaN where that makes none."""
        best = np.minimum(*(self.errors[name] for name in BASELINES))
        own = self.errors[PREDICTED]
        return np.divide(own, best, out=np.full_like(own, np.nan), where=best > 0)

    def beaten(self) -> Bool[np.ndarray, " a"]:
        """Dimensions that the policy predicts better than either baseline."""
        own, *others = (self.by_dimension(name) for name in (PREDICTED, *BASELINES))
        return own < np.minimum(*others)


def step_errors(chunks: Sequence[Chunk], mean: Float[np.ndarray, " a"], unit: ToUnit) -> StepErrors:
    """Of chunks that do not begin an episode, at least one. mean: the mean action. unit: what errors are measured in;
    the identity for physical units."""
    recorded = np.stack([chunk.recorded for chunk in chunks])  # [n k a]
    real = ~np.stack([chunk.is_pad for chunk in chunks])
    guesses = {
        PREDICTED: np.stack([chunk.predicted for chunk in chunks]),
        PREVIOUS: np.stack([chunk.before for chunk in chunks]),  # [n 1 a]
        MEAN: mean[None, None].astype(recorded.dtype),
    }
    counts, truth = real.sum(axis=0), unit(recorded)
    errors = {}
    for name, guess in guesses.items():
        wrong = np.abs(unit(np.broadcast_to(guess, recorded.shape)) - truth)
        total = np.where(real[..., None], wrong, 0).sum(axis=0, dtype=np.float64)
        errors[name] = np.divide(
            total, counts[:, None], out=np.full_like(total, np.nan), where=counts[:, None] > 0
        )
    return StepErrors(counts, errors)
