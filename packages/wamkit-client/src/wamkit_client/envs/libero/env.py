"""LIBERO: a Panda arm at tables and on floors, 130 tasks, with the conventions of the published data and scores.

Actions [7]: hand displacement x, y, z (1 = 5 cm), rotation vector x, y, z (1 = 0.5 rad), both in the world's frame and
clipped to [-1, 1] by the controller, and the gripper, 1 = open, 0 = closed, or, for policies that call it
"gripper_closing", 1 = closed, 0 = open (the simulator's own is -1 open, 1 closed; values between are rounded to the
nearer end). Proprio [8]: hand position (metres), its rotation vector (radians),
positions of the two fingers (metres). Views: "image" (agentview) and "wrist_image", rendered by robosuite and turned by
180 degrees as in the published data. Success is LIBERO's own goal check after a step.

Seeds 0 to 49 begin from the published initial states; from 1000 on the scene is drawn anew from the seed, as LIBERO
draws it. Published states do not include where fixtures (cabinet, stove, shelf) stand: `fixtures` says which draw of
`scene_seed` places them.
"""

from __future__ import annotations

from copy import copy
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Dict, List, Optional, Sequence

import numpy as np

from wamkit_client.envs.base import Env, EnvConfig, InitialState, StepResult, Task, checked_action
from wamkit_client.envs.libero import install as libero_install
from wamkit_client.envs.libero import plus
from wamkit_client.envs.libero.expert import Expert
from wamkit_client.envs.libero.perturbations import KINDS, stage
from wamkit_client.envs.libero.scenes import Scenes
from wamkit_client.envs.perturbations import UNPERTURBED, Fate, Kinds, Perturbation, check_known
from wamkit_client.envs.rendering import camera_matrix, choose_platform
from wamkit_client.types import BadInput, Observation

METRES_PER_UNIT = 0.05
CAMERAS = {"image": "agentview", "wrist_image": "robot0_eye_in_hand", "display": "agentview"}
PHYSICS_STEPS = 1000  # what the simulator allows after a reset
PUBLISHED_STATES = 50  # per task
FIXTURES = ("fixed", "per_trial")
GRIPPERS = {
    "gripper": 1.0,
    "gripper_closing": 0.0,
}  # its name among a policy's actions -> the command for open


@dataclass(frozen=True)
class LiberoConfig(EnvConfig):
    """Everything that images and initial states depend on; sizes in pixels.

    settle_steps: control steps of no motion with an open gripper between reset and the first observation.
    fixtures: "per_trial": trial k (published state k) finds the fixtures where reset k + 1 after seeding a fresh
    environment with scene_seed puts them, as in the published loops, which seed once per task and reset before every
    trial. "fixed": every trial finds them where the first of these resets puts them. BadInput for another word.
    gripper: what the last number of an action is, "gripper" or "gripper_closing".
    perturbation: what goes wrong in every episode (perturbations.py). BadInput for one that there is not.
    """

    view_height: int = 256
    view_width: int = 256
    display_height: int = 256
    display_width: int = 256
    first_demonstration_seed: ClassVar[int] = 1000
    control_hz: ClassVar[float] = 20.0
    settle_steps: int = 30
    scene_seed: int = 42
    simulator: str = "libero"
    embodiment: str = "panda"
    fixtures: str = "fixed"
    gripper: str = "gripper"
    perturbation: Perturbation = UNPERTURBED  # type: ignore[misc]
    perturbations: ClassVar[Kinds] = KINDS

    def __post_init__(self) -> None:
        check_known(self.perturbation, self.perturbations)
        for name, known in (("fixtures", FIXTURES), ("gripper", GRIPPERS)):
            word = getattr(self, name)
            if word not in known:
                raise BadInput(f"{name}: {word!r}; expected one of {', '.join(known)}")

    def acted_by(self, names: Sequence[str]) -> LiberoConfig:
        last = names[-1] if names else ""
        return replace(self, gripper=last) if last in GRIPPERS else self

    def check_seeds(self, seeds: range) -> None:
        drawn = seeds.start >= self.first_demonstration_seed
        if seeds and not drawn and not 0 <= seeds.start <= seeds[-1] < PUBLISHED_STATES:
            raise BadInput(
                f"LIBERO: seeds {seeds.start} to {seeds[-1]}; a task has {PUBLISHED_STATES} published initial states "
                f"(seeds 0 to {PUBLISHED_STATES - 1}), so ask for at most {PUBLISHED_STATES} trials; seeds from "
                f"{self.first_demonstration_seed} on begin from new scenes"
            )

    def prepare(self) -> None:
        libero_install.find_installation()
        libero_install.check_mujoco()
        choose_platform()

    def make(self, task: Task) -> Libero:
        return Libero(self, task)

    def facts(self) -> Dict[str, Any]:
        self.prepare()
        return {
            "simulator": self.simulator,
            "versions": libero_install.versions(),
            "opengl": choose_platform(),
            "control_hz": self.control_hz,
            "actions": "delta xyz (5 cm per unit), rotation vector (0.5 rad per unit), "
            + ("gripper 1 open 0 closed" if GRIPPERS[self.gripper] else "gripper 1 closed 0 open"),
            "success": "LIBERO's goal check after a step ends the episode",
        }

    def warnings(self) -> List[str]:
        return libero_install.warnings()

    @classmethod
    def from_json(cls, data: Dict[str, Any]) -> LiberoConfig:
        told = data.get("perturbation")
        return cls(**{**data, "perturbation": Perturbation.from_json(told) if told else UNPERTURBED})


class Libero(Env):
    """One LIBERO task in one process, with its own graphics context."""

    control_hz = LiberoConfig.control_hz
    action_names = ("x", "y", "z", "roll", "pitch", "yaw", "gripper")
    proprio_names = ("x", "y", "z", "rx", "ry", "rz", "finger_left", "finger_right")
    view_names = ("image", "wrist_image")

    def __init__(self, config: LiberoConfig, task: Task) -> None:
        config.prepare()
        installation = libero_install.find_installation()
        bddl = installation.bddl(task.group, task.name)
        if not bddl.is_file():
            raise BadInput(f"LIBERO has no task {task.name!r} in suite {task.group!r}; expected {bddl}")
        self.config, self.task, self.embodiment = config, task, config.embodiment
        self.action_names = (*self.action_names[:-1], config.gripper)
        self._open = GRIPPERS[config.gripper]
        self.max_steps = PHYSICS_STEPS - config.settle_steps
        self._states = installation.initial_states(task.group, task.name)
        control_env = libero_install.control_env()
        self._scenes = Scenes(
            lambda: control_env(bddl_file_name=str(bddl), use_camera_obs=False, horizon=PHYSICS_STEPS)
        )
        self.simulator = self._scenes.simulator
        self._change = plus.change(task)
        self._change.prepare(self.simulator.env)
        self._moment = Moment(self.simulator.env)
        self._sensed: Dict[str, np.ndarray] = {}
        self._expert = Expert(self.simulator)
        self._fate = Fate(config.perturbation, config.perturbations)

    def reset(self, seed: int) -> InitialState:
        self.config.check_seeds(range(seed, seed + 1))
        if seed < PUBLISHED_STATES:
            return self.reset_to(self._states[seed], seed, seed)
        self._sensed = self._scenes.reset(seed)
        return self._begin(seed)

    def reset_to(self, state: np.ndarray, seed: int, trial: int = 0) -> InitialState:
        """Begin from a flattened simulator state.

        seed: reported with the initial state.  trial: whose fixture placement to use where `fixtures` is "per_trial".
        """
        self._scenes.reset(self.config.scene_seed, trial if self.config.fixtures == "per_trial" else 0)
        expected = len(self.simulator.get_sim_state())
        if len(state) != expected:
            raise BadInput(
                f"LIBERO task {self.task.name}: a state of {len(state)} numbers, expected {expected}; it belongs to "
                "another task or another version of LIBERO"
            )
        self._sensed = self.simulator.set_init_state(state)
        return self._begin(seed)

    def _begin(self, seed: int) -> InitialState:
        self._seed = seed
        self._change.begin(self.simulator.sim.model._model, CAMERAS["image"])
        self._fate.begin(stage(self.simulator, self.idle_action(None), self.control_hz), seed)
        positions = np.array(self.simulator.sim.data.qpos, dtype=np.float64)
        for _ in range(self.config.settle_steps):
            self._sensed = self.simulator.step(np.array([0.0] * 6 + [-1.0]))[0]
        if self.task.expert_steps:
            self._expert.begin(self._sensed)
        return InitialState(self.task.name, seed, tuple(float(value) for value in positions))

    def observe(self) -> Observation:
        config = self.config
        images = {view: self._image(view, config.view_height, config.view_width) for view in self.view_names}
        images["image"] = self._change.seen(images["image"], self._seed, self.simulator.env.timestep)
        told = Observation(images, proprio(self._sensed), self.task.instruction, self.embodiment)
        return self._fate.seen(told)

    def step(self, action: np.ndarray) -> StepResult:
        values = self._fate.told(
            checked_action(action, len(self.action_names), f"LIBERO task {self.task.name}")
        )
        command = np.append(values[:6], np.sign((2 * values[6] - 1) * (1 - 2 * self._open)))
        self._sensed, _, success, _ = self.simulator.step(command)
        if not np.isfinite(self.simulator.sim.data.qpos).all():
            raise RuntimeError(f"LIBERO task {self.task.name}: the physics diverged")
        return StepResult(success=bool(success), done=bool(self.simulator.env.done))

    def idle_action(self, last: Optional[np.ndarray]) -> np.ndarray:
        """The gripper keeps its command; it is open after a reset."""
        return np.array([0.0] * 6 + [self._open if last is None else last[6]], np.float32)

    def expert_action(self) -> np.ndarray:
        if not self.task.expert_steps:
            raise BadInput(
                f"no scripted expert can do LIBERO task {self.task.name} of {self.task.group}; docs/libero.md has "
                "a table of those that have one"
            )
        action = self._expert.action(self._sensed)
        action[6] = abs(action[6] - 1 + self._open)  # its own is 1 for open
        return action

    def display(self) -> np.ndarray:
        return self._image("display", self.config.display_height, self.config.display_width)

    def _image(self, view: str, height: int, width: int) -> np.ndarray:
        """robosuite's rows run from the bottom up: reversed rows are upright, and the published data's columns are
        mirrored."""
        sim = self.simulator.sim
        context = sim._render_context_offscreen
        context.gl_ctx.make_current()  # robosuite renders into whichever context was created last
        live, context.data = context.data, self._moment
        image = sim.render(camera_name=CAMERAS[view], width=width, height=height)
        context.data = live
        return np.ascontiguousarray(image[::-1, ::-1])

    def cameras(self) -> Dict[str, np.ndarray]:
        config = self.config
        sizes = dict.fromkeys(self.view_names, (config.view_height, config.view_width))
        sizes["display"] = (config.display_height, config.display_width)
        return {view: self._matrix(view, *size) for view, size in sizes.items()}

    def _matrix(self, view: str, height: int, width: int) -> np.ndarray:
        model = self.simulator.sim.model._model
        matrix = camera_matrix(model, self._moment._data, CAMERAS[view], height, width)
        mirror = np.array([[-1.0, 0.0, width], [0.0, 1.0, 0.0], [0.0, 0.0, 1.0]])
        return mirror @ matrix

    def chunk_path(self, proprio: np.ndarray, chunk: np.ndarray) -> np.ndarray:
        """Path of the point between the fingertips as commanded; the arm lags behind and stops at obstacles."""
        moves = np.clip(np.asarray(chunk, dtype=np.float64)[:, :3], -1.0, 1.0) * METRES_PER_UNIT
        return np.asarray(proprio, dtype=np.float64)[:3] + np.cumsum(moves, axis=0)

    def close(self) -> None:
        self._scenes.close()
        self.simulator.close()


class Moment:
    """The simulator's state at the moment at which robosuite reads its sensors: 2 ms before a control step ends.

    Images of that moment equal robosuite's own, which it would render at every step, needed or not. This is registered
    as one more sensor; `_data` is the name under which robosuite's renderer looks up the state.
    """

    def __init__(self, env: Any) -> None:
        from robosuite.utils.observables import Observable, sensor

        self._env = env
        self._data: Any = None

        @sensor(modality="moment")
        def keep(obs_cache: Dict[str, Any]) -> int:
            self._keep()
            return 0

        env.add_observable(Observable("moment", keep, sampling_rate=env.control_freq))

    def _keep(self) -> None:
        self._data = copy(self._env.sim.data._data)


def proprio(sensed: Dict[str, np.ndarray]) -> np.ndarray:
    """float32 [8] from robosuite's readings: position, rotation vector, finger positions."""
    rotation = rotation_vector(sensed["robot0_eef_quat"])
    parts = (sensed["robot0_eef_pos"], rotation, sensed["robot0_gripper_qpos"])
    return np.concatenate(parts).astype(np.float32)


def rotation_vector(quaternion: np.ndarray) -> np.ndarray:
    """Axis times angle (radians, 0 to 2 pi) of a quaternion x, y, z, w; zero where there is no rotation."""
    w = float(np.clip(quaternion[3], -1.0, 1.0))
    sine = np.sqrt(1.0 - w * w)
    if np.isclose(sine, 0.0):
        return np.zeros(3)
    return np.asarray(quaternion[:3]) * 2.0 * np.arccos(w) / sine
