"""The scenes that LIBERO draws, as functions of a seed and of the number of the reset.

LIBERO draws the places of fixtures (cabinets, stoves) and objects at every reset, from NumPy's global generator. Each
reset also repeats the entries for doors, drawers and knobs in a list that is never emptied, and every entry draws a
number, so that what a reset draws depends on how many came before. Knows LIBERO's environment, no robot and no task.
"""

from __future__ import annotations

from typing import Any, Dict

import numpy as np


class Scenes:
    """Resets of one environment. simulator: LIBERO's ControlEnv, just made."""

    def __init__(self, simulator: Any) -> None:
        self._simulator = simulator
        self._env = simulator.env
        self._entries = list(self._env.object_property_initializers)
        self._earlier = 0
        self._draw = self._env._reset_internal  # robosuite's: of a scene that was built, draws what is where
        self._env._reset_internal = self._draw_with_earlier

    def reset(self, seed: int, number: int = 0) -> Dict[str, np.ndarray]:
        """The scene of reset `number` (from 0) of a fresh environment that was seeded once; robosuite's readings.

        Costs one reset and, for each of the `number` resets before it, their draws alone (milliseconds).
        """
        self._env.object_property_initializers[:] = self._entries
        self._earlier = number
        np.random.seed(seed % 2**32)
        sensed: Dict[str, np.ndarray] = self._simulator.reset()
        return sensed

    def _draw_with_earlier(self) -> None:
        """Draw in the scene just built what the earlier resets drew, undo it each time, then draw this one's."""
        sim = self._env.sim
        places = sim.model.body_pos.copy(), sim.model.body_quat.copy()
        for _ in range(self._earlier):
            self._draw()
            sim.model.body_pos[:], sim.model.body_quat[:] = places
            sim.reset()
            sim.forward()
            self._env.object_property_initializers.extend(self._entries)
        self._draw()
