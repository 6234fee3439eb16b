"""How a robot's proprio follows from its actions, fitted to recorded steps by least squares.

What a video model imagines has no proprio: an arm in an image has moved, and nobody has measured where to. This is the
least that tells: next proprio = proprio + [proprio, action, 1] W, one control step at a time. It knows no contact and
no limit of a joint.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

RIDGE = 1e-6
"""Share of a column's mean square that is added to it, so that numbers that never change cause no harm."""


@dataclass(frozen=True)
class Motion:
    """weights: W. Everything is in physical units."""

    weights: Float[np.ndarray, "n p"]

    @classmethod
    def fit(cls, episodes: Iterable[tuple[Float[np.ndarray, "_ p"], Float[np.ndarray, "_ a"]]]) -> Motion:
        """To the proprio at every step of episodes, and the actions from there on; at least one step in all."""
        known, changes = [], []
        for proprio, actions in episodes:
            steps = min(len(proprio) - 1, len(actions))
            known.append(_columns(proprio[:steps], actions[:steps]))
            changes.append(np.diff(proprio[: steps + 1].astype(np.float64), axis=0))
        x = np.concatenate(known)
        squares = x.T @ x
        squares += RIDGE * np.diag(np.diag(squares))
        # some columns may be zero throughout: of all solutions the smallest
        return cls(np.linalg.lstsq(squares, x.T @ np.concatenate(changes), rcond=None)[0])

    def after(
        self, proprio: Float[np.ndarray, " p"], actions: Float[np.ndarray, "k a"]
    ) -> Float[np.ndarray, " p"]:
        """When these actions have been executed, float32."""
        now = proprio[None].astype(np.float64)
        for action in actions:
            now = now + _columns(now, action[None]) @ self.weights
        return now[0].astype(np.float32)


def _columns(proprio: np.ndarray, actions: np.ndarray) -> Float[np.ndarray, "t n"]:
    return np.concatenate([proprio, actions, np.ones((len(actions), 1))], axis=1).astype(np.float64)
