"""What both sides of the wire share: Observation, ActionChunk, Policy, BadInput, NotSaved."""

from __future__ import annotations

import sys
from dataclasses import dataclass, field
from typing import Any, Dict, List, Sequence, Tuple

import numpy as np

WHOLE = sys.maxsize
"""As many steps as a chunk has."""


class BadInput(ValueError):
    """Input that cannot be used: the message names the thing, what was expected and what to do.

    The command line prints it without a traceback and exits with code 2.
    """


class NotSaved(OSError):
    """A file could not be written, which is no failure of the episode that it is of. Arguments as of OSError."""


@dataclass(frozen=True)
class Observation:
    """What a robot knows at one control step, in physical units.

    images: uint8 RGB [h, w, 3] by camera name.
    proprio: float32 [p], the robot's own state (metres, radians, gripper opening 0 = closed .. 1 = open).
    instruction: what to do, in words.
    embodiment: which robot, the key of the policy's Normalizer.
    noise_seed: what a sampling policy draws its noise from: the same observation and seed give the same chunk. An
        Episode gives every query its own; 0 begins every query from the same noise.
    previous: float32 [n, a], what is left of the previous chunk from now on, for a policy that continues it (guided
        real-time chunking); n = 0: there is nothing to continue.
    delay: control steps until the answer is used; the first `delay` rows of `previous` are executed whatever comes.
    steps: how many actions of the answer will be used, the first ones; a chunk may be that short.
    episode: which episode, a name that this client gives to no other; "": unknown. No answer depends on it.
    step: control steps since the episode's reset. No answer depends on it.
    """

    images: Dict[str, np.ndarray]
    proprio: np.ndarray
    instruction: str
    embodiment: str
    noise_seed: int = 0
    previous: np.ndarray = field(default_factory=lambda: np.zeros((0, 0), np.float32))
    delay: int = 0
    steps: int = WHOLE
    episode: str = ""
    step: int = 0


@dataclass(frozen=True)
class ActionChunk:
    """actions: float32 [k, a], physical units, one row per control step from now on.

    displacements: dimensions of an action that move the robot from where it is, in place of saying where it is to be.
    """

    actions: np.ndarray
    info: Dict[str, Any] = field(default_factory=dict)
    displacements: Tuple[int, ...] = ()

    @property
    def warnings(self) -> List[Dict[str, Any]]:
        """What a watched policy said of the observation: {"step", "score", "still", "threshold", "alarm"}; [] where it
        had nothing to compare, and of a policy that is not watched."""
        return [self.info["warning"]] if "warning" in self.info else []


class Policy:
    """Anything that turns observations into chunks: an engine in this process or a client of a policy server."""

    def act(self, observations: Sequence[Observation]) -> List[ActionChunk]:
        """One chunk per observation; the observations are independent (several robots or environments)."""
        raise NotImplementedError

    def reset(self) -> None:
        """A new episode begins. No-op for policies without memory."""
