"""A scripted expert for LIBERO's "pick up the A and place it in/on the B": it knows the true poses of A and B.

The hand goes above the object, down, closes, lifts, moves above the target, goes down and opens; a phase ends when the
hand has arrived, or after some steps. Objects wider than the gripper's opening are grasped at the rim. It can do tasks
whose object stands free, but no drawers, stacks or doors.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Dict, Tuple

import numpy as np

GAIN = 2.5
METRES_PER_UNIT, RADIANS_PER_UNIT = 0.05, 0.5
OPENING = 0.072  # widest object between the fingers, metres
FINGER = 0.035  # how deep the fingers reach below an object's top
ABOVE = 0.10  # clearance while moving
NEAR = 0.012
OPEN, CLOSED = 1.0, 0.0


@dataclass(frozen=True)
class Box:
    """Extent of a body's collision geometry in the world, metres: low and high corner."""

    low: np.ndarray
    high: np.ndarray

    @property
    def middle(self) -> np.ndarray:
        return (self.low + self.high) / 2

    @property
    def size(self) -> np.ndarray:
        return self.high - self.low


@dataclass(frozen=True)
class Phase:
    """goal: where the hand goes. gripper: its command meanwhile. patience: steps after which the next phase begins.

    waits: the phase lasts `patience` steps even if the hand has arrived.
    """

    goal: np.ndarray
    gripper: float
    patience: int
    waits: bool = False


class PickAndPlace:
    """Actions for one episode; `begin` plans, `action` follows the plan. simulator: LIBERO's ControlEnv."""

    def __init__(self, simulator: Any) -> None:
        self._simulator = simulator
        self._phases: Tuple[Phase, ...] = ()
        self._phase = self._steps = 0
        self._rotation = np.eye(3)

    def begin(self, sensed: Dict[str, np.ndarray]) -> None:
        """Plan from where everything is now."""
        self._phase = self._steps = 0
        env = self._simulator.env
        item, target = (self._box(name) for name in env.obj_of_interest[:2])
        hand = matrix(sensed["robot0_eef_quat"])
        fingers, other = np.abs(hand[:2, 1]), np.abs(hand[:2, 0])
        across, along = fingers @ item.size[:2], other @ item.size[:2]
        grip = item.middle.copy()
        self._rotation = hand
        if across > OPENING >= along:
            self._rotation = np.array([[0.0, -1.0, 0.0], [1.0, 0.0, 0.0], [0.0, 0.0, 1.0]]) @ hand
        elif across > OPENING:
            grip[:2] += hand[:2, 1] * (across / 2 - 0.005)  # the rim
        grip[2] = max(item.high[2] - FINGER, item.low[2] + 0.012)
        hang = grip[2] - item.low[2]
        drop = target.middle + (grip - item.middle)
        drop[2] = target.high[2] + hang + 0.005
        high = max(item.high[2], target.high[2]) + ABOVE + hang
        over_item, over_drop = (np.array([point[0], point[1], high]) for point in (grip, drop))
        self._phases = (
            Phase(over_item, OPEN, 60),
            Phase(grip, OPEN, 40),
            Phase(grip, CLOSED, 12, waits=True),
            Phase(over_item, CLOSED, 40),
            Phase(over_drop, CLOSED, 60),
            Phase(drop, CLOSED, 40),
            Phase(drop, OPEN, 10, waits=True),
            Phase(over_drop, OPEN, 10**6, waits=True),
        )

    def action(self, sensed: Dict[str, np.ndarray]) -> np.ndarray:
        """float32 [7], LIBERO's units, gripper 1 = open."""
        position, rotation = sensed["robot0_eef_pos"], matrix(sensed["robot0_eef_quat"])
        phase = self._phases[self._phase]
        arrived = not phase.waits and np.linalg.norm(phase.goal - position) < NEAR
        if arrived or self._steps >= phase.patience:
            self._phase, self._steps = self._phase + 1, 0
            phase = self._phases[self._phase]
        self._steps += 1
        move = GAIN * (phase.goal - position) / METRES_PER_UNIT
        turn = rotation_between(rotation, self._rotation) / RADIANS_PER_UNIT
        command = np.clip(np.concatenate([move, turn]), -1.0, 1.0)
        return np.append(command, phase.gripper).astype(np.float32)

    def _box(self, name: str) -> Box:
        sim = self._simulator.env.sim
        model, data = sim.model._model, sim.data._data
        root = model.body(self._simulator.env.objects_dict[name].root_body).id
        corners = []
        for geom in range(model.ngeom):
            if model.geom_group[geom] == 0 and _belongs(model, model.geom_bodyid[geom], root):
                centre, half = model.geom_aabb[geom, :3], model.geom_aabb[geom, 3:]
                signs = np.array(np.meshgrid(*[(-1.0, 1.0)] * 3)).reshape(3, -1).T
                local = centre + signs * half
                corners.append(local @ data.geom_xmat[geom].reshape(3, 3).T + data.geom_xpos[geom])
        points = np.concatenate(corners)
        return Box(points.min(axis=0), points.max(axis=0))


def _belongs(model: Any, body: int, root: int) -> bool:
    while body not in (root, 0):
        body = int(model.body_parentid[body])
    return body == root


def matrix(quaternion: np.ndarray) -> np.ndarray:
    """Rotation matrix [3, 3] of a quaternion x, y, z, w."""
    x, y, z, w = quaternion
    return np.array(
        [
            [1 - 2 * (y * y + z * z), 2 * (x * y - z * w), 2 * (x * z + y * w)],
            [2 * (x * y + z * w), 1 - 2 * (x * x + z * z), 2 * (y * z - x * w)],
            [2 * (x * z - y * w), 2 * (y * z + x * w), 1 - 2 * (x * x + y * y)],
        ]
    )


def rotation_between(now: np.ndarray, goal: np.ndarray) -> np.ndarray:
    """Rotation vector, in the world's frame, that turns `now` into `goal` (matrices [3, 3])."""
    turn = goal @ now.T
    angle = np.arccos(np.clip((np.trace(turn) - 1) / 2, -1.0, 1.0))
    axis = np.array([turn[2, 1] - turn[1, 2], turn[0, 2] - turn[2, 0], turn[1, 0] - turn[0, 1]])
    length = np.linalg.norm(axis)
    return axis / length * angle if length > 1e-9 else np.zeros(3)
