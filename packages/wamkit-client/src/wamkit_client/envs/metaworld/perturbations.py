"""What can go wrong with a Meta-World scene while a policy acts: one thing per episode, at a moment that its seed says.

PERTURBATIONS is the table; a robustness suite is a suite with one of its rows ("metaworld3+lights_off", suites.py).
Knows the simulator's model and what is rendered, no policy.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Callable, Dict, Tuple

import numpy as np

from wamkit_client.envs.rendering import Ball, Renderer
from wamkit_client.types import BadInput

FURNITURE = ("world", "tablelink", "RetainingWall", "base", "mocap")
"""Bodies at the top of every scene; the others are what the task is about."""
TABLE = ((-0.3, 0.3), (0.5, 0.7))
"""Metres in x and y where a distractor may lie, in front of the objects and in sight of the camera."""

Undo = Callable[[], None]
Happen = Callable[[Any, Renderer, float, np.random.Generator], Undo]
"""Simulator, renderer, strength, source of randomness -> what takes it back."""


@dataclass(frozen=True)
class Perturbation:
    """kind: a row of PERTURBATIONS. strength: in its unit, above 0. seconds: of the episode, between which it happens;
    from then on it stays. BadInput for others."""

    kind: str = "none"
    strength: float = 1.0
    seconds: Tuple[float, float] = (0.25, 0.5)

    def __post_init__(self) -> None:
        if self.kind not in PERTURBATIONS:
            raise BadInput(
                f"perturbation {self.kind!r} is unknown; expected one of {', '.join(PERTURBATIONS)}"
            )
        first, last = self.seconds
        if not (0 < self.strength < float("inf") and 0 <= first <= last < float("inf")):
            raise BadInput(
                f"perturbation {self.kind}: strength {self.strength:g}, between {first:g} and {last:g} s; expected a "
                "strength above 0 and two times from 0 on, in order"
            )

    def step(self, seed: int, hz: float) -> int:
        """Before which control step of the episode it happens."""
        first, last = self.seconds
        return round(hz * (first + (last - first) * float(np.random.default_rng([seed, 0]).random())))


def move_object(simulator: Any, renderer: Renderer, strength: float, rng: np.random.Generator) -> Undo:
    """What the task is about slides over the table, in a direction drawn at random; goals that belong to it follow."""
    model, data = simulator.model, simulator.data
    angle = rng.uniform(0, 2 * np.pi)
    by = strength * np.array([np.cos(angle), np.sin(angle), 0.0])
    tops = [i for i in range(model.nbody) if not model.body_parentid[i]]
    fixed, before, goal = [], model.body_pos.copy(), simulator._target_pos.copy()
    for body in (i for i in tops if model.body(i).name not in FURNITURE):
        joint = model.body_jntadr[body]
        if joint >= 0 and model.jnt_type[joint] == 0:  # it lies there loose
            data.qpos[model.jnt_qposadr[joint] : model.jnt_qposadr[joint] + 3] += by
        else:
            fixed.append(body)
    if fixed:
        model.body_pos[fixed] += by
        simulator._target_pos = goal + by

    def undo() -> None:
        model.body_pos[:], simulator._target_pos = before, goal

    return undo


def shift_camera(simulator: Any, renderer: Renderer, strength: float, rng: np.random.Generator) -> Undo:
    """The camera in front of the scene is knocked sideways and up."""
    positions, camera = simulator.model.cam_pos, simulator.model.camera("corner2").id
    before = positions[camera].copy()
    angle = rng.uniform(0, 2 * np.pi)
    positions[camera] += strength * np.array([0.0, np.cos(angle), np.sin(angle)])

    def undo() -> None:
        positions[camera] = before

    return undo


def dim_lights(simulator: Any, renderer: Renderer, strength: float, rng: np.random.Generator) -> Undo:
    """All lights go out, or down."""
    model, head = simulator.model, simulator.model.vis.headlight
    lights = [model.light_diffuse, model.light_ambient, model.light_specular]
    lights += [head.diffuse, head.ambient, head.specular]
    before = [light.copy() for light in lights]
    for light, old in zip(lights, before):
        light[:] = max(1 - strength, 0.0) * old

    def undo() -> None:
        for light, old in zip(lights, before):
            light[:] = old

    return undo


def add_distractor(simulator: Any, renderer: Renderer, strength: float, rng: np.random.Generator) -> Undo:
    """A ball lies on the table, to be seen and not to be touched."""
    x, y = (float(rng.uniform(*side)) for side in TABLE)
    renderer.balls.append(Ball((x, y, strength), strength, (0.1, 0.7, 0.2, 1.0)))
    return renderer.balls.clear


def nothing() -> None:
    """There is nothing to take back."""


@dataclass(frozen=True)
class Kind:
    """about, unit: in words. strength: the usual one."""

    about: str
    unit: str
    strength: float
    happen: Happen


PERTURBATIONS: Dict[str, Kind] = {
    "none": Kind("nothing happens", "", 1.0, lambda simulator, renderer, strength, rng: nothing),
    "object_moved": Kind("the object slides over the table", "metres", 0.1, move_object),
    "camera_shifted": Kind("the front camera is displaced", "metres", 0.1, shift_camera),
    "lights_off": Kind("the lights go out", "share of the light", 0.8, dim_lights),
    "distractor": Kind("a ball lies on the table", "metres of its radius", 0.05, add_distractor),
}


def perturbation(word: str) -> Perturbation:
    """Of "lights_off", with the usual strength, or "lights_off=0.5". BadInput for anything else."""
    kind, _, number = word.partition("=")
    usual = PERTURBATIONS[kind].strength if kind in PERTURBATIONS else 1.0
    try:
        strength = float(number) if number else usual
    except ValueError:
        raise BadInput(f"perturbation {word!r}: {number!r} is no number") from None
    return Perturbation(kind, strength)


class Fate:
    """What happens in the episodes of one environment. `begin` with each, then `step` before every control step."""

    def __init__(self, chosen: Perturbation, simulator: Any, renderer: Renderer, hz: float) -> None:
        self._chosen, self._simulator, self._renderer, self._hz = chosen, simulator, renderer, hz
        self._undo: Undo = nothing
        self._left = 0  # control steps until it happens; below 0: it has

    def begin(self, seed: int) -> None:
        """Everything is as it was; must come before the simulator is reset."""
        self._undo()
        self._undo = nothing
        self._seed, self._left = seed, self._chosen.step(seed, self._hz)

    def step(self) -> None:
        """A control step follows."""
        if self._left == 0:
            rng = np.random.default_rng([self._seed, 1])
            happen = PERTURBATIONS[self._chosen.kind].happen
            self._undo = happen(self._simulator, self._renderer, self._chosen.strength, rng)
        self._left -= 1
