"""A small arm with six motors and two cameras, simulated in MuJoCo, as an environment of your own.

    wamkit eval arm/run --env examples/arm/env.py:make

Replace the body of each method by calls to your robot or simulator. Everything that crosses this class is in physical
units: angles in radians, gripper opening 0 (closed) to 1 (open), images as upright uint8 RGB.
"""

from __future__ import annotations

import numpy as np
from wamkit_client.envs.base import Env, InitialState, StepResult, Task, checked_action
from wamkit_client.envs.rendering import Renderer, RenderSettings, camera_matrix, choose_platform
from wamkit_client.types import Observation

TASK = Task("take-block", "Take hold of the red block")
JOINTS = ("shoulder_pan", "shoulder_lift", "elbow_flex", "wrist_flex", "wrist_roll", "gripper")
HZ = 15.0
SIZE = 96  # pixels of the square images
HOME = np.array([0.0, 1.9, -2.2, -1.2, 0.0, 1.0])
SHOULDER, UPPER, FORE, HAND = 0.10, 0.16, 0.16, 0.10  # metres: height, and the lengths of the links
FASTEST = np.array([0.08, 0.08, 0.08, 0.08, 0.08, 0.2])  # the expert's, per control step
NEAR = 0.03  # metres between the block and the middle of the fingers: close enough to be held

MODEL = f"""
<mujoco>
  <option timestep="{1 / HZ / 20}" gravity="0 0 0"/>
  <default>
    <geom contype="0" conaffinity="0" rgba=".85 .85 .8 1"/>
    <joint axis="0 -1 0" damping="0.3" armature="0.02"/>
    <position kp="8"/>
  </default>
  <visual><headlight ambient=".5 .5 .5" diffuse=".5 .5 .5"/><map znear="0.02"/></visual>
  <worldbody>
    <geom type="plane" size=".6 .6 .1" rgba=".35 .4 .45 1"/>
    <camera name="image" pos=".55 0 .42" xyaxes="0 1 0 -.72 0 .7" fovy="52"/>
    <camera name="display" pos=".5 -.45 .4" xyaxes=".72 .7 0 -.38 .39 .84"/>
    <body name="block" mocap="true"><geom type="box" size=".02 .02 .02" rgba=".85 .1 .1 1"/></body>
    <body><joint name="shoulder_pan" axis="0 0 1"/>
      <geom type="cylinder" size=".04 .05" pos="0 0 .05" rgba=".2 .2 .2 1"/>
      <body pos="0 0 {SHOULDER}"><joint name="shoulder_lift"/>
        <geom type="capsule" size=".018" fromto="0 0 0 {UPPER} 0 0" rgba=".95 .6 .1 1"/>
        <body pos="{UPPER} 0 0"><joint name="elbow_flex"/>
          <geom type="capsule" size=".015" fromto="0 0 0 {FORE} 0 0"/>
          <body pos="{FORE} 0 0"><joint name="wrist_flex"/>
            <camera name="wrist_image" pos="-.03 0 .06" xyaxes="0 -1 0 .35 0 .94" fovy="60"/>
            <geom type="sphere" size=".018" rgba=".2 .2 .2 1"/>
            <body><joint name="wrist_roll" axis="1 0 0"/>
              <geom type="box" size=".01 .035 .01" pos=".05 0 0" rgba=".2 .2 .2 1"/>
              <body><joint name="gripper" type="slide" axis="0 1 0"/>
                <geom type="box" size=".025 .004 .008" pos=".085 .005 0" rgba=".1 .3 .8 1"/></body>
              <body><joint name="other_finger" type="slide" axis="0 -1 0"/>
                <geom type="box" size=".025 .004 .008" pos=".085 -.005 0" rgba=".1 .3 .8 1"/></body>
              <site name="fingers" size=".001" pos="{HAND} 0 0"/>
            </body></body></body></body></body>
  </worldbody>
  <actuator>
    {"".join(f'<position joint="{name}"/>' for name in JOINTS[:5])}
    <position joint="gripper" kp="200"/><position joint="other_finger" kp="200"/>
  </actuator>
</mujoco>
"""
FINGER = 0.03  # metres that each finger moves when the gripper opens


class Arm(Env):
    """Success: the block is between the fingers and the gripper is closed."""

    embodiment = "six_motor_arm"
    control_hz = HZ
    max_steps = 90
    action_names = JOINTS  # targets of the motors' position controllers
    proprio_names = JOINTS
    view_names = ("image", "wrist_image")

    def __init__(self) -> None:
        choose_platform()
        import mujoco

        self.task, self._mujoco = TASK, mujoco
        self.model = mujoco.MjModel.from_xml_string(MODEL)
        self.data = mujoco.MjData(self.model)
        self._renderer = Renderer(self.model, 256, 256, RenderSettings())
        self._turn = 0.0  # of the block, radians

    def reset(self, seed: int) -> InitialState:
        """The same seed gives the same state, whatever happened before."""
        rng = np.random.default_rng(seed)
        distance, angle, self._turn = rng.uniform((0.16, -0.7, -0.5), (0.25, 0.7, 0.5))
        home = HOME + rng.uniform(-0.1, 0.1, 6) * (1, 1, 1, 1, 1, 0)
        self._mujoco.mj_resetData(self.model, self.data)
        self.data.qpos[:] = motors(home)
        self.data.ctrl[:] = motors(home)
        self.data.mocap_pos[0] = distance * np.cos(angle), distance * np.sin(angle), 0.02
        self.data.mocap_quat[0] = np.cos((angle + self._turn) / 2), 0, 0, np.sin((angle + self._turn) / 2)
        self._mujoco.mj_forward(self.model, self.data)
        return InitialState(TASK.name, seed, (distance, angle, self._turn, *home))

    def observe(self) -> Observation:
        """What the robot's cameras and joints say now."""
        images = {name: self._image(name, SIZE) for name in self.view_names}
        return Observation(images, self.state(), TASK.instruction, self.embodiment)

    def state(self) -> np.ndarray:
        """Joint angles and gripper opening, float32 [6]."""
        return np.append(self.data.qpos[:5], self.data.qpos[5] / FINGER).astype(np.float32)

    def step(self, action: np.ndarray) -> StepResult:
        """One control step; a real robot waits here for the next tick of its clock."""
        self.data.ctrl[:] = motors(checked_action(action, len(JOINTS), "arm"))
        self._mujoco.mj_step(self.model, self.data, nstep=20)
        held = np.linalg.norm(self.block - self.fingers) < NEAR and self.state()[5] < 0.5
        return StepResult(success=bool(held), done=False)

    def idle_action(self, last: np.ndarray | None) -> np.ndarray:
        """The motors keep their targets."""
        return self.state() if last is None else last

    def expert_action(self) -> np.ndarray:
        """Above the block, down, close. A robot without a scripted expert omits this method."""
        away = self.block - self.fingers
        height = 0.06 if np.linalg.norm(away[:2]) > 0.02 else 0.0  # from the side it would push the block
        goal = reach(self.block + np.array([0, 0, height]), self._turn)
        goal[5] = 1.0 if np.linalg.norm(away) > 0.018 else 0.0
        state = self.state()
        return (state + np.clip(goal - state, -FASTEST, FASTEST)).astype(np.float32)

    @property
    def block(self) -> np.ndarray:
        """The middle of the block, metres."""
        return self.data.mocap_pos[0]

    @property
    def fingers(self) -> np.ndarray:
        """The middle between the fingertips, metres."""
        return self.data.site("fingers").xpos

    def _image(self, camera: str, size: int) -> np.ndarray:
        return np.ascontiguousarray(self._renderer.render(self.data, camera, size, size))

    def display(self) -> np.ndarray:
        """For people: what the pages and videos show."""
        return self._image("display", 256)

    def cameras(self) -> dict[str, np.ndarray]:
        """Where the pages draw the path of the fingers."""
        sizes = {**dict.fromkeys(self.view_names, SIZE), "display": 256}
        return {name: camera_matrix(self.model, self.data, name, size, size) for name, size in sizes.items()}

    def chunk_path(self, proprio: np.ndarray, chunk: np.ndarray) -> np.ndarray:
        """Where the fingers would be after each action of a chunk: [k, 3], metres."""
        pan, lift, elbow, wrist = np.asarray(chunk, np.float64).T[:4]
        angles = np.cumsum([lift, elbow, wrist], axis=0)  # of each link above the horizontal
        lengths = np.array([[UPPER], [FORE], [HAND]])
        out, up = (lengths * np.cos(angles)).sum(0), (lengths * np.sin(angles)).sum(0)
        return np.stack([out * np.cos(pan), out * np.sin(pan), SHOULDER + up], axis=1)

    def close(self) -> None:
        """Free the graphics context."""
        self._renderer.close()


def motors(joints: np.ndarray) -> np.ndarray:
    """Angles and gripper opening [6] as positions of the seven motors: each finger has its own."""
    finger = FINGER * joints[5]
    return np.array([*joints[:5], finger, finger])


def reach(point: np.ndarray, turn: float) -> np.ndarray:
    """Joint angles that hold the fingers at a point, pointing down, turned about the vertical."""
    x, y, z = point
    out, up = np.hypot(x, y), z + HAND - SHOULDER
    far = np.hypot(out, up)
    elbow = -np.arccos((far**2 - UPPER**2 - FORE**2) / (2 * UPPER * FORE))
    lift = np.arctan2(up, out) + np.arccos((far**2 + UPPER**2 - FORE**2) / (2 * UPPER * far))
    return np.array([np.arctan2(y, x), lift, elbow, -np.pi / 2 - lift - elbow, turn, 1.0])


def make() -> Env:
    """What `--env` names: a fresh environment."""
    return Arm()
