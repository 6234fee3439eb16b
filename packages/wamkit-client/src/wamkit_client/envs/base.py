"""The contract of an environment: one robot, one task, actions and observations in physical units.

An environment hides its simulator's conventions (flipped cameras, clipped actions, what counts as success). It does
not know about policies, chunks, episode lengths or statistics.
"""

from __future__ import annotations

import difflib
import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar, Dict, Iterable, List, Optional, Sequence, Tuple

import numpy as np

from wamkit_client.envs.perturbations import NONE, UNPERTURBED, Kinds, Perturbation, perturbation
from wamkit_client.types import BadInput, Observation


@dataclass(frozen=True)
class Task:
    """One thing to do. `expert_steps`: median length of the scripted expert's episodes (0 = no expert known)."""

    name: str
    instruction: str
    group: str = ""
    expert_steps: int = 0


def read_tasks(file: Path) -> Tuple[Task, ...]:
    """The tasks in a JSON file: a list of objects with the fields of Task."""
    return tuple(Task(**fields) for fields in json.loads(file.read_text()))


def nearest(word: str, names: Iterable[str]) -> str:
    """The name that a misspelt word probably means."""
    return difflib.get_close_matches(word, list(names), n=1, cutoff=0.0)[0]


@dataclass(frozen=True)
class InitialState:
    """What an episode began from. `vector`: the simulator's random draw, which determines the state for a task."""

    task: str
    seed: int
    vector: Tuple[float, ...]

    def key(self) -> str:
        """Equal for equal states, whatever their seeds: this is how evaluation recognises demonstrated states."""
        return self.task + ":" + ",".join(f"{value + 0.0:.6f}" for value in self.vector)

    def to_json(self) -> Dict[str, Any]:
        return {"task": self.task, "seed": self.seed, "vector": list(self.vector)}

    @staticmethod
    def from_json(data: Dict[str, Any]) -> InitialState:
        return InitialState(data["task"], int(data["seed"]), tuple(float(value) for value in data["vector"]))


@dataclass(frozen=True)
class StepResult:
    """success: the task is solved at this step (it can be lost again). done: no further step is possible."""

    success: bool
    done: bool


class Env:
    """One simulated (or real) robot. Call order: reset, then observe and step as often as needed, finally close.

    task: what to do.  embodiment: key of the policy's Normalizer.  control_hz: steps per second.
    max_steps: steps the simulator allows after a reset.  action_names, proprio_names: one word per dimension.
    view_names: keys of Observation.images.
    tasks: of an environment of one's own (envs/own.py), all that it can be made for; (): `task` alone.
    A subclass has at least these values but the last, `reset`, `observe` and `step`.
    """

    tasks: Tuple[Task, ...] = ()
    task: Task
    embodiment: str
    control_hz: float
    max_steps: int
    action_names: Tuple[str, ...]
    proprio_names: Tuple[str, ...]
    view_names: Tuple[str, ...]

    def reset(self, seed: int) -> InitialState:
        """Begin an episode. The same seed gives the same state, whatever happened before."""
        raise NotImplementedError

    def observe(self) -> Observation:
        """What the robot knows now. This renders; `step` does not."""
        raise NotImplementedError

    def step(self, action: np.ndarray) -> StepResult:
        """One control step. action: [a], physical units. BadInput for another shape, NaN or infinity."""
        raise NotImplementedError

    def idle_action(self, last: Optional[np.ndarray]) -> np.ndarray:
        """What keeps the robot still for a control step, [a]: no motion, and the gripper as it was told before.

        last: the action executed before this one; None at the beginning of an episode. Needed where queries take
        control steps (EpisodeConfig.delay_ms): BadInput where it is not known.
        """
        raise BadInput(
            f"{type(self).__name__} has no idle_action, which a delay needs: set eval.delay_ms to 0, or say in "
            "that method what keeps the robot still"
        )

    def expert_action(self) -> np.ndarray:
        """What the scripted expert does now: float32 [a] within the action range. BadInput without an expert."""
        raise BadInput(f"{type(self).__name__} has no scripted expert (expert_action)")

    def display(self) -> np.ndarray:
        """An image for people, uint8 RGB [h, w, 3]: where there is no larger one, that of the first camera."""
        return next(iter(self.observe().images.values()))

    def cameras(self) -> Dict[str, np.ndarray]:
        """Matrices [3, 4] by view name and "display": pixel (u right, v down; corner of the image is 0, 0)
        times depth = matrix @ (x, y, z, 1) of a world point in metres. NaN where that is not known."""
        return {name: np.full((3, 4), np.nan) for name in (*self.view_names, "display")}

    def chunk_path(self, proprio: np.ndarray, chunk: np.ndarray) -> np.ndarray:
        """Where the hand would go: its position [k, 3] in metres after each action of a chunk [k, a]. NaN where that is
        not known."""
        return np.full((len(chunk), 3), np.nan)

    def close(self) -> None:
        """Free the simulator and the graphics context, where there are any."""


class EnvConfig:
    """A picklable description from which any process can make environments; to JSON and back without loss.

    first_demonstration_seed: demonstrations use this seed and those after it. control_hz: of its environments; 0: they
    take actions at any rate. perturbation: what goes wrong in every episode, one of `perturbations`.
    """

    simulator: str
    embodiment: str
    control_hz: ClassVar[float] = 0.0
    first_demonstration_seed: ClassVar[int] = 0
    perturbation: ClassVar[Perturbation] = UNPERTURBED
    perturbations: ClassVar[Kinds] = NONE

    def check_seeds(self, seeds: range) -> None:
        """BadInput for seeds that this simulator has no initial states for; needs no simulator."""

    def acted_by(self, names: Sequence[str]) -> EnvConfig:
        """The same for a policy whose action space has these names, where that says what its numbers mean.

        BadInput where the environment is known to take others.
        """
        return self

    def check_shows(self, views: Sequence[str], proprio_dim: int) -> None:
        """BadInput where it is known to lack a camera that a policy is shown, or to have another proprio."""

    def perturbed(self, word: str) -> EnvConfig:
        """The same, where something goes wrong in every episode. BadInput for a simulator that has nothing such."""
        if self.perturbations is NONE:
            raise BadInput(f"{self.simulator} has no perturbations, asked for {word!r}")
        return replace(self, perturbation=perturbation(word, self.perturbations))  # type: ignore[type-var]

    def prepare(self) -> None:
        """Called in the parent before processes start. BadInput where the simulator or rendering is missing."""
        raise NotImplementedError

    def make(self, task: Task) -> Env:
        """A fresh environment in this process. BadInput for an unknown task, and as of `prepare`."""
        raise NotImplementedError

    def facts(self) -> Dict[str, Any]:
        """Simulator, library versions, conventions: what a score depends on besides this config, as JSON values."""
        raise NotImplementedError

    def warnings(self) -> List[str]:
        """What a reader of a score must know about this installation."""
        return []

    def to_json(self) -> Dict[str, Any]:
        """Every field, nested settings included. No perturbation is not mentioned, as in results of older versions."""
        fields = {
            name: value
            for name, value in vars(self).items()
            if (name, value) != ("perturbation", UNPERTURBED)
        }
        data: Dict[str, Any] = json.loads(json.dumps(fields, default=vars))
        return data

    @classmethod
    def from_json(cls, data: Dict[str, Any]) -> EnvConfig:
        """What `to_json` wrote. TypeError for fields of another version."""
        return cls(**data)


def project(matrix: np.ndarray, points: np.ndarray) -> np.ndarray:
    """Pixels [n, 2] (u right, v down) of world points [n, 3] seen through `matrix` [3, 4]; NaN behind the camera."""
    homogeneous = np.concatenate([points, np.ones((len(points), 1))], axis=1) @ matrix.T
    depth = np.where(homogeneous[:, 2:] > 1e-6, homogeneous[:, 2:], np.nan)
    return homogeneous[:, :2] / depth


def checked_action(action: np.ndarray, dims: int, where: str) -> np.ndarray:
    """The action as float64 [dims]; BadInput for another shape, NaN or infinity."""
    values = np.asarray(action, dtype=np.float64)
    if values.shape != (dims,):
        raise BadInput(
            f"{where}: an action has shape {values.shape}, expected ({dims},); check the policy's action_dim"
        )
    if not np.isfinite(values).all():
        raise BadInput(f"{where}: an action holds NaN or infinity ({values}); the policy's output is broken")
    return values
