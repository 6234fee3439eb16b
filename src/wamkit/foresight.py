"""What a policy's world model expects of the scene, and what can be asked of one.

Shape letters: b batch, t moments, s patches, d their features, e a latent action; units as in wamkit/types.py.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

from jaxtyping import Float, UInt8
from torch import Tensor

from wamkit.types import Policy, Query


@dataclass(frozen=True)
class Foresight:
    """What a world model makes of an observation, in a space where moments can be compared, s patches of d numbers.

    now: the present. later: what it expects, at the video frames after the present (DataSpec.frame_times).
    """

    now: Float[Tensor, "b s d"]
    later: Float[Tensor, "b t s d"]


Foreseer = Callable[[Query, Any], Foresight]
"""Of a query with generators, and the policy's encoder, whole."""


@runtime_checkable
class Foreseeing(Policy, Protocol):
    """A policy whose world model can be held against what happens."""

    def foresee(self, query: Query, encoder: Any) -> Foresight:
        """Of a query with generators, from which it may draw. encoder: the policy's, whole."""

    def foreseer(self, passes: Collection[str]) -> Foreseer:
        """`foresee` with those of these passes that are about it, for weights that do not change any more; the policy
        keeps them. Raises BadInput where it was not trained to expect anything."""


class WorldModel(Protocol):
    """Predicts what a camera will see, as frozen features of its patches, from what it sees and a latent action.

    view: the camera. grid: rows and columns of the s = rows * columns patches, row-major. seconds: how far ahead it
    predicts. No method keeps gradients; tensors are float32 on the model's device.
    """

    @property
    def view(self) -> str:
        """See above."""

    @property
    def grid(self) -> tuple[int, int]:
        """See above."""

    @property
    def seconds(self) -> float:
        """See above."""

    def features(self, frames: UInt8[Tensor, "b h w 3"]) -> Float[Tensor, "b s d"]:
        """Of images of its camera, as a dataset or a robot has them."""

    def infer(self, now: Float[Tensor, "b s d"], later: Float[Tensor, "b s d"]) -> Float[Tensor, "b e"]:
        """The latent action between two moments that lie `seconds` apart."""

    def information(self, now: Float[Tensor, "b s d"], later: Float[Tensor, "b s d"]) -> Float[Tensor, "b e"]:
        """What each dimension of that latent action tells, in nats: its divergence from what it is without an image."""

    def step(self, now: Float[Tensor, "b s d"], code: Float[Tensor, "b e"]) -> Float[Tensor, "b s d"]:
        """The features `seconds` later, if that latent action is taken."""
