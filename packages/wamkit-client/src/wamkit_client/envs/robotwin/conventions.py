"""RoboTwin 2.0 (two arms at a table, in SAPIEN): its tasks, its observations and its actions.

Images are RGB from three cameras. An action, and the proprio, has for each arm (left first) either its joints (radians)
or the pose of its end effector (metres x, y, z and quaternion w, x, y, z in the world frame), and then the gripper
(0 closed .. 1 open); all are absolute targets (Light-WAM spec 3.3, 5.4).

RoboTwin runs episodes itself, with its own evaluator; nothing here steps a simulator.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Dict, Mapping, NoReturn, Sequence, Tuple

import numpy as np

from wamkit_client.envs.base import EnvConfig, Task
from wamkit_client.types import BadInput, Observation

TASKS: Tuple[str, ...] = tuple(json.loads(Path(__file__).with_name("tasks.json").read_text()))

# View (the dataset's name) -> name in XPolicyLab's observations, name in the simulator's.
CAMERAS = {
    "cam_high": ("cam_head", "head_camera"),
    "cam_left_wrist": ("cam_left_wrist", "left_camera"),
    "cam_right_wrist": ("cam_right_wrist", "right_camera"),
}
ARMS = ("left", "right")
POSE = ("x", "y", "z", "qw", "qx", "qy", "qz")
GRIPPER_KEY = "ee_joint_state"
SMALLEST_QUATERNION = 1e-3


@dataclass(frozen=True)
class Control:
    """What an arm is controlled by. key: of XPolicyLab's state and action.  word: `take_action`'s.

    section, part: where the simulator's observation has it.  targets: what results say of the actions.
    """

    key: str
    word: str
    section: str
    part: str
    targets: str


CONTROLS = {
    "joint": Control("arm_joint_state", "qpos", "joint_action", "arm", "absolute joint targets"),
    "ee": Control(
        "ee_pose", "ee", "endpose", "endpose", "absolute end-effector poses, reached by the planner"
    ),
}


@dataclass(frozen=True)
class RoboTwinConfig(EnvConfig):
    """What the evaluator is told. seed: 42 begins at the simulator's seed 100000 * (1 + 42) and goes on upwards over
    those that the scripted expert solves.  instructions: the set that an episode's instruction is drawn from, "seen" or
    "unseen"."""

    task_config: str
    instructions: str = "unseen"
    seed: int = 42
    embodiment: str = "aloha-agilex"
    simulator: str = "robotwin"

    @property
    def first_seed(self) -> int:
        return 100_000 * (1 + self.seed)

    def prepare(self) -> NoReturn:
        raise BadInput(
            "RoboTwin runs its own evaluator, in its own Python: wamkit eval RUN --suite robotwin_clean --robotwin "
            "CHECKOUT; see docs/robotwin.md"
        )

    def make(self, task: Task) -> NoReturn:
        self.prepare()

    def facts(self) -> NoReturn:
        self.prepare()


@dataclass(frozen=True)
class Layout:
    """What the numbers of an action and of the proprio are.

    control: "joint" or "ee" (the end effector's pose).  arm: numbers of one arm without its gripper.
    """

    control: str
    arm: int

    @property
    def names(self) -> Tuple[str, ...]:
        """One name per dimension, as a recipe's ActionSpace has them."""
        own = POSE if self.control == "ee" else tuple(f"joint{i}" for i in range(self.arm))
        return tuple(f"{arm}_{part}" for arm in ARMS for part in (*own, "gripper"))

    @property
    def sizes(self) -> Dict[str, int]:
        """Numbers by XPolicyLab's key, in the order of `names`."""
        own = {CONTROLS[self.control].key: self.arm, GRIPPER_KEY: 1}
        return {f"{arm}_{key}": size for arm in ARMS for key, size in own.items()}

    def proprio(self, state: Mapping[str, Any]) -> np.ndarray:
        """float32 [2 * (arm + 1)] of an observation's `state`. BadInput where a part is missing or of another size."""
        return np.concatenate([_numbers(state, key, size) for key, size in self.sizes.items()])

    def action(self, row: np.ndarray) -> Dict[str, np.ndarray]:
        """An action [2 * (arm + 1)] by XPolicyLab's keys; quaternions, which a policy regresses, are normalised.

        BadInput for another width and for a quaternion close to zero, which is no direction.
        """
        sizes = self.sizes
        width = sum(sizes.values())
        if row.shape != (width,):
            raise BadInput(f"an action has shape {row.shape}, expected ({width},): {', '.join(self.names)}")
        parts = np.split(row.astype(np.float32), np.cumsum(list(sizes.values()))[:-1])
        if self.control == "ee":
            parts[0], parts[2] = _unit_pose(parts[0]), _unit_pose(parts[2])
        return dict(zip(sizes, parts))


def layout_of(names: Sequence[str]) -> Layout:
    """The layout of a policy's action space. BadInput for the names of another robot."""
    for found in (Layout("ee", len(POSE)), Layout("joint", len(names) // 2 - 1)):
        if found.names == tuple(names):
            return found
    raise BadInput(
        f"the policy's actions ({', '.join(names)}) are not RoboTwin's; expected for each arm, left first, either "
        "joint0, joint1, ... or x, y, z, qw, qx, qy, qz, and then gripper: left_joint0 ... right_gripper"
    )


def to_observation(wire: Mapping[str, Any], layout: Layout, embodiment: str, noise_seed: int) -> Observation:
    """XPolicyLab's observation as ours, with the views it has. BadInput names what is missing or malformed."""
    for key, kind in (("vision", dict), ("state", dict), ("instruction", str)):
        if not isinstance(wire.get(key), kind):
            raise BadInput(
                f"the observation's {key!r} is {type(wire.get(key)).__name__}, expected {kind.__name__} "
                "(XPolicyLab's observation v1.0: vision, state, instruction)"
            )
    if not wire["instruction"].strip():
        raise BadInput("the observation's instruction is empty, and a policy is told what to do in words")
    vision = wire["vision"]
    images = {view: _image(vision[name], name) for view, (name, _) in CAMERAS.items() if name in vision}
    return Observation(images, layout.proprio(wire["state"]), wire["instruction"], embodiment, noise_seed)


def from_simulator(seen: Mapping[str, Any]) -> Dict[str, Any]:
    """What the simulator's `get_obs` returns as XPolicyLab sends it, without the instruction. BadInput names what the
    task config has switched off."""
    for key in ("observation", "joint_action", "endpose"):
        if key not in seen:
            raise BadInput(
                f"the simulator's observation has no {key!r}; switch it on in the task config's data_type"
            )
    state: Dict[str, np.ndarray] = {}
    for control in CONTROLS.values():
        own = seen[control.section]
        for arm in ARMS:
            if f"{arm}_{control.part}" in own:
                state[f"{arm}_{control.key}"] = np.asarray(own[f"{arm}_{control.part}"], np.float32)
                state[f"{arm}_{GRIPPER_KEY}"] = np.asarray([own[f"{arm}_gripper"]], np.float32)
    cameras = seen["observation"]
    vision = {
        name: {"color": np.asarray(cameras[simulators]["rgb"])}
        for name, simulators in CAMERAS.values()
        if "rgb" in cameras.get(simulators, {})
    }
    return {"vision": vision, "state": state}


def for_simulator(action: Mapping[str, np.ndarray]) -> Tuple[np.ndarray, str]:
    """An action by XPolicyLab's keys as the vector and the word that the simulator's `take_action` takes."""
    control = CONTROLS["ee" if "left_ee_pose" in action else "joint"]
    keys = [f"{arm}_{key}" for arm in ARMS for key in (control.key, GRIPPER_KEY)]
    return np.concatenate([np.asarray(action[key], np.float32) for key in keys]), control.word


def _numbers(state: Mapping[str, Any], key: str, size: int) -> np.ndarray:
    if key not in state:
        raise BadInput(
            f"the observation's state has no {key!r}; it has: {', '.join(map(str, state)) or 'nothing'}"
        )
    given = np.asarray(state[key])
    if given.shape != (size,) or given.dtype.kind not in "iuf":
        raise BadInput(
            f"state {key!r}: expected {size} finite numbers, got {given.dtype} of shape {given.shape}; "
            "the policy was trained for a robot with other arms, or the simulator is broken"
        )
    with np.errstate(over="ignore"):
        values = given.astype(np.float32)
    broken = ~np.isfinite(values)
    if broken.any():
        raise BadInput(
            f"state {key!r}: expected {size} finite numbers of float32's range, number {broken.argmax()} is "
            f"{given[broken.argmax()]:g}; the simulator that sent it is broken"
        )
    return values


def _unit_pose(pose: np.ndarray) -> np.ndarray:
    length = float(np.linalg.norm(pose[3:]))
    if not length > SMALLEST_QUATERNION:  # NaN too
        raise BadInput(
            f"a predicted quaternion is {pose[3:]}, which is no direction; the policy's output is broken"
        )
    return np.concatenate([pose[:3], pose[3:] / np.float32(length)])


def _image(camera: Any, name: str) -> np.ndarray:
    color = np.asarray(camera["color"] if isinstance(camera, dict) and "color" in camera else None)
    if color.dtype != np.uint8 or color.ndim != 3 or color.shape[2] != 3:
        raise BadInput(
            f"camera {name!r}: expected 'color' as uint8 RGB [h, w, 3], got {color.dtype} {color.shape}"
        )
    return color
