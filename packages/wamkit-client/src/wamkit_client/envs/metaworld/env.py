"""Meta-World v3: a Sawyer arm at a table, 50 tasks, with the conventions of LeRobot's published data and scores.

Actions [4]: hand displacement x, y, z in units of 1 cm per step, and gripper effort (-1 open .. 1 close), each in
[-1, 1]; the simulator clips what exceeds that range, and so does this adapter. At a lower control rate an action lasts
several steps of the simulator: displacements are divided equally among them and may be larger by as much, the gripper's
effort is held. Proprio [4]: hand x, y, z (metres),
gripper opening (0 closed .. 1 open). View "corner2" is moved to (0.75, 0.075, 0.7) and turned by 180 degrees
(the simulator mounts it upside down); "gripperPOV" is unchanged. Success is info["success"] at a step.
One random vector, drawn from the seed, determines the state after a reset.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from importlib import metadata
from importlib.util import find_spec
from typing import Any, ClassVar, Dict, Optional, Tuple

import numpy as np

from wamkit_client.envs.base import Env, EnvConfig, InitialState, StepResult, Task, checked_action
from wamkit_client.envs.metaworld.perturbations import BACKDROP, KINDS
from wamkit_client.envs.perturbations import UNPERTURBED, Fate, Kinds, Perturbation, Stage, check_known
from wamkit_client.envs.rendering import Renderer, RenderSettings, camera_matrix, choose_platform
from wamkit_client.types import BadInput, Observation

SIMULATOR_HZ = 80.0
SIMULATOR_STEPS = 500
METRES_PER_UNIT = 0.01
FINGERTIPS_BELOW_HAND = 0.045
CENTRE = (0.0, 0.7, 0.1)  # of the table's part where objects stand, metres
LATER: Dict[str, Any] = {"control_hz": SIMULATOR_HZ}
"""Fields that results and collections of older versions do not have, and what these mean by that."""


@dataclass(frozen=True)
class MetaWorldConfig(EnvConfig):
    """Everything that images depend on. `views` are the simulator's camera names; sizes in pixels.

    control_hz: actions per second, 80 or a whole part of it. BadInput for others.
    perturbation: what goes wrong in every episode (perturbations.py). BadInput for one that there is not.
    """

    views: Tuple[str, ...] = ("corner2", "gripperPOV")
    view_height: int = 64
    view_width: int = 64
    display_view: str = "corner2"
    display_height: int = 256
    display_width: int = 256
    corner2_position: Tuple[float, float, float] = (0.75, 0.075, 0.7)
    turned: Tuple[str, ...] = ("corner2",)
    render: RenderSettings = RenderSettings()
    simulator: str = "metaworld"
    embodiment: str = "metaworld_sawyer"
    control_hz: float = SIMULATOR_HZ  # type: ignore[misc]
    perturbation: Perturbation = UNPERTURBED  # type: ignore[misc]
    perturbations: ClassVar[Kinds] = KINDS

    def __post_init__(self) -> None:
        check_known(self.perturbation, self.perturbations)
        if self.control_hz <= 0 or SIMULATOR_HZ % self.control_hz:
            raise BadInput(
                f"control_hz is {self.control_hz:g}, expected {SIMULATOR_HZ:g}, the simulator's, or a whole part of it"
            )

    @property
    def repeat(self) -> int:
        """Steps of the simulator that an action lasts."""
        return round(SIMULATOR_HZ / self.control_hz)

    def prepare(self) -> None:
        if find_spec("metaworld") is None:
            raise BadInput(
                "Meta-World is not installed; install it with: pip install 'wamkit-client[metaworld]'"
            )
        choose_platform()

    def make(self, task: Task) -> MetaWorld:
        return MetaWorld(self, task)

    def facts(self) -> Dict[str, Any]:
        self.prepare()
        return {
            "simulator": self.simulator,
            "versions": {
                name: metadata.version(name) for name in ("metaworld", "mujoco", "gymnasium", "numpy")
            },
            "opengl": choose_platform(),
            "control_hz": self.control_hz,
            "actions": "delta xyz (1 cm per unit) and gripper effort, clipped to [-1, 1]"
            + (f"; delta divided among {self.repeat} steps of the simulator" if self.repeat > 1 else ""),
            "success": 'info["success"] at a step ends the episode',
        }

    def to_json(self) -> Dict[str, Any]:
        """Every field but those that are as in results from before they existed."""
        return {name: value for name, value in super().to_json().items() if LATER.get(name, ...) != value}

    @classmethod
    def from_json(cls, data: Dict[str, Any]) -> MetaWorldConfig:
        values: Dict[str, Any] = {
            key: tuple(value) if type(value) is list else value for key, value in data.items()
        }
        values["render"] = RenderSettings(**data["render"])
        if "perturbation" in data:
            values["perturbation"] = Perturbation.from_json(data["perturbation"])
        return cls(**values)


class MetaWorld(Env):
    """One Meta-World task in one process, with its own graphics context."""

    action_names = ("x", "y", "z", "gripper")
    proprio_names = ("x", "y", "z", "gripper")

    def __init__(self, config: MetaWorldConfig, task: Task) -> None:
        config.prepare()
        from metaworld.env_dict import ALL_V3_ENVIRONMENTS_GOAL_OBSERVABLE
        from metaworld.policies import ENV_POLICY_MAP

        if task.name not in ENV_POLICY_MAP:
            raise BadInput(
                f"Meta-World has no task {task.name!r}; it has: {', '.join(sorted(ENV_POLICY_MAP))}"
            )
        self.config, self.task = config, task
        self.embodiment, self.view_names = config.embodiment, config.views
        self.control_hz, self.max_steps = config.control_hz, SIMULATOR_STEPS // config.repeat
        self._share = np.array([config.repeat] * 3 + [1])  # of an action that a step of the simulator does
        self.simulator = ALL_V3_ENVIRONMENTS_GOAL_OBSERVABLE[task.name + "-goal-observable"](seed=0)
        self._expert = ENV_POLICY_MAP[task.name]()
        self._check_cameras()
        self.simulator.model.cam_pos[self.simulator.model.camera("corner2").id] = config.corner2_position
        height = max(config.view_height, 2 * config.display_height)
        width = max(config.view_width, 2 * config.display_width)
        self._renderer = Renderer(self.simulator.model, height, width, config.render)
        self._fate = Fate(config.perturbation, config.perturbations)
        self._state = np.zeros(39)

    def _check_cameras(self) -> None:
        model = self.simulator.model
        known = [model.camera(index).name for index in range(model.ncam)]
        for view in (*self.config.views, self.config.display_view):
            if view not in known:
                raise BadInput(f"Meta-World has no camera {view!r}; it has: {', '.join(known)}")

    def reset(self, seed: int) -> InitialState:
        simulator = self.simulator
        self._fate.begin(self._stage(), seed)
        simulator.seed(seed)
        simulator._freeze_rand_vec, simulator.seeded_rand_vec = False, True
        simulator.reset_model()  # draws the vector (some tasks redraw until objects are apart)
        vector = np.array(simulator._last_rand_vec, dtype=np.float64)
        simulator._freeze_rand_vec = True
        self._state, _ = simulator.reset()  # the state now depends on the vector alone
        return InitialState(self.task.name, seed, tuple(float(value) for value in vector))

    def _stage(self) -> Stage:
        """Of the next episode."""
        return Stage(
            simulator=self.simulator,
            model=self.simulator.model,
            centre=CENTRE,
            backdrop=BACKDROP,
            idle=self.idle_action(None),
            grip=3,
            hz=self.control_hz,
            balls=self._renderer.balls,
        )

    def observe(self) -> Observation:
        config = self.config
        images = {view: self._image(view, config.view_height, config.view_width) for view in config.views}
        proprio = self._state[:4].astype(np.float32)
        return self._fate.seen(Observation(images, proprio, self.task.instruction, self.embodiment))

    def step(self, action: np.ndarray) -> StepResult:
        values = self._fate.told(
            checked_action(action, len(self.action_names), f"Meta-World task {self.task.name}")
        )
        command = np.clip(values / self._share, -1.0, 1.0).astype(np.float32)
        for _ in range(self.config.repeat):
            self._state, _, _, truncated, info = self.simulator.step(command)
            if not np.isfinite(self._state).all():
                raise RuntimeError(f"Meta-World task {self.task.name}: the physics diverged")
            if info["success"] or truncated:
                break
        return StepResult(success=bool(info["success"]), done=bool(truncated))

    def idle_action(self, last: Optional[np.ndarray]) -> np.ndarray:
        """The gripper keeps its effort; it is open after a reset."""
        return np.array([0.0, 0.0, 0.0, -1.0 if last is None else last[3]], np.float32)

    def expert_action(self) -> np.ndarray:
        with warnings.catch_warnings():
            warnings.simplefilter(
                "ignore"
            )  # experts warn whenever their gain exceeds the range: see the clip
            action = self._expert.get_action(self._state)
        return (np.clip(action, -1.0, 1.0) * self._share).astype(np.float32)

    def display(self) -> np.ndarray:
        """Rendered twice as large and averaged, which costs less than multisampling."""
        config = self.config
        large = self._image(config.display_view, 2 * config.display_height, 2 * config.display_width)
        blocks = large.astype(np.uint16)
        rows = blocks[0::2] + blocks[1::2]
        return ((rows[:, 0::2] + rows[:, 1::2] + 2) // 4).astype(np.uint8)

    def _image(self, view: str, height: int, width: int) -> np.ndarray:
        image = self._renderer.render(self.simulator.data, view, height, width)
        return np.ascontiguousarray(image[::-1, ::-1] if view in self.config.turned else image)

    def cameras(self) -> Dict[str, np.ndarray]:
        config = self.config
        matrices = {view: self._matrix(view, config.view_height, config.view_width) for view in config.views}
        matrices["display"] = self._matrix(config.display_view, config.display_height, config.display_width)
        return matrices

    def _matrix(self, view: str, height: int, width: int) -> np.ndarray:
        matrix = camera_matrix(self.simulator.model, self.simulator.data, view, height, width)
        turn = np.array([[-1.0, 0.0, width], [0.0, -1.0, height], [0.0, 0.0, 1.0]])
        return turn @ matrix if view in self.config.turned else matrix

    def chunk_path(self, proprio: np.ndarray, chunk: np.ndarray) -> np.ndarray:
        """Path of the point between the fingertips as commanded; the arm lags behind and stops at obstacles."""
        most = self.config.repeat
        moves = np.clip(np.asarray(chunk, dtype=np.float64)[:, :3], -most, most) * METRES_PER_UNIT
        hand = np.asarray(proprio, dtype=np.float64)[:3] + np.cumsum(moves, axis=0)
        hand = np.clip(hand, self.simulator.mocap_low, self.simulator.mocap_high)
        return hand - np.array([0.0, 0.0, FINGERTIPS_BELOW_HAND])

    def close(self) -> None:
        self._renderer.close()
        self.simulator.close()
