"""The scenes that LIBERO draws, as functions of a seed and of the number of the reset.

At every reset LIBERO draws the places of fixtures (cabinets, stoves) and objects from NumPy's global generator. Each
reset also appends the entries for doors, drawers and knobs to a list that is never emptied, and every entry draws a
number, so what a reset draws depends on how many resets came before. Every reset builds the same model from the same
XML; here it is compiled once. Knows LIBERO's environment, no robot and no task.
"""

from __future__ import annotations

from copy import copy
from typing import Any, Dict

import numpy as np


class Scenes:
    """Resets of one environment. simulator: LIBERO's ControlEnv, just made."""

    def __init__(self, simulator: Any) -> None:
        self._simulator = simulator
        self._env = simulator.env
        self._entries = list(self._env.object_property_initializers)
        self._earlier = 0
        self._draw = (
            self._env._reset_internal
        )  # robosuite's method that places everything in a newly built scene
        self._env._reset_internal = self._draw_with_earlier
        self._env._initialize_sim = self._build  # robosuite's compiles for a second
        self._xml = ""
        self._compiled: Any = None

    def reset(self, seed: int, number: int = 0) -> Dict[str, np.ndarray]:
        """Draw the scene of reset `number` (from 0) after seeding a fresh environment; returns robosuite's readings.

        Costs one reset, and for each earlier reset only its draws (milliseconds).
        """
        self._env.object_property_initializers[:] = self._entries
        self._earlier = number
        np.random.seed(seed % 2**32)
        sensed: Dict[str, np.ndarray] = self._simulator.reset()
        return sensed

    def _build(self) -> None:
        """A new simulator, whose model nothing has moved yet."""
        from mujoco import MjModel
        from robosuite.utils.binding_utils import MjSim

        xml = self._env.model.get_xml()
        if xml != self._xml:
            self._xml, self._compiled = xml, MjModel.from_xml_string(xml)
        self._env.sim = MjSim(copy(self._compiled))
        self._env.sim.forward()
        self._env.initialize_time(self._env.control_freq)

    def _draw_with_earlier(self) -> None:
        """Repeat the draws of the earlier resets in the new scene, undoing each, then draw this reset's."""
        sim = self._env.sim
        places = sim.model.body_pos.copy(), sim.model.body_quat.copy()
        for _ in range(self._earlier):
            self._draw()
            sim.model.body_pos[:], sim.model.body_quat[:] = places
            sim.reset()
            sim.forward()
            self._env.object_property_initializers.extend(self._entries)
        self._draw()
