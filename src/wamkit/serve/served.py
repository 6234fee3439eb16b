"""What is served: policies by name, and what clients are told of each.

Knows neither run directories nor engines: anything with the client's `Policy` interface can be served.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import numpy as np
from wamkit_client.types import BadInput, Policy

from wamkit.data.colours import Colours

Range = tuple[float, ...]
STILL = 0.01
"""Half the range of a dimension that hardly moved in training; sensors are not exact."""


@dataclass(frozen=True)
class Robot:
    """What observations and chunks of one robot look like.

    name: `embodiment` of its observations. views: its cameras, in the policy's order. low, high: of each dimension of
    the proprio, in training; (): not known. colours: of the training images, by view, as far as they are known.
    """

    name: str
    views: tuple[str, ...]
    proprio_dim: int
    action_dim: int
    horizon: int
    hz: float
    low: Range = ()
    high: Range = ()
    colours: Mapping[str, Colours] = field(default_factory=dict)

    def outside(self, proprio: np.ndarray, factor: float) -> list[int]:
        """Dimensions that are further from the middle of their range than `factor` times half of it."""
        if not self.low:
            return []
        low, high = np.asarray(self.low), np.asarray(self.high)
        half = np.maximum((high - low) / 2, STILL)
        return list(map(int, np.flatnonzero(np.abs(proprio - (low + high) / 2) > factor * half)))


@dataclass(frozen=True)
class Facts:
    """What a policy needs and gives.

    view_height, view_width: of the images it was trained with; others are resized. replan_steps: how many actions of a
    chunk are meant to be executed. absolute: whether actions are targets, and not changes. identity: what tells it from
    others, in words (weights, revision, device). about: all that results say of it, JSON text.
    """

    kind: str
    robots: tuple[Robot, ...]
    action_names: tuple[str, ...]
    view_height: int
    view_width: int
    replan_steps: int
    absolute: bool = True
    identity: Mapping[str, str] = field(default_factory=dict)
    about: str = "{}"

    def robot(self, name: str) -> Robot:
        """The robot of that name; "": the only one. BadInput where it is unknown, or not named among several."""
        known = {robot.name: robot for robot in self.robots}
        if not name and len(known) == 1:
            return self.robots[0]
        if name not in known:
            asked = f"robot {name!r} is unknown" if name else "which robot it is must be said"
            raise BadInput(f"embodiment: {asked}; this policy knows {', '.join(known)}")
        return known[name]

    @property
    def told(self) -> Facts:
        """What clients rely on while they are connected: all but what identifies it."""
        robots = tuple(replace(robot, low=(), high=(), colours={}) for robot in self.robots)
        return replace(self, identity={}, about="", robots=robots)


@dataclass
class Served:
    """A policy under its name. Another policy may take its place between two queries."""

    name: str
    policy: Policy
    facts: Facts


class Policies:
    """Those that one server answers for; the first is asked where a client names none."""

    def __init__(self, *served: Served) -> None:
        self._served = {one.name: one for one in served}

    def add(self, served: Served) -> None:
        """One more, or another in the place of one."""
        self._served[served.name] = served

    def find(self, name: str = "") -> Served:
        """The policy of that name; "": the first. BadInput for an unknown one."""
        if not name and self._served:
            return next(iter(self._served.values()))
        if name not in self._served:
            raise BadInput(f"policy {name!r} is not served here; known: {', '.join(self._served) or 'none'}")
        return self._served[name]

    @property
    def all(self) -> tuple[Served, ...]:
        """In their order."""
        return tuple(self._served.values())
