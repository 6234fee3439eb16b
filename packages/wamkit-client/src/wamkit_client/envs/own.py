"""An environment that a user wrote: "my_env.py:make" or "package.module:Class", a function or class that makes an Env.

Called without arguments, it gives the environment of its first task. One for several tasks lists them in `Env.tasks`,
and is called with each: make(task). It is called in processes of their own only (envs/vector.py).
"""

from __future__ import annotations

from dataclasses import dataclass
from importlib import metadata
from typing import Any, Dict, Sequence, Tuple

from wamkit_client.envs.base import Env, EnvConfig, Task
from wamkit_client.envs.vector import Host, env_processes
from wamkit_client.references import Reference, call, load, parse, sha256
from wamkit_client.types import BadInput

MAKE = "make"
EXPECTED = (
    "a function or class that gives an Env (wamkit_client.envs.base) when it is called without arguments"
)


@dataclass(frozen=True)
class OwnConfig(EnvConfig):
    """reference: of the function. several: whether it takes the task.

    The rest is what its environment says of itself: robot, control steps per second, and names.
    """

    reference: str
    several: bool = False
    embodiment: str = ""
    hz: float = 0.0
    action_names: Tuple[str, ...] = ()
    proprio_names: Tuple[str, ...] = ()
    view_names: Tuple[str, ...] = ()
    simulator: str = "own"

    @property
    def control_hz(self) -> float:  # type: ignore[override]
        """Of the base, where it is one of the class."""
        return self.hz

    def acted_by(self, names: Sequence[str]) -> OwnConfig:
        if tuple(names) != self.action_names:
            raise BadInput(
                f"{self.reference}: its action_names are {_listed(self.action_names)}, and the policy's actions are "
                f"{_listed(names)}; give the environment's actions the policy's names where they mean the same, in "
                "the same order and unit, else train on data of this robot"
            )
        return self

    def check_shows(self, views: Sequence[str], proprio_dim: int) -> None:
        missing = [view for view in views if view not in self.view_names]
        if missing:
            raise BadInput(
                f"{self.reference}: its view_names are {_listed(self.view_names)}, and the policy is shown "
                f"{_listed(views)}; observe the missing camera ({_listed(missing)}) under that name"
            )
        if proprio_dim and len(self.proprio_names) != proprio_dim:
            raise BadInput(
                f"{self.reference}: its proprio_names are {len(self.proprio_names)} ({_listed(self.proprio_names)}), "
                f"and the policy was trained with {proprio_dim} numbers of proprio; observe those that its dataset has"
            )

    def prepare(self) -> None:
        sha256(self._function)  # a file that is missing is refused before processes start

    def make(self, task: Task) -> Env:
        env = self.made(*(task,) if self.several else ())
        if env.task != task:
            raise BadInput(
                f"{self.reference}: expected an environment of the task {task.name!r}, got {env.task.name!r}"
            )
        return env

    def made(self, *task: Task) -> Env:
        """What the function gives. BadInput where that is no Env, and where it raises."""
        reference = self._function
        env = call(reference, load(reference, EXPECTED), *task)
        if not isinstance(env, Env):
            raise BadInput(f"{self.reference}: gives a {type(env).__name__}, expected {EXPECTED}")
        return env

    def facts(self) -> Dict[str, Any]:
        reference = self._function
        return {
            "simulator": self.simulator,
            "versions": {reference.module: sha256(reference)[:12], "numpy": metadata.version("numpy")},
            "opengl": "not known",
            "control_hz": self.hz,
            "actions": _listed(self.action_names),
            "success": "as the environment says at a step, which ends the episode",
        }

    @classmethod
    def from_json(cls, data: Dict[str, Any]) -> OwnConfig:
        values: Dict[str, Any] = {
            key: tuple(value) if type(value) is list else value for key, value in data.items()
        }
        return cls(**values)

    @property
    def _function(self) -> Reference:
        return parse(self.reference, MAKE)


@dataclass(frozen=True)
class Own:
    """What an environment says of itself: its config, its tasks, and how many steps it allows."""

    config: OwnConfig
    tasks: Tuple[Task, ...]
    max_steps: int


def described(reference: str) -> Own:
    """What the environment of a reference says of itself, asked in a process of its own.

    BadInput where it cannot be made, and for a value that it lacks.
    """
    with env_processes(OwnConfig(reference), 1) as (process,):
        process.send(_describe)
        own: Own = process.receive()
        return own


def _describe(host: Host) -> Own:
    asked = host.config
    assert isinstance(asked, OwnConfig)
    env = asked.made()
    try:
        tasks = env.tasks or (env.task,)
        config = OwnConfig(
            asked.reference,
            bool(env.tasks),
            env.embodiment,
            float(env.control_hz),
            tuple(env.action_names),
            tuple(env.proprio_names),
            tuple(env.view_names),
        )
        return Own(config, tuple(tasks), int(env.max_steps))
    except AttributeError as error:  # Env annotates what it has no default for
        raise BadInput(f"{asked.reference}: {error}; every Env says so (wamkit_client.envs.base)") from error
    finally:
        env.close()


def _listed(names: Sequence[str]) -> str:
    return ", ".join(names) or "none"
