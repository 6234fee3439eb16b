"""What is where in a LIBERO scene, read from the simulator: extents of objects, surfaces, joints of doors and knobs.

Knows names of LIBERO's task files, no robot's action and no plan.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Iterator, List, Tuple

import numpy as np

ROBOT = ("robot0", "gripper0", "mount0")  # how the names of its bodies begin
COLLISION = 0  # the group of geometry that touches


@dataclass(frozen=True)
class Box:
    """Extent in the world, metres: low and high corner."""

    low: np.ndarray
    high: np.ndarray

    @property
    def middle(self) -> np.ndarray:
        return (self.low + self.high) / 2

    @property
    def size(self) -> np.ndarray:
        return self.high - self.low

    def overlaps(self, other: Box) -> bool:
        return bool((self.low < other.high).all() and (other.low < self.high).all())


@dataclass(frozen=True)
class Joint:
    """A drawer's slide or a knob's hinge. body: its name. value: metres or radians. axis: positive motion, or turn."""

    body: str
    value: float
    anchor: np.ndarray
    axis: np.ndarray


class Bodies:
    """The scene of one environment. simulator: LIBERO's ControlEnv."""

    def __init__(self, simulator: Any) -> None:
        self._env = simulator.env

    def goals(self) -> List[Tuple[str, ...]]:
        """What the task asks for and is not yet so, as in its file: ("on", "bowl_1", "plate_1"), ("open", ...)."""
        asked = [tuple(goal) for goal in self._env.parsed_problem["goal_state"]]
        return [goal for goal in asked if not self.holds(goal)]

    def holds(self, goal: Tuple[str, ...]) -> bool:
        """Whether it is so now."""
        return bool(self._env._eval_predicate(list(goal)))

    def box(self, name: str) -> Box:
        """Of an object's or a fixture's collision geometry."""
        known = {**self._env.objects_dict, **self._env.fixtures_dict}
        return self.extent(known[name].root_body)

    def extent(self, body: str) -> Box:
        """Of a body's collision geometry and of all that belongs to it."""
        model = self._model
        root = model.body(body).id
        boxes = [
            self._geom(geom) for geom in self._touching() if _belongs(model, model.geom_bodyid[geom], root)
        ]
        return Box(
            np.min([box.low for box in boxes], axis=0),
            np.max([box.high for box in boxes], axis=0),
        )

    def parts(self, body: str) -> List[Box]:
        """Of a body's own collision geometry, each by itself."""
        model = self._model
        return [
            self._geom(geom) for geom in self._touching() if model.body(model.geom_bodyid[geom]).name == body
        ]

    def is_region(self, name: str) -> bool:
        """Whether it is a place on or in something, and not a thing."""
        return name in self._env.object_sites_dict

    def owner(self, region: str) -> str:
        """The thing that a region belongs to: "basket_1" of "basket_1_contain_region"; "" for a place on the table."""
        return str(self._env.object_sites_dict[region].parent_name or "")

    def is_fixture(self, name: str) -> bool:
        return name in self._env.fixtures_dict

    def centre(self, region: str) -> np.ndarray:
        """Of a region, metres [3]."""
        return np.array(self._data.site(region).xpos)

    def joints(self, name: str) -> List[Joint]:
        """Of a region (a drawer) or a fixture (a stove); none of a place that nothing opens."""
        owner = self._env.object_sites_dict if self.is_region(name) else self._env.fixtures_dict
        names = owner[name].joints or ()  # LIBERO gives places on tables None
        model, data = self._model, self._data
        found = [model.joint(joint).id for joint in names]
        return [
            Joint(
                model.body(model.jnt_bodyid[i]).name,
                float(data.qpos[model.jnt_qposadr[i]]),
                data.xanchor[i].copy(),
                data.xaxis[i].copy(),
            )
            for i in found
        ]

    def surface(self, point: np.ndarray, height: float) -> float:
        """How high the highest thing at `point` (x, y) is, looking down from `height`; the robot is looked through."""
        inside = [
            box.high[2]
            for _, box in self._others(())
            if (box.low[:2] <= point[:2]).all() and (point[:2] <= box.high[:2]).all()
        ]
        return max(top for top in inside if top < height)

    def in_the_way(self, space: Box, *ignored: str) -> int:
        """How many pieces of geometry reach into a space, those of some objects ignored."""
        return sum(box.overlaps(space) for _, box in self._others(ignored))

    @property
    def _model(self) -> Any:
        return self._env.sim.model._model

    @property
    def _data(self) -> Any:
        return self._env.sim.data._data

    def _touching(self) -> Iterator[int]:
        model = self._model
        return (geom for geom in range(model.ngeom) if model.geom_group[geom] == COLLISION)

    def _others(self, ignored: Tuple[str, ...]) -> Iterator[Tuple[int, Box]]:
        """Collision geometry but the robot's and that of some objects."""
        model = self._model
        roots = [model.body(self._env.objects_dict[name].root_body).id for name in ignored]
        for geom in self._touching():
            body = int(model.geom_bodyid[geom])
            own = any(_belongs(model, body, root) for root in roots)
            if not own and not model.body(body).name.startswith(ROBOT):
                yield geom, self._geom(geom)

    def _geom(self, geom: int) -> Box:
        centre, half = self._model.geom_aabb[geom, :3], self._model.geom_aabb[geom, 3:]
        signs = np.array(np.meshgrid(*[(-1.0, 1.0)] * 3)).reshape(3, -1).T
        corners = (centre + signs * half) @ self._data.geom_xmat[geom].reshape(3, 3).T + self._data.geom_xpos[
            geom
        ]
        return Box(corners.min(axis=0), corners.max(axis=0))


def _belongs(model: Any, body: int, root: int) -> bool:
    while body not in (root, 0):
        body = int(model.body_parentid[body])
    return body == root
