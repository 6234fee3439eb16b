"""What can go wrong in a LIBERO scene: the axes, each at three strengths. KINDS is the table ("libero_goal+camera_2").

Knows LIBERO's environment, no task and no policy.
"""

from __future__ import annotations

from typing import Any, Dict

import numpy as np

from wamkit_client.envs.axes import axes, not_down, sideways
from wamkit_client.envs.perturbations import NONE, Kind, Stage, Undo, nothing

ROBOT = ("robot0_", "gripper0_", "mount0_")  # beginnings of the names of its bodies
UNITS_PER_METRE, ARRIVED, PATIENCE = 20.0, 0.003, 30
"""Of the hand that is led to where it begins: action for the distance that is left; metres; steps."""


def displace_layout(stage: Stage, strength: float, rng: np.random.Generator) -> Undo:
    """Objects, fixtures and the places that tasks name stand elsewhere on the same table, all by the same distance in a
    direction drawn at random, so that what lies on or in something stays there."""
    env = stage.simulator.env
    model, sim = stage.model, env.sim
    by = sideways(strength, rng)
    for thing in env.objects_dict.values():
        pose = sim.data.get_joint_qpos(thing.joints[-1]).copy()
        pose[:3] += by
        sim.data.set_joint_qpos(thing.joints[-1], pose)
    for fixture in env.fixtures_dict.values():
        model.body_pos[model.body(fixture.root_body).id] += by
    for site in (model.site(index) for index in range(model.nsite)):
        if (
            site.name in env.object_sites_dict
            and model.body(model.site_bodyid[site.id]).name in stage.backdrop
        ):
            model.site_pos[site.id] += by
    sim.forward()
    return nothing


def displace_hand(stage: Stage, strength: float, rng: np.random.Generator) -> Undo:
    """The hand begins elsewhere, in any direction but down: it is led there before the episode begins."""
    simulator = stage.simulator
    sensed = simulator.env._get_observations()
    goal = sensed["robot0_eef_pos"] + not_down(strength, rng)
    for _ in range(PATIENCE):
        left = goal - sensed["robot0_eef_pos"]
        if np.linalg.norm(left) < ARRIVED:
            break
        move = np.clip(UNITS_PER_METRE * left, -1.0, 1.0)
        sensed = simulator.step(np.concatenate([move, [0.0, 0.0, 0.0, -1.0]]))[0]
    simulator.env.timestep = 0
    return nothing


def stage(simulator: Any, idle: np.ndarray, hz: float) -> Stage:
    """Of an episode that begins. simulator: LIBERO's ControlEnv."""
    env = simulator.env
    model, data = env.sim.model._model, env.sim.data._data
    tops = [body for body in range(model.nbody) if model.body_parentid[body] == 0]
    things = [thing.root_body for thing in (*env.objects_dict.values(), *env.fixtures_dict.values())]
    places = [data.body(name).xpos for name in things]
    centre = tuple(float(value) for value in np.mean(places, axis=0))
    names = [model.body(body).name for body in tops]
    backdrop = tuple(name for name in names if name not in things and not name.startswith(ROBOT))
    return Stage(simulator, model, centre, backdrop, idle, grip=6, hz=hz)  # type: ignore[arg-type]


KINDS: Dict[str, Kind] = {
    **NONE,
    "layout": Kind(
        "objects, fixtures and goals stand elsewhere, all by as much",
        "metres",
        (0.02, 0.04, 0.08),
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
            "action_delay": (50.0, 100.0, 150.0),
            "action_noise": (0.2, 0.4, 0.8),
        }
    ),
}
