"""RoboTwin 2.0 (two arms at a table, in SAPIEN): its tasks, and its words in ours.

Cameras are RGB pictures of three views. An action, and the proprio, has for each arm (left first) either its joints
(radians) or the pose of its end effector (metres x, y, z and quaternion w, x, y, z in the world's frame), and then the
gripper (0 closed .. 1 open); every number is a target, none a displacement (Light-WAM spec 3.3, 5.4).

RoboTwin runs episodes itself, with an evaluator of its own; nothing here steps a simulator.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any, Dict, Mapping, Sequence, Tuple

import numpy as np

from wamkit_client.envs.base import Env, EnvConfig, Task
from wamkit_client.types import BadInput, Observation

# View (the dataset's name) -> name in XPolicyLab's observations, name in the simulator's.
CAMERAS = {
    "cam_high": ("cam_head", "head_camera"),
    "cam_left_wrist": ("cam_left_wrist", "left_camera"),
    "cam_right_wrist": ("cam_right_wrist", "right_camera"),
}
ARMS = ("left", "right")
POSE = ("x", "y", "z", "qw", "qx", "qy", "qz")
ARM_KEYS = {"joint": "arm_joint_state", "ee": "ee_pose"}
GRIPPER_KEY = "ee_joint_state"
SIMULATORS_WORDS = {"joint": "qpos", "ee": "ee"}
SMALLEST_QUATERNION = 1e-3

TASKS = (
    "adjust_bottle",
    "beat_block_hammer",
    "blocks_ranking_rgb",
    "blocks_ranking_size",
    "click_alarmclock",
    "click_bell",
    "dump_bin_bigbin",
    "grab_roller",
    "handover_block",
    "handover_mic",
    "hanging_mug",
    "lift_pot",
    "move_can_pot",
    "move_pillbottle_pad",
    "move_playingcard_away",
    "move_stapler_pad",
    "open_laptop",
    "open_microwave",
    "pick_diverse_bottles",
    "pick_dual_bottles",
    "place_a2b_left",
    "place_a2b_right",
    "place_bread_basket",
    "place_bread_skillet",
    "place_burger_fries",
    "place_can_basket",
    "place_cans_plasticbox",
    "place_container_plate",
    "place_dual_shoes",
    "place_empty_cup",
    "place_fan",
    "place_mouse_pad",
    "place_object_basket",
    "place_object_scale",
    "place_object_stand",
    "place_phone_stand",
    "place_shoe",
    "press_stapler",
    "put_bottles_dustbin",
    "put_object_cabinet",
    "rotate_qrcode",
    "scan_object",
    "shake_bottle",
    "shake_bottle_horizontally",
    "stack_blocks_three",
    "stack_blocks_two",
    "stack_bowls_three",
    "stack_bowls_two",
    "stamp_seal",
    "turn_switch",
)


@dataclass(frozen=True)
class RoboTwinConfig(EnvConfig):
    """What the evaluator is told. `seed` 42 begins at the simulator's seed 100000 * (1 + 42) and goes on upwards over
    those that the scripted expert solves; `instructions`: which set an episode's instruction is drawn from."""

    task_config: str
    instructions: str = "unseen"
    seed: int = 42
    embodiment: str = "aloha-agilex"
    simulator: str = "robotwin"

    @property
    def first_seed(self) -> int:
        return 100_000 * (1 + self.seed)

    def prepare(self) -> None:
        raise BadInput(
            "RoboTwin runs its own evaluator, in its own Python: wamkit eval RUN --suite robotwin_clean --robotwin "
            "CHECKOUT; see docs/robotwin.md"
        )

    def make(self, task: Task) -> Env:
        self.prepare()
        raise AssertionError(task)

    def facts(self) -> Dict[str, Any]:
        self.prepare()
        raise AssertionError

    def to_json(self) -> Dict[str, Any]:
        return dataclasses.asdict(self)

    @staticmethod
    def from_json(data: Dict[str, Any]) -> RoboTwinConfig:
        return RoboTwinConfig(**data)


@dataclass(frozen=True)
class Layout:
    """What the numbers of an action and of the proprio are.

    control: "joint" or "ee" (the end effector's pose).  arm: numbers of one arm without its gripper.
    """

    control: str
    arm: int

    @property
    def names(self) -> Tuple[str, ...]:
        """One word per dimension, as a recipe's ActionSpace spells them."""
        own = POSE if self.control == "ee" else tuple(f"joint{i}" for i in range(self.arm))
        return tuple(f"{arm}_{part}" for arm in ARMS for part in (*own, "gripper"))

    def proprio(self, state: Mapping[str, Any]) -> np.ndarray:
        """float32 [2 * (arm + 1)] of an observation's `state`. BadInput where a part is missing or of another size."""
        return np.concatenate([_numbers(state, key, size) for key, size in self._parts()])

    def action(self, row: np.ndarray) -> Dict[str, np.ndarray]:
        """An action by RoboTwin's keys; quaternions, which a policy regresses, brought to unit length.

        BadInput for another width and for a quaternion close to zero, which is no direction.
        """
        sizes = [size for _, size in self._parts()]
        if row.shape != (sum(sizes),):
            raise BadInput(
                f"an action has shape {row.shape}, expected ({sum(sizes)},): {', '.join(self.names)}"
            )
        parts = np.split(row.astype(np.float32), np.cumsum(sizes)[:-1])
        if self.control == "ee":
            parts[0], parts[2] = _unit_pose(parts[0]), _unit_pose(parts[2])
        return {key: part for (key, _), part in zip(self._parts(), parts)}

    def _parts(self) -> Tuple[Tuple[str, int], ...]:
        return tuple(
            part
            for arm in ARMS
            for part in ((f"{arm}_{ARM_KEYS[self.control]}", self.arm), (f"{arm}_{GRIPPER_KEY}", 1))
        )


def layout(names: Sequence[str]) -> Layout:
    """The layout with these names, which are those of a policy's action space. BadInput for names of another robot."""
    for control, arm in (("ee", len(POSE)), ("joint", len(names) // 2 - 1)):
        found = Layout(control, arm)
        if found.names == tuple(names):
            return found
    raise BadInput(
        f"the policy's actions ({', '.join(names)}) are not RoboTwin's; expected for each arm, left first, either "
        "joint0, joint1, ... or x, y, z, qw, qx, qy, qz, and then gripper: left_joint0 ... right_gripper"
    )


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
    if not length > SMALLEST_QUATERNION:
        raise BadInput(
            f"a predicted quaternion is {pose[3:]}, which is no direction; the policy's output is broken"
        )
    return np.concatenate([pose[:3], pose[3:] / np.float32(length)])


def observation(wire: Mapping[str, Any], shape: Layout, embodiment: str, noise_seed: int) -> Observation:
    """An XPolicyLab observation as ours, with the views it has. BadInput names what is missing or malformed."""
    for key, kind in (("vision", dict), ("state", dict), ("instruction", str)):
        if not isinstance(wire.get(key), kind):
            raise BadInput(
                f"the observation's {key!r} is {type(wire.get(key)).__name__}, expected {kind.__name__} "
                "(XPolicyLab's observation v1.0: vision, state, instruction)"
            )
    if not wire["instruction"].strip():
        raise BadInput("the observation's instruction is empty, and a policy is told what to do in words")
    vision = wire["vision"]
    images = {view: _picture(vision[name], name) for view, (name, _) in CAMERAS.items() if name in vision}
    return Observation(images, shape.proprio(wire["state"]), wire["instruction"], embodiment, noise_seed)


def _picture(camera: Any, name: str) -> np.ndarray:
    color = np.asarray(camera["color"] if isinstance(camera, dict) and "color" in camera else None)
    if color.dtype != np.uint8 or color.ndim != 3 or color.shape[2] != 3:
        raise BadInput(
            f"camera {name!r}: expected 'color' as uint8 RGB [h, w, 3], got {color.dtype} {color.shape}"
        )
    return color


def from_simulator(seen: Mapping[str, Any]) -> Dict[str, Any]:
    """What the simulator's `get_obs` returns as XPolicyLab sends it, without the instruction. BadInput names what the
    task config has switched off."""
    for key in ("observation", "joint_action", "endpose"):
        if key not in seen:
            raise BadInput(
                f"the simulator's observation has no {key!r}; switch it on in the task config's data_type"
            )
    joints, poses = seen["joint_action"], seen["endpose"]
    state: Dict[str, np.ndarray] = {}
    for arm in ARMS:
        if f"{arm}_arm" in joints:
            state[f"{arm}_arm_joint_state"] = np.asarray(joints[f"{arm}_arm"], np.float32)
            state[f"{arm}_{GRIPPER_KEY}"] = np.asarray([joints[f"{arm}_gripper"]], np.float32)
        if f"{arm}_endpose" in poses:
            state[f"{arm}_ee_pose"] = np.asarray(poses[f"{arm}_endpose"], np.float32)
            state[f"{arm}_{GRIPPER_KEY}"] = np.asarray([poses[f"{arm}_gripper"]], np.float32)
    cameras = seen["observation"]
    vision = {
        name: {"color": np.asarray(cameras[simulators]["rgb"])}
        for name, simulators in CAMERAS.values()
        if "rgb" in cameras.get(simulators, {})
    }
    return {"vision": vision, "state": state}


def for_simulator(action: Mapping[str, np.ndarray]) -> Tuple[np.ndarray, str]:
    """An action by RoboTwin's keys as the vector and the word that the simulator's `take_action` takes."""
    control = "ee" if "left_ee_pose" in action else "joint"
    keys = [f"{arm}_{key}" for arm in ARMS for key in (ARM_KEYS[control], GRIPPER_KEY)]
    return np.concatenate([np.asarray(action[key], np.float32) for key in keys]), SIMULATORS_WORDS[control]
