"""The axes of robustness that are the same in every simulator: each holds from the reset on, at a strength.

Camera, light and background change MuJoCo's model, instruction and noise what is observed, delay and noise of actions
what is executed. Where objects and the robot's hand begin is up to a simulator (envs/*/perturbations.py). Knows no task
and no policy.
"""

from __future__ import annotations

import math
from collections import deque
from dataclasses import replace
from typing import Any, Dict, Mapping, Tuple

import numpy as np

from wamkit_client.envs.paraphrases import STYLES, paraphrase
from wamkit_client.envs.perturbations import Kind, Stage, Undo, nothing
from wamkit_client.types import Observation


def turn_cameras(stage: Stage, strength: float, rng: np.random.Generator) -> Undo:
    """Every camera that stands in the world goes round the scene's centre, in a direction drawn at random, and still
    looks at it."""
    import mujoco

    model, centre = stage.model, np.array(stage.centre)
    before = model.cam_pos.copy(), model.cam_quat.copy()
    direction = rng.uniform(0, 2 * np.pi)
    for camera in np.flatnonzero(model.cam_bodyid == 0):
        frame, turn, quaternion = np.zeros(9), np.zeros(4), np.zeros(4)
        mujoco.mju_quat2Mat(frame, model.cam_quat[camera])
        right, up, _ = frame.reshape(3, 3).T
        mujoco.mju_axisAngle2Quat(
            turn, np.cos(direction) * up + np.sin(direction) * right, np.deg2rad(strength)
        )
        place = np.zeros(3)
        mujoco.mju_rotVecQuat(place, model.cam_pos[camera] - centre, turn)
        mujoco.mju_mulQuat(quaternion, turn, model.cam_quat[camera])
        model.cam_pos[camera], model.cam_quat[camera] = centre + place, quaternion

    def undo() -> None:
        model.cam_pos[:], model.cam_quat[:] = before

    return undo


def tint_lights(stage: Stage, strength: float, rng: np.random.Generator) -> Undo:
    """All lights lose between half of `strength` and all of it, each colour another share."""
    return scale_lights(stage.model, 1 - strength * rng.uniform(0.5, 1.0, 3))


def scale_lights(model: Any, by: np.ndarray) -> Undo:
    """All lights times `by`, [3] or a number."""
    head = model.vis.headlight
    lights = [model.light_diffuse, model.light_ambient, model.light_specular]
    lights += [head.diffuse, head.ambient, head.specular]
    before = [light.copy() for light in lights]
    for light, old in zip(lights, before):
        light[:] = by * old

    def undo() -> None:
        for light, old in zip(lights, before):
            light[:] = old

    return undo


def paint_backdrop(stage: Stage, strength: float, rng: np.random.Generator) -> Undo:
    """Floor, walls and table are tinted, every material with another colour."""
    model = stage.model
    bodies = [
        body for body in range(model.nbody) if model.body(model.body_rootid[body]).name in stage.backdrop
    ]
    geoms = np.flatnonzero(np.isin(model.geom_bodyid, bodies))
    materials = np.unique(model.geom_matid[geoms])
    plain = geoms[model.geom_matid[geoms] < 0]
    before = model.mat_rgba.copy(), model.geom_rgba.copy()
    for material in materials[materials >= 0]:
        model.mat_rgba[material, :3] *= 1 - strength * (1 - rng.random(3))
    model.geom_rgba[plain, :3] *= 1 - strength * (1 - rng.random(3))

    def undo() -> None:
        model.mat_rgba[:], model.geom_rgba[:] = before

    return undo


def say_it_otherwise(stage: Stage, strength: float, rng: np.random.Generator) -> Undo:
    """The same instruction in other words."""
    seed = int(rng.integers(2**32))

    def seen(observation: Observation) -> Observation:
        told = paraphrase(observation.instruction, int(strength), np.random.default_rng(seed))
        return replace(observation, instruction=told)

    stage.seen = seen
    return nothing


def add_noise(stage: Stage, strength: float, rng: np.random.Generator) -> Undo:
    """Every pixel of every image is off by a normally distributed number, another one at every control step."""
    seed = int(rng.integers(2**32))

    def seen(observation: Observation) -> Observation:
        now = np.random.default_rng([seed, stage.steps])  # a recorded episode is observed more often
        images = {view: noisy(image, strength, now) for view, image in observation.images.items()}
        return replace(observation, images=images)

    stage.seen = seen
    return nothing


def noisy(image: np.ndarray, levels: float, rng: np.random.Generator) -> np.ndarray:
    """uint8 [h, w, 3] with normal noise of that standard deviation, in 0 to 255."""
    wrong = image + levels * rng.standard_normal(image.shape)
    return np.clip(np.rint(wrong), 0, 255).astype(np.uint8)


def execute_late(stage: Stage, strength: float, rng: np.random.Generator) -> Undo:
    """Every action is executed so many milliseconds after it was told, rounded up to control steps; until the first one
    the robot keeps still. Nobody knows: what a policy's delay costs is another question (EpisodeConfig.delay_ms)."""
    waiting = deque([stage.idle] * math.ceil(round(strength * stage.hz / 1000, 6)))

    def told(action: np.ndarray) -> np.ndarray:
        waiting.append(action)
        return waiting.popleft()

    stage.told = told
    return nothing


def disturb_actions(stage: Stage, strength: float, rng: np.random.Generator) -> Undo:
    """Every number of an action but the gripper's is off by a normally distributed one."""

    def told(action: np.ndarray) -> np.ndarray:
        wrong = strength * rng.standard_normal(len(action))
        wrong[stage.grip] = 0.0
        return action + wrong

    stage.told = told
    return nothing


def sideways(metres: float, rng: np.random.Generator) -> np.ndarray:
    """So far in a horizontal direction drawn at random, [3]."""
    angle = rng.uniform(0, 2 * np.pi)
    return metres * np.array([np.cos(angle), np.sin(angle), 0.0])


def not_down(metres: float, rng: np.random.Generator) -> np.ndarray:
    """So far in a direction drawn at random, up or level, [3]."""
    direction = rng.standard_normal(3)
    direction[2] = abs(direction[2])
    return np.asarray(metres * direction / np.linalg.norm(direction))


# about, unit, function, and what else a Kind has. Strengths are a simulator's.
AXES: Dict[str, Kind] = {
    "camera": Kind(
        "cameras outside the robot go round the scene", "degrees", (), turn_cameras, True, largest=90.0
    ),
    "instruction": Kind(
        "the instruction in other words",
        "1 asked politely, 2 synonyms, 3 both in a longer sentence",
        (1.0, 2.0, 3.0),
        say_it_otherwise,
        True,
        largest=len(STYLES),
        whole=True,
    ),
    "light": Kind(
        "the lights are dimmer and coloured",
        "largest share of a colour lost",
        (),
        tint_lights,
        True,
        largest=1.0,
    ),
    "background": Kind(
        "floor, walls and table in other colours",
        "largest share of a colour lost",
        (),
        paint_backdrop,
        True,
        1.0,
    ),
    "noise": Kind("the cameras are noisy", "standard deviation, in levels of 255", (), add_noise, True),
    "action_delay": Kind("actions are executed late", "milliseconds", (), execute_late, True),
    "action_noise": Kind(
        "actions are executed inaccurately", "standard deviation, in action units", (), disturb_actions, True
    ),
}


def axes(strengths: Mapping[str, Tuple[float, ...]]) -> Dict[str, Kind]:
    """The axes with the strengths of a simulator."""
    return {name: replace(AXES[name], strengths=strengths.get(name, AXES[name].strengths)) for name in AXES}
