"""Which tasks, seeds and step limits make a benchmark: named protocols, so that scores can be compared.

Knows names and numbers only; nothing is simulated here.
"""

from __future__ import annotations

import dataclasses
import difflib
import re
from dataclasses import dataclass, field
from typing import Any, Callable, Dict, Iterable, List, Sequence, Tuple

from wamkit_client.envs.base import EnvConfig, Task
from wamkit_client.envs.libero.env import LiberoConfig
from wamkit_client.envs.libero.tasks import LIBERO_TASKS
from wamkit_client.envs.metaworld.env import MetaWorldConfig
from wamkit_client.envs.robotwin.conventions import RoboTwinConfig
from wamkit_client.types import BadInput

EVALUATION_SEED = 1_000_000


@dataclass(frozen=True)
class Suite:
    """A protocol. `episodes` per task begin from seeds first_seed, first_seed + 1, ...; an episode ends at the first
    success or after max_steps control steps. group_steps: the limit of groups of tasks that have their own.

    BadInput for more episodes than the simulator has initial states.
    """

    name: str
    tasks: Tuple[Task, ...]
    env: EnvConfig = field(default_factory=MetaWorldConfig)
    max_steps: int = 500
    episodes: int = 10
    first_seed: int = EVALUATION_SEED
    group_steps: Dict[str, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.env.check_seeds(range(self.first_seed, self.first_seed + self.episodes))

    def to_json(self) -> Dict[str, Any]:
        """Everything that makes the protocol, enough for `suite_from_json`."""
        return {
            "name": self.name,
            "tasks": [dataclasses.asdict(task) for task in self.tasks],
            "env": self.env.to_json(),
            "max_steps": self.max_steps,
            "episodes": self.episodes,
            "first_seed": self.first_seed,
            "group_steps": self.group_steps,
        }

    def steps(self, task: Task) -> int:
        """Control steps that an episode of `task` may take."""
        return self.group_steps.get(task.group, self.max_steps)

    def only(self, tasks: Sequence[str]) -> Suite:
        """The suite with some of its tasks, in its own order: names, numbers ("3", from 0) and ranges ("0-4").

        BadInput for a task that it does not have.
        """
        names = [task.name for task in self.tasks]
        chosen = {number for word in tasks for number in self._numbers(word, names)}
        return dataclasses.replace(self, tasks=tuple(self.tasks[number] for number in sorted(chosen)))

    def _numbers(self, word: str, names: List[str]) -> Iterable[int]:
        if word in names:
            return (names.index(word),)
        match = re.match(r"^(\d+)(?:-(\d+))?$", word)
        if not match:
            raise BadInput(f"suite {self.name} has no task {word!r}; did you mean {nearest(word, names)!r}?")
        first, last = int(match[1]), int(match[2] or match[1])
        if not first <= last < len(names):
            raise BadInput(f"suite {self.name} has tasks 0 to {len(names) - 1}, asked for {word}")
        return range(first, last + 1)

    def task(self, name: str) -> Task:
        for task in self.tasks:
            if task.name == name:
                return task
        names = [task.name for task in self.tasks]
        raise BadInput(
            f"suite {self.name} has no task {name!r}; did you mean {nearest(name, names)!r}? "
            f"It has: {', '.join(names)}"
        )


def nearest(word: str, names: Iterable[str]) -> str:
    """The name that a misspelt word probably means."""
    return difflib.get_close_matches(word, list(names), n=1, cutoff=0.0)[0]


# Instructions are LeRobot's; groups are the difficulty groups of the published MT50 scores; the last column is the
# median length of the scripted expert's successful episodes (metaworld 3.1.1, mujoco 3.3.0, ten initial states).
METAWORLD_TASKS = (
    Task("button-press-topdown-v3", "Press a button from the top", "easy", 62),
    Task("button-press-topdown-wall-v3", "Bypass a wall and press a button from the top", "easy", 54),
    Task("button-press-v3", "Press a button", "easy", 58),
    Task("button-press-wall-v3", "Bypass a wall and press a button", "easy", 64),
    Task("coffee-button-v3", "Push a button on the coffee machine", "easy", 33),
    Task("dial-turn-v3", "Rotate a dial 180 degrees", "easy", 68),
    Task("door-close-v3", "Close a door with a revolving joint", "easy", 66),
    Task("door-lock-v3", "Lock the door by rotating the lock clockwise", "easy", 93),
    Task("door-open-v3", "Open a door with a revolving joint", "easy", 81),
    Task("door-unlock-v3", "Unlock the door by rotating the lock counter-clockwise", "easy", 44),
    Task("drawer-close-v3", "Push and close a drawer", "easy", 78),
    Task("drawer-open-v3", "Open a drawer", "easy", 88),
    Task("faucet-close-v3", "Rotate the faucet clockwise", "easy", 63),
    Task("faucet-open-v3", "Rotate the faucet counter-clockwise", "easy", 58),
    Task("handle-press-side-v3", "Press a handle down sideways", "easy", 40),
    Task("handle-press-v3", "Press a handle down", "easy", 30),
    Task("handle-pull-side-v3", "Pull a handle up sideways", "easy", 82),
    Task("handle-pull-v3", "Pull a handle up", "easy", 106),
    Task("lever-pull-v3", "Pull a lever down 90 degrees", "easy", 79),
    Task("peg-unplug-side-v3", "Unplug a peg sideways", "easy", 99),
    Task("plate-slide-back-side-v3", "Get a plate from the cabinet sideways", "easy", 48),
    Task("plate-slide-back-v3", "Get a plate from the cabinet", "easy", 50),
    Task("plate-slide-side-v3", "Slide a plate into a cabinet sideways", "easy", 48),
    Task("plate-slide-v3", "Slide a plate into a cabinet", "easy", 50),
    Task("reach-v3", "Reach a goal position", "easy", 44),
    Task("reach-wall-v3", "Bypass a wall and reach a goal", "easy", 45),
    Task("window-close-v3", "Push and close a window", "easy", 77),
    Task("window-open-v3", "Push and open a window", "easy", 85),
    Task("basketball-v3", "Dunk the basketball into the basket", "medium", 94),
    Task("bin-picking-v3", "Grasp the puck from one bin and place it into another bin", "medium", 125),
    Task("box-close-v3", "Grasp the cover and close the box with it", "medium", 110),
    Task("coffee-pull-v3", "Pull a mug from a coffee machine", "medium", 81),
    Task("coffee-push-v3", "Push a mug under a coffee machine", "medium", 56),
    Task("hammer-v3", "Hammer a screw on the wall", "medium", 70),
    Task("peg-insert-side-v3", "Insert a peg sideways", "medium", 89),
    Task("push-wall-v3", "Bypass a wall and push a puck to a goal", "medium", 79),
    Task("soccer-v3", "Kick a soccer into the goal", "medium", 68),
    Task("sweep-into-v3", "Sweep a puck into a hole", "medium", 54),
    Task("sweep-v3", "Sweep a puck off the table", "medium", 88),
    Task("assembly-v3", "Pick up a nut and place it onto a peg", "hard", 88),
    Task("hand-insert-v3", "Insert the gripper into a hole", "hard", 56),
    Task("pick-out-of-hole-v3", "Pick up a puck from a hole", "hard", 116),
    Task("pick-place-v3", "Pick and place a puck to a goal", "hard", 52),
    Task("push-back-v3", "Push the puck to a goal", "hard", 87),
    Task("push-v3", "Push the puck to a goal", "hard", 60),
    Task("disassemble-v3", "Pick a nut out of a peg", "very_hard", 77),
    Task("pick-place-wall-v3", "Pick a puck, bypass a wall and place the puck", "very_hard", 84),
    Task("shelf-place-v3", "Pick and place a puck onto a shelf", "very_hard", 90),
    Task("stick-pull-v3", "Grasp a stick and pull a box with the stick", "very_hard", 123),
    Task("stick-push-v3", "Grasp a stick and push a box using the stick", "very_hard", 76),
)

_MT10 = (
    "reach-v3",
    "push-v3",
    "pick-place-v3",
    "door-open-v3",
    "drawer-open-v3",
    "drawer-close-v3",
    "button-press-topdown-v3",
    "peg-insert-side-v3",
    "window-open-v3",
    "window-close-v3",
)
_DEMO = ("button-press-topdown-v3", "drawer-open-v3", "window-open-v3")
_GROUPS = ("easy", "medium", "hard", "very_hard")


def metaworld_task(name: str) -> Task:
    """The task of that name (with or without "-v3"); BadInput for an unknown one."""
    for task in METAWORLD_TASKS:
        if name in (task.name, task.name[: -len("-v3")]):
            return task
    names = [task.name for task in METAWORLD_TASKS]
    raise BadInput(
        f"Meta-World has no task {name!r}; did you mean {nearest(name, names)!r}? It has: {', '.join(names)}"
    )


# LIBERO's protocols. steps: of every suite. The first is that of the published Light-WAM and Fast-WAM scores
# (Light-WAM spec 5.3), the second OpenVLA's, which most other papers follow. Both seed once per task and reset before
# every trial, so that fixtures stand elsewhere in every trial; the third keeps the first one's where trial 0 has them.
_PUBLISHED = {
    "libero_spatial": 400,
    "libero_object": 400,
    "libero_goal": 400,
    "libero_10": 700,
    "libero_90": 700,
}
_OPENVLA = {
    "libero_spatial": 220,
    "libero_object": 280,
    "libero_goal": 300,
    "libero_10": 520,
    "libero_90": 400,
}
_FOUR = ("libero_spatial", "libero_object", "libero_goal", "libero_10")


def _libero(ending: str, env: EnvConfig, steps: Dict[str, int]) -> List[Suite]:
    suites = [
        Suite(name + ending, tasks, env, steps[name], episodes=50, first_seed=0)
        for name, tasks in LIBERO_TASKS.items()
    ]
    all_four = tuple(task for name in _FOUR for task in LIBERO_TASKS[name])
    limits = {name: steps[name] for name in _FOUR}
    suites.append(Suite("libero" + ending, all_four, env, max(limits.values()), 50, 0, limits))
    return suites


def _suites() -> Dict[str, Suite]:
    suites = [
        # The demo's step limit is about three times the expert's length: a policy that dithers has failed.
        Suite("metaworld3", tuple(metaworld_task(name) for name in _DEMO), max_steps=250, episodes=20),
        Suite("metaworld3_smoke", tuple(metaworld_task(name) for name in _DEMO), max_steps=120, episodes=1),
        Suite("metaworld_mt10", tuple(metaworld_task(name) for name in _MT10), episodes=20),
        Suite("metaworld_mt50", METAWORLD_TASKS),
    ]
    for group in _GROUPS:
        tasks = tuple(task for task in METAWORLD_TASKS if task.group == group)
        suites.append(Suite(f"metaworld_{group}", tasks))
    published = LiberoConfig(settle_steps=30, scene_seed=42, fixtures="per_trial")
    openvla = LiberoConfig(settle_steps=10, scene_seed=0, fixtures="per_trial")
    suites += _libero("", published, _PUBLISHED)
    suites += _libero("_openvla", openvla, _OPENVLA)
    suites += _libero("_fixed", dataclasses.replace(published, fixtures="fixed"), _PUBLISHED)
    return {suite.name: suite for suite in suites}


SUITES = _suites()


def suite(name: str) -> Suite:
    """The suite of that name; "metaworld:<task>" is one Meta-World task alone. BadInput for an unknown name."""
    if name in SUITES:
        return SUITES[name]
    simulator, _, task = name.partition(":")
    if simulator == "metaworld" and task:
        return Suite(name, (metaworld_task(task),))
    raise BadInput(
        f"unknown suite {name!r}; did you mean {nearest(name, SUITES)!r}? "
        f"Known: {', '.join(SUITES)}, metaworld:<task>"
    )


ENV_CONFIGS: Dict[str, Callable[[Dict[str, Any]], EnvConfig]] = {
    "metaworld": MetaWorldConfig.from_json,
    "libero": LiberoConfig.from_json,
    "robotwin": RoboTwinConfig.from_json,
}


def suite_from_json(data: Dict[str, Any]) -> Suite:
    """The protocol that `Suite.to_json` wrote. BadInput for an unknown simulator or fields of another version."""
    simulator = data["env"].get("simulator")
    if simulator not in ENV_CONFIGS:
        raise BadInput(f"unknown simulator {simulator!r}; known: {', '.join(ENV_CONFIGS)}")
    try:
        tasks = tuple(Task(**task) for task in data["tasks"])
        return Suite(**{**data, "tasks": tasks, "env": ENV_CONFIGS[simulator](data["env"])})
    except (TypeError, KeyError) as error:
        raise BadInput(f"this protocol was written by another version of wamkit ({error})") from None
