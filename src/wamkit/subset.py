"""Which episodes of a dataset a policy learns from; data/subset.py reads it."""

from __future__ import annotations

import shlex
from dataclasses import dataclass


@dataclass(frozen=True)
class Subset:
    """Which episodes of each dataset are read; every condition that is given must hold.

    episodes: numbers and ranges ("7", "0:200", "100:"). tasks: instructions of the dataset: a text, its number, or a
        pattern ("pick*").
    success: a column of steps or episodes, true where the robot succeeded, in an episode at least once.
    """

    episodes: tuple[str, ...] = ()
    tasks: tuple[str, ...] = ()
    success: str = ""

    @property
    def described(self) -> str:
        """The conditions, as a command line spells their values; "" where there are none."""
        given = {
            "episodes": self.episodes,
            "tasks": self.tasks,
            "success": (self.success,) * bool(self.success),
        }
        return "; ".join(f"{name} {shlex.join(values)}" for name, values in given.items() if values)


EVERY = Subset()
