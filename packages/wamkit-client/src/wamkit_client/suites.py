"""Which tasks, seeds and step limits make a benchmark: named protocols, so that scores can be compared.

Knows names and numbers only; nothing is simulated here.
"""

from __future__ import annotations

import dataclasses
import math
import re
from dataclasses import dataclass, field
from typing import Any, Dict, Iterable, Iterator, Sequence, Tuple, Type

from wamkit_client.envs.base import EnvConfig, Task, nearest
from wamkit_client.envs.libero import plus
from wamkit_client.envs.libero.env import LiberoConfig
from wamkit_client.envs.libero.tasks import LIBERO_PRO_TASKS, LIBERO_TASKS
from wamkit_client.envs.metaworld.env import MetaWorldConfig
from wamkit_client.envs.metaworld.tasks import METAWORLD_TASKS, metaworld_task
from wamkit_client.envs.own import MAKE, OwnConfig, described
from wamkit_client.envs.robotwin.conventions import RoboTwinConfig
from wamkit_client.references import is_reference, parse
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
        return {**vars(self), "tasks": [dict(vars(task)) for task in self.tasks], "env": self.env.to_json()}

    def steps(self, task: Task) -> int:
        """Control steps that an episode of `task` may take."""
        return self.group_steps.get(task.group, self.max_steps)

    def acted_by(self, names: Sequence[str]) -> Suite:
        """The suite for a policy whose action space has these names."""
        return dataclasses.replace(self, env=self.env.acted_by(names))

    def only(self, tasks: Sequence[str]) -> Suite:
        """The suite with some of its tasks, in its own order: names, numbers ("3", from 0) and ranges ("0-4").

        BadInput for a task that it does not have.
        """
        chosen = {number for word in tasks for number in self._numbers(word)}
        return dataclasses.replace(self, tasks=tuple(self.tasks[number] for number in sorted(chosen)))

    def task(self, name: str) -> Task:
        """The task of that name. BadInput where there is none."""
        return self.tasks[self._number(name)]

    def _numbers(self, word: str) -> Iterable[int]:
        match = re.match(r"^(\d+)(?:-(\d+))?$", word)
        if not match:
            return (self._number(word),)
        first, last = int(match[1]), int(match[2] or match[1])
        if not first <= last < len(self.tasks):
            raise BadInput(f"suite {self.name} has tasks 0 to {len(self.tasks) - 1}, asked for {word}")
        return range(first, last + 1)

    def _number(self, name: str) -> int:
        names = [task.name for task in self.tasks]
        if name not in names:
            raise BadInput(
                f"suite {self.name} has no task {name!r}; did you mean {nearest(name, names)!r}? "
                f"It has: {', '.join(names)}"
            )
        return names.index(name)


# MT10, in the order of its simulator.
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
_LIBERO = ("libero_spatial", "libero_object", "libero_goal", "libero_10", "libero_90")
_LIBERO_FOUR = _LIBERO[:4]  # the four whose mean is "LIBERO" in papers
# LIBERO's protocols, by the ending of their names: environment, and the step limits of the suites above, as far as the
# protocol has them. The first is that of the published Light-WAM and Fast-WAM scores, the second OpenVLA's, which most
# other papers follow, the third LaWAM's (LaWAM spec 6.1), which measures no LIBERO-90. All three seed once per task
# and reset before every trial, so that fixtures stand elsewhere in every trial; the last keeps the first one's where
# trial 0 has them.
_LIBERO_PROTOCOLS = {
    "": (LiberoConfig(settle_steps=30, scene_seed=42, fixtures="per_trial"), (400, 400, 400, 700, 700)),
    "_openvla": (
        LiberoConfig(settle_steps=10, scene_seed=0, fixtures="per_trial"),
        (220, 280, 300, 520, 400),
    ),
    "_lawam": (LiberoConfig(settle_steps=10, scene_seed=0, fixtures="per_trial"), (250, 300, 320, 550)),
    "_fixed": (LiberoConfig(settle_steps=30, scene_seed=42, fixtures="fixed"), (400, 400, 400, 700, 700)),
}


def _metaworld() -> Iterator[Suite]:
    demo = tuple(map(metaworld_task, _DEMO))
    # The demo's step limit is about three times the expert's length: a policy that dithers has failed.
    yield Suite("metaworld3", demo, max_steps=250, episodes=20)
    # At a quarter of the rate an episode has a quarter of the steps.
    slow = tuple(dataclasses.replace(task, expert_steps=math.ceil(task.expert_steps / 4)) for task in demo)
    yield Suite("metaworld3_20hz", slow, MetaWorldConfig(control_hz=20.0), max_steps=63, episodes=20)
    yield Suite("metaworld3_smoke", demo, max_steps=40, episodes=1)  # by nothing that has learned
    mt10 = tuple(map(metaworld_task, _MT10))
    yield Suite("metaworld_mt10", mt10, episodes=20)
    # Reach, push and pick-place say where to by a small ball, which the usual cameras do not show well.
    views = ("corner2", "topview", "behindGripper")
    shown = MetaWorldConfig(views=views, view_height=96, view_width=96)
    yield Suite("metaworld_mt10_topview", mt10, shown, episodes=50)
    yield Suite("metaworld_mt50", METAWORLD_TASKS)
    yield Suite("metaworld_mt50_topview", METAWORLD_TASKS, shown)
    for group in dict.fromkeys(task.group for task in METAWORLD_TASKS):
        yield Suite(f"metaworld_{group}", tuple(task for task in METAWORLD_TASKS if task.group == group))


def _libero() -> Iterator[Suite]:
    for ending, (env, limits) in _LIBERO_PROTOCOLS.items():
        steps = dict(zip(_LIBERO, limits))
        for name, limit in steps.items():
            yield Suite(name + ending, LIBERO_TASKS[name], env, limit, episodes=50, first_seed=0)
        tasks = tuple(task for name in _LIBERO_FOUR for task in LIBERO_TASKS[name])
        own = {name: steps[name] for name in _LIBERO_FOUR}
        yield Suite("libero" + ending, tasks, env, max(own.values()), 50, 0, own)
    # LIBERO-PRO has OpenVLA's protocol: "libero_goal_openvla" is what "libero_goal_swap" is to be compared with.
    env, limits = _LIBERO_PROTOCOLS["_openvla"]
    steps = dict(zip(_LIBERO, limits))
    for name, tasks in LIBERO_PRO_TASKS.items():
        yield Suite(name, tasks, env, steps[name.rpartition("_")[0]], episodes=50, first_seed=0)


def _libero_plus(name: str) -> Suite:
    """One of LIBERO-Plus, whose tasks are read from its files: one trial each, with OpenVLA's protocol."""
    env, limits = _LIBERO_PROTOCOLS["_openvla"]
    limit = dict(zip(_LIBERO, limits))[name.partition("_plus_")[0]]
    return Suite(name, plus.tasks(name, plus.folder()), env, limit, episodes=1, first_seed=0)


SUITES: Dict[str, Suite] = {suite.name: suite for suite in (*_metaworld(), *_libero())}


def suite(name: str) -> Suite:
    """The suite of that name; "metaworld:<task>" is one Meta-World task alone; "metaworld3+lights_off" a suite in which
    something goes wrong (envs/metaworld/perturbations.py); "my_env.py:make" or "package.module:make" an environment of
    the user's own (envs/own.py).

    BadInput for an unknown name, where such an environment cannot be made, and where LIBERO-Plus is not installed.
    """
    if name in SUITES:
        return SUITES[name]
    if name in plus.SUITES:
        return _libero_plus(name)
    simulator, _, task = name.partition(":")
    if simulator == "metaworld" and task:
        return Suite(name, (metaworld_task(task),))
    base, _, word = name.partition("+")
    if word and not is_own(name):
        whole = suite(base)
        return dataclasses.replace(whole, name=name, env=whole.env.perturbed(word))
    if is_own(name):
        own = described(name)
        return Suite(results_name(name), own.tasks, own.config, own.max_steps, episodes=20)
    known = (*SUITES, *plus.SUITES)
    raise BadInput(
        f"unknown suite {name!r}; did you mean {nearest(name, known)!r}? "
        f"Known: {', '.join(known)}, metaworld:<task>; an environment of your own is my_env.py:make"
    )


def is_own(name: str) -> bool:
    """Whether a suite is an environment of the user's own."""
    return is_reference(name) and name.partition(":")[0] not in ENV_CONFIGS


def results_name(name: str) -> str:
    """What the results of a suite are called: its name; of "my_env.py:make" it is "my_env"."""
    if not is_own(name):
        return name
    reference = parse(name, MAKE)
    return reference.stem if reference.name == MAKE else f"{reference.stem}_{reference.name}"


ENV_CONFIGS: Dict[str, Type[EnvConfig]] = {
    "metaworld": MetaWorldConfig,
    "libero": LiberoConfig,
    "robotwin": RoboTwinConfig,
    "own": OwnConfig,
}


def suite_from_json(data: Dict[str, Any]) -> Suite:
    """The protocol that `Suite.to_json` wrote. BadInput for an unknown simulator or fields of another version."""
    simulator = data["env"].get("simulator")
    if simulator not in ENV_CONFIGS:
        raise BadInput(f"unknown simulator {simulator!r}; known: {', '.join(ENV_CONFIGS)}")
    try:
        tasks = tuple(Task(**task) for task in data["tasks"])
        return Suite(**{**data, "tasks": tasks, "env": ENV_CONFIGS[simulator].from_json(data["env"])})
    except (TypeError, KeyError) as error:
        raise BadInput(f"this protocol was written by another version of wamkit ({error})") from None
