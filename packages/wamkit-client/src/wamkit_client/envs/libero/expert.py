"""A scripted expert for LIBERO: it knows the true poses and does what the task file asks for, one goal after the other.

Put A in or on B: the hand goes above A, down, closes, lifts, moves above B, goes down and opens. Objects wider than the
gripper's opening are grasped at the rim, on a side where nothing is in the way. Drawers are pulled at their handles and
pushed shut, a knob is turned with the closed hand. What was asked for and has not happened is tried again. Which tasks
it can do is a matter of measuring (docs/libero.md).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Callable, Dict, Tuple

import numpy as np

from wamkit_client.envs.libero.bodies import Bodies, Box

GAIN = 2.5
METRES_PER_UNIT, RADIANS_PER_UNIT = 0.05, 0.5
OPENING = 0.072  # widest object between the fingers, metres
FINGER = 0.035  # how deep the fingers reach below an object's top
ABOVE = 0.10  # clearance while moving
FLAT, WELL = 0.03, 0.04  # metres: a plate's height, and from its middle to its rim's inside
NEAR = 0.012
OPEN, CLOSED = 1.0, 0.0
QUARTER = np.array([[0.0, -1.0, 0.0], [1.0, 0.0, 0.0], [0.0, 0.0, 1.0]])
PULL, KNOB = 0.175, 0.9  # how far a drawer is pulled, metres, and a knob is turned, radians
DOWN = np.array([0.0, 0.0, -1.0])
TILT, TILT_BACK = 1.2, 0.08  # of the hand in front of a handle: radians, and metres from where it comes
# Half extents, metres, of the open fingers: along their axis and across. They reach from 1 cm below the point between
# them up to the palm.
FINGERS, TIP, PALM = (0.066, 0.013), 0.012, 0.05


@dataclass(frozen=True)
class Phase:
    """goal: where the hand goes. gripper: its command meanwhile. patience: steps after which the next phase begins.

    waits: the phase lasts `patience` steps even if the hand has arrived. turn: how the hand is turned, [3, 3].
    """

    goal: np.ndarray
    gripper: float
    patience: int
    turn: np.ndarray
    waits: bool = False


@dataclass(frozen=True)
class Grip:
    """Where the point between the fingertips goes, metres [3], and how the hand is turned, [3, 3]."""

    point: np.ndarray
    turn: np.ndarray


Goal = Tuple[str, ...]


class Expert:
    """Actions for one episode; `begin` with each. simulator: LIBERO's ControlEnv."""

    def __init__(self, simulator: Any) -> None:
        self._bodies = Bodies(simulator)
        self._phases: Tuple[Phase, ...] = ()
        self._phase = self._steps = 0
        self._hand = np.eye(3)

    def begin(self, sensed: Dict[str, np.ndarray]) -> None:
        """Plan from where everything is now."""
        self._hand = matrix(sensed["robot0_eef_quat"])
        self._plan(sensed["robot0_eef_pos"])

    def action(self, sensed: Dict[str, np.ndarray]) -> np.ndarray:
        """float32 [7], LIBERO's units, gripper 1 = open."""
        position, rotation = sensed["robot0_eef_pos"], matrix(sensed["robot0_eef_quat"])
        phase = self._phases[self._phase]
        arrived = not phase.waits and np.linalg.norm(phase.goal - position) < NEAR
        if arrived or self._steps >= phase.patience:
            self._phase, self._steps = self._phase + 1, 0
            if self._phase == len(self._phases):
                self._plan(position)
            phase = self._phases[self._phase]
        self._steps += 1
        move = GAIN * (phase.goal - position) / METRES_PER_UNIT
        turn = rotation_between(rotation, phase.turn) / RADIANS_PER_UNIT
        command = np.clip(np.concatenate([move, turn]), -1.0, 1.0)
        return np.append(command, phase.gripper).astype(np.float32)

    def _plan(self, position: np.ndarray) -> None:
        self._phase = self._steps = 0
        goals = sorted(self._bodies.goals(), key=lambda goal: ORDER.index(goal[0]))
        if not goals:
            self._phases = (Phase(position.copy(), OPEN, 10, self._hand, waits=True),)
            return
        goal = goals[0]
        if goal[0] == "in" and self._bodies.joints(goal[2]) and not self._bodies.holds(("open", goal[2])):
            goal = ("open", goal[2])
        self._phases = SKILLS[goal[0]](self._bodies, self._hand, goal[1:])


def place(bodies: Bodies, hand: np.ndarray, names: Goal) -> Tuple[Phase, ...]:
    """Put the first in or on the second."""
    item = bodies.box(names[0])
    if item.size[2] < FLAT and min(item.size[:2]) > OPENING:
        return _drag(bodies, hand, item, names[1])
    grip = _grip(bodies, hand, names[0])
    hang = grip.point[2] - item.low[2]
    top, middle = _target(bodies, names[1], item)
    drop = middle + (grip.point - item.middle)
    drop[2] = top + hang + 0.005
    high = max(item.high[2], top) + ABOVE + hang
    over_item, over_drop = (np.array([point[0], point[1], high]) for point in (grip.point, drop))
    turn = grip.turn
    return (
        Phase(over_item, OPEN, 60, turn),
        Phase(grip.point, OPEN, 40, turn),
        Phase(grip.point, CLOSED, 12, turn, waits=True),
        Phase(over_item, CLOSED, 40, turn),
        Phase(over_drop, CLOSED, 60, turn),
        Phase(drop, CLOSED, 40, turn),
        Phase(drop, OPEN, 10, turn, waits=True),
        Phase(over_drop, OPEN, 60, turn),
    )


def _drag(bodies: Bodies, hand: np.ndarray, item: Box, name: str) -> Tuple[Phase, ...]:
    """A plate is pushed over the table by the closed hand, from its inside against its rim."""
    way = np.append(bodies.centre(name)[:2] - item.middle[:2], 0.0)
    inside = np.array([*item.middle[:2], item.low[2] + TIP - 0.006])
    end = inside + way + way / np.linalg.norm(way) * WELL
    lift = np.array([0.0, 0.0, ABOVE])
    return (
        Phase(inside + lift, CLOSED, 60, hand),
        Phase(inside, CLOSED, 30, hand),
        Phase(end, CLOSED, 60, hand),
        Phase(end + lift, CLOSED, 40, hand),
    )


def _target(bodies: Bodies, name: str, item: Box) -> Tuple[float, np.ndarray]:
    """How high the thing ends on which, or the place where, something is put, and its middle."""
    thing = name
    if bodies.is_region(name):
        thing = bodies.owner(name)
        if not thing or bodies.is_fixture(thing):
            middle = bodies.centre(name)
            return bodies.surface(middle, middle[2] + 0.06), middle
    box = bodies.box(thing)
    return float(box.high[2]), box.middle


def _grip(bodies: Bodies, hand: np.ndarray, name: str) -> Grip:
    item = bodies.box(name)
    fingers, other = np.abs(hand[:2, 1]), np.abs(hand[:2, 0])
    across, along = fingers @ item.size[:2], other @ item.size[:2]
    point = item.middle.copy()
    point[2] = max(item.high[2] - FINGER, item.low[2] + 0.012)
    if across <= OPENING:
        return Grip(point, hand)
    if along <= OPENING:
        return Grip(point, QUARTER @ hand)
    rims = []
    for side in (1.0, -1.0):
        for turn, width in ((hand, across), (QUARTER @ hand, along)):
            rim = point.copy()
            rim[:2] += side * turn[:2, 1] * (width / 2 - 0.005)
            rims.append(Grip(rim, turn))
    return min(rims, key=lambda grip: _in_the_way(bodies, grip, name))


def _in_the_way(bodies: Bodies, grip: Grip, name: str) -> int:
    """How much there is where the open fingers go."""
    reach = np.abs(grip.turn[:2, 1]) * FINGERS[0] + np.abs(grip.turn[:2, 0]) * FINGERS[1]
    low, high = grip.point - np.append(reach, TIP), grip.point + np.append(reach, PALM)
    return bodies.in_the_way(Box(low, high), name)


def pull(bodies: Bodies, hand: np.ndarray, names: Goal) -> Tuple[Phase, ...]:
    """Open a drawer: the tilted hand grasps its handle from the front, which stands out furthest of all its parts."""
    joint = bodies.joints(names[0])[0]
    outwards = -joint.axis  # drawers open towards negative values
    handle = max(bodies.parts(joint.body), key=lambda box: float(outwards @ box.middle))
    point = handle.middle
    level = hand if abs(hand[:2, 1] @ outwards[:2]) > abs(hand[:2, 0] @ outwards[:2]) else QUARTER @ hand
    turn = _rotation(np.cross(DOWN, -outwards), TILT) @ level
    back = -TILT_BACK * turn[:, 2]
    out = point + outwards * (PULL + joint.value)
    away = out + back + np.array([0.0, 0.0, ABOVE])
    return (
        Phase(point + back + np.array([0.0, 0.0, 0.03]), OPEN, 80, turn),
        Phase(point + back, OPEN, 40, turn),
        Phase(point, OPEN, 40, turn),
        Phase(point, CLOSED, 20, turn, waits=True),
        Phase(out, CLOSED, 80, turn),
        Phase(out, OPEN, 8, turn, waits=True),
        Phase(out + back, OPEN, 20, turn),
        Phase(away, OPEN, 40, hand),
    )


def push(bodies: Bodies, hand: np.ndarray, names: Goal) -> Tuple[Phase, ...]:
    """Shut a drawer with the closed hand."""
    joint = bodies.joints(names[0])[0]
    outwards = -joint.axis
    handle = max(bodies.parts(joint.body), key=lambda box: float(outwards @ box.middle))
    point = handle.middle + outwards * 0.06
    over = point + np.array([0.0, 0.0, 0.25])
    shut = point + outwards * (joint.value - 0.06)
    return (
        Phase(over, CLOSED, 80, hand),
        Phase(point, CLOSED, 60, hand),
        Phase(shut, CLOSED, 80, hand),
        Phase(point, CLOSED, 30, hand),
        Phase(over, CLOSED, 40, hand),
    )


def turn_knob(bodies: Bodies, hand: np.ndarray, names: Goal) -> Tuple[Phase, ...]:
    """Grasp a knob's ridge, turn it, let go."""
    joint = bodies.joints(names[0])[0]
    box = bodies.extent(joint.body)
    point = np.array([joint.anchor[0], joint.anchor[1], box.high[2] - 0.012])
    over = point + np.array([0.0, 0.0, ABOVE])
    turned = _rotation(-DOWN, KNOB) @ hand
    return (
        Phase(over, OPEN, 80, hand),
        Phase(point, OPEN, 40, hand),
        Phase(point, CLOSED, 10, hand, waits=True),
        Phase(point, CLOSED, 30, turned, waits=True),
        Phase(point, OPEN, 8, turned, waits=True),
        Phase(over, OPEN, 40, hand),
    )


def _rotation(axis: np.ndarray, angle: float) -> np.ndarray:
    """[3, 3], radians around a vector of any length."""
    x, y, z = axis / np.linalg.norm(axis)
    cross = np.array([[0.0, -z, y], [z, 0.0, -x], [-y, x, 0.0]])
    return np.eye(3) + np.sin(angle) * cross + (1 - np.cos(angle)) * cross @ cross


Skill = Callable[[Bodies, np.ndarray, Goal], Tuple[Phase, ...]]
SKILLS: Dict[str, Skill] = {"turnon": turn_knob, "open": pull, "in": place, "on": place, "close": push}
ORDER = list(SKILLS)  # in which goals are worked on


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
