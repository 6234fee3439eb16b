"""What can go wrong in a Meta-World scene: the axes, each at three strengths, and what happens while a policy acts.

KINDS is the table; a robustness suite is a suite with one of its rows ("metaworld3+camera_2", "metaworld3+lights_off",
suites.py). Knows the simulator's model and what is rendered, no policy.
"""

from __future__ import annotations

from copy import copy
from typing import Dict

import numpy as np

from wamkit_client.envs.axes import axes, not_down, scale_lights, sideways
from wamkit_client.envs.perturbations import NONE, Kind, Stage, Undo
from wamkit_client.envs.rendering import Ball

FURNITURE = ("world", "tablelink", "RetainingWall", "base", "mocap")
"""Bodies at the top of every scene; the others are what the task is about."""
BACKDROP = FURNITURE[:3]
TABLE = ((-0.3, 0.3), (0.5, 0.7))
"""Metres in x and y where a distractor may lie, in front of the objects and in sight of the camera."""


def displace_layout(stage: Stage, strength: float, rng: np.random.Generator) -> Undo:
    """Everything that a task places stands elsewhere, all by the same distance in a direction drawn at random: the
    space that initial states are drawn from is displaced, so that the task knows."""
    simulator = stage.simulator
    space = simulator._random_reset_space
    by = np.resize(sideways(strength, rng), space.low.size)  # of one or two places
    displaced = copy(space)
    displaced.low, displaced.high = space.low + by, space.high + by
    simulator._random_reset_space = displaced

    def undo() -> None:
        simulator._random_reset_space = space

    return undo


def displace_hand(stage: Stage, strength: float, rng: np.random.Generator) -> Undo:
    """The hand begins elsewhere, in any direction but down."""
    simulator = stage.simulator
    before = simulator.hand_init_pos
    simulator.hand_init_pos = before + not_down(strength, rng)

    def undo() -> None:
        simulator.hand_init_pos = before

    return undo


def move_object(stage: Stage, strength: float, rng: np.random.Generator) -> Undo:
    """What the task is about slides over the table, in a direction drawn at random; goals that belong to it follow."""
    simulator, model, data = stage.simulator, stage.model, stage.simulator.data
    by = sideways(strength, rng)
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


def shift_camera(stage: Stage, strength: float, rng: np.random.Generator) -> Undo:
    """The camera in front of the scene is knocked sideways and up."""
    positions, camera = stage.model.cam_pos, stage.model.camera("corner2").id
    before = positions[camera].copy()
    angle = rng.uniform(0, 2 * np.pi)
    positions[camera] += strength * np.array([0.0, np.cos(angle), np.sin(angle)])

    def undo() -> None:
        positions[camera] = before

    return undo


def dim_lights(stage: Stage, strength: float, rng: np.random.Generator) -> Undo:
    """All lights go out, or down."""
    return scale_lights(stage.model, np.array(max(1 - strength, 0.0)))


def add_distractor(stage: Stage, strength: float, rng: np.random.Generator) -> Undo:
    """A ball lies on the table, to be seen and not to be touched."""
    x, y = (float(rng.uniform(*side)) for side in TABLE)
    stage.balls.append(Ball((x, y, strength), strength, (0.1, 0.7, 0.2, 1.0)))
    return stage.balls.clear


AXES: Dict[str, Kind] = {
    "layout": Kind(
        "objects and goals stand elsewhere, all by as much",
        "metres",
        (0.03, 0.06, 0.1),
        displace_layout,
        True,
    ),
    "robot": Kind("the hand begins elsewhere", "metres", (0.05, 0.1, 0.15), displace_hand, True),
    **axes(
        {
            "camera": (5.0, 10.0, 20.0),
            "light": (0.3, 0.5, 0.7),
            "background": (0.3, 0.6, 1.0),
            "noise": (10.0, 25.0, 50.0),
            "action_delay": (12.5, 25.0, 50.0),
            "action_noise": (0.1, 0.2, 0.4),
        }
    ),
}
EVENTS: Dict[str, Kind] = {
    "object_moved": Kind("the object slides over the table", "metres", (0.1,), move_object),
    "camera_shifted": Kind("the front camera is displaced", "metres", (0.1,), shift_camera),
    "lights_off": Kind("the lights go out", "share of the light", (0.8,), dim_lights),
    "distractor": Kind("a ball lies on the table", "metres of its radius", (0.05,), add_distractor),
}
KINDS = {**NONE, **EVENTS, **AXES}
