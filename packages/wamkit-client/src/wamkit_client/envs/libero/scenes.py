"""The scenes that LIBERO draws, as functions of a seed and of the number of the reset.

At every reset LIBERO draws the places of fixtures (cabinets, stoves) and objects from NumPy's global generator. Each
reset also appends the entries for doors, drawers and knobs to a list that is never emptied, and every entry draws a
number, so what a reset draws depends on how many resets came before. Every reset builds the same model from the same
XML; here it is compiled once, and its meshes and textures are handed to the renderer once. Knows LIBERO's environment,
no robot and no task.
"""

from __future__ import annotations

from copy import copy
from typing import Any, Callable, Dict, List, Tuple

import numpy as np


class Scenes:
    """Resets of one environment. make: makes LIBERO's ControlEnv, which is `simulator` then."""

    def __init__(self, make: Callable[[], Any]) -> None:
        self.simulator, self._compiled = _made(make)
        self._env = self.simulator.env
        self._entries = list(self._env.object_property_initializers)
        self._earlier = 0
        self._draw = (
            self._env._reset_internal
        )  # robosuite's method that places everything in a newly built scene
        self._env._reset_internal = self._draw_with_earlier
        self._env._initialize_sim = self._build  # robosuite's compiles for a second
        self._xml = self._env.model.get_xml()
        self._renderer: Any = self._env.sim._render_context_offscreen

    def reset(self, seed: int, number: int = 0) -> Dict[str, np.ndarray]:
        """Draw the scene of reset `number` (from 0) after seeding a fresh environment; returns robosuite's readings.

        Costs one reset, and for each earlier reset only its draws (milliseconds).
        """
        self._env.object_property_initializers[:] = self._entries
        self._earlier = number
        np.random.seed(seed % 2**32)
        sensed: Dict[str, np.ndarray] = self.simulator.reset()
        return sensed

    def close(self) -> None:
        """Free what the renderer holds, once the simulator is closed too; nothing is reset afterwards.

        robosuite frees it in whichever graphics context is current, and that may be another environment's.
        """
        self._renderer.gl_ctx.make_current()
        self._renderer = None

    def _build(self) -> None:
        """A new simulator, whose model nothing has moved yet, seen by the renderer that knows its meshes already."""
        from mujoco import MjModel
        from robosuite.utils.binding_utils import MjRenderContextOffscreen, MjSim

        xml = self._env.model.get_xml()
        changed = xml != self._xml
        if changed:
            self._xml, self._compiled = xml, MjModel.from_xml_string(xml)
        sim = self._env.sim = MjSim(copy(self._compiled))
        sim.forward()
        self._env.initialize_time(self._env.control_freq)
        if changed:
            self.close()
            self._renderer = MjRenderContextOffscreen(sim, device_id=self._env.render_gpu_device_id)
        renderer = self._renderer
        renderer.sim, renderer.model, renderer.data = sim, sim.model, sim.data
        sim.add_render_context(renderer)

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


def _made(make: Callable[[], Any]) -> Tuple[Any, Any]:
    """A new environment, and the model that robosuite compiled for it as it was before anything moved."""
    from mujoco import MjModel
    from robosuite.utils.binding_utils import MjSim

    compiled: List[Any] = []

    def compile_and_keep(xml: str) -> Any:
        compiled.append(MjModel.from_xml_string(xml))
        return MjSim(copy(compiled[-1]))

    theirs = MjSim.from_xml_string
    MjSim.from_xml_string = compile_and_keep
    try:
        return make(), compiled[-1]
    finally:
        MjSim.from_xml_string = theirs
