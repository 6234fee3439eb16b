"""What can go wrong in the episodes of a suite, on purpose: one thing per episode, the same for the same seed.

A simulator has a table of kinds. Those of `axes.py` hold from the reset on, at one of three strengths; others happen at
a moment that the seed says. "metaworld3+camera_2" is a suite with one of them (suites.py). Knows no simulator and no
policy.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Callable, Dict, List, Mapping, Tuple

import numpy as np

from wamkit_client.envs.rendering import Ball
from wamkit_client.types import BadInput, Observation


@dataclass(frozen=True)
class Perturbation:
    """kind: of the simulator's table. strength: in its unit, above 0. seconds: of the episode, between which it
    happens, if it does not hold from the reset on; from then on it stays. BadInput for numbers that cannot be."""

    kind: str = "none"
    strength: float = 1.0
    seconds: Tuple[float, float] = (0.25, 0.5)

    def __post_init__(self) -> None:
        first, last = self.seconds
        if not (0 < self.strength < float("inf") and 0 <= first <= last < float("inf")):
            raise BadInput(
                f"perturbation {self.kind}: strength {self.strength:g}, between {first:g} and {last:g} s; expected a "
                "strength above 0 and two times from 0 on, in order"
            )

    def step(self, seed: int, hz: float) -> int:
        """Before which control step of the episode it happens."""
        first, last = self.seconds
        return round(hz * (first + (last - first) * float(draws(seed, 0).random())))

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Perturbation:
        """What stands in results."""
        return cls(**{**data, "seconds": tuple(data["seconds"])})


def draws(seed: int, number: int) -> np.random.Generator:
    """Of an episode. seed: below 0 with an initial state that was recorded, not drawn."""
    return np.random.default_rng([seed % 2**64, number])


UNPERTURBED = Perturbation()
FROM_THE_RESET = (0.0, 0.0)


def as_it_is(value: Any) -> Any:
    """Nothing is changed."""
    return value


def nothing() -> None:
    """There is nothing to take back."""


@dataclass
class Stage:
    """What a perturbation may change of one episode.

    simulator: the environment's own object. model: MuJoCo's, of this episode. centre: metres, where the objects are.
    backdrop: names of bodies that no task is about, with all that is fixed to them: floor, walls, table.
    idle: the action [a] of a robot that keeps still after a reset. grip: the gripper's dimension of an action.
    hz: control steps per second. balls: rendered beside the model. steps: control steps since the reset.
    told, seen: what becomes of every action [a] and of every observation.
    """

    simulator: Any
    model: Any
    centre: Tuple[float, float, float]
    backdrop: Tuple[str, ...]
    idle: np.ndarray
    grip: int
    hz: float
    balls: List[Ball] = field(default_factory=list)
    steps: int = 0
    told: Callable[[np.ndarray], np.ndarray] = as_it_is
    seen: Callable[[Observation], Observation] = as_it_is


Undo = Callable[[], None]
Happen = Callable[[Stage, float, np.random.Generator], Undo]
"""Stage, strength, source of randomness -> what takes back what outlives the episode."""


@dataclass(frozen=True)
class Kind:
    """about, unit: in words. strengths: those that have names, three or one. happen: what it does.

    from_reset: it holds for the whole episode, so that a policy sees nothing else. largest: strength that makes sense.
    whole: strengths are 1, 2, 3 and so on.
    """

    about: str
    unit: str
    strengths: Tuple[float, ...]
    happen: Happen
    from_reset: bool = False
    largest: float = float("inf")
    whole: bool = False


Kinds = Mapping[str, Kind]
NONE = {"none": Kind("nothing happens", "", (1.0,), lambda stage, strength, rng: nothing)}


def words(kinds: Kinds) -> Dict[str, Perturbation]:
    """What stands behind the "+" of a suite's name: "lights_off", or, where there are three strengths, "camera_2"."""
    found = {}
    for name, kind in kinds.items():
        several = len(kind.strengths) > 1
        for number, strength in enumerate(kind.strengths, 1):
            found[f"{name}_{number}" if several else name] = _of(name, kind, strength)
    return found


def perturbation(word: str, kinds: Kinds) -> Perturbation:
    """Of "lights_off", "camera_2", or with a strength of one's own, "camera=7.5". BadInput for anything else."""
    known = words(kinds)
    if word in known:
        return known[word]
    name, equals, number = word.partition("=")
    if name not in kinds:
        raise BadInput(f"perturbation {word!r} is unknown; expected one of {', '.join(known)}")
    if not equals:
        raise BadInput(
            f"perturbation {word!r} has no strength; expected "
            f"{', '.join(other for other in known if known[other].kind == name)}, or {name}=NUMBER"
        )
    try:
        strength = float(number)
    except ValueError:
        raise BadInput(f"perturbation {word!r}: {number!r} is no number") from None
    return _of(name, kinds[name], strength)


def check_known(chosen: Perturbation, kinds: Kinds) -> None:
    """BadInput for a perturbation that the simulator does not have, or not so strong."""
    if chosen.kind not in kinds:
        raise BadInput(f"perturbation {chosen.kind!r} is unknown; expected one of {', '.join(kinds)}")
    kind = kinds[chosen.kind]
    if chosen.strength > kind.largest or (kind.whole and chosen.strength % 1):
        wanted = f"{'a whole number' if kind.whole else 'a strength'} up to {kind.largest:g} ({kind.unit})"
        raise BadInput(f"perturbation {chosen.kind}: strength {chosen.strength:g}; expected {wanted}")


def _of(name: str, kind: Kind, strength: float) -> Perturbation:
    return Perturbation(name, strength, FROM_THE_RESET) if kind.from_reset else Perturbation(name, strength)


class Fate:
    """What happens in the episodes of one environment: `begin` with each, then `told` before every control step."""

    def __init__(self, chosen: Perturbation, kinds: Kinds) -> None:
        self._chosen, self._kind = chosen, kinds[chosen.kind]
        self._undo: Undo = nothing
        self._moment = 0  # the control step before which it happens

    def begin(self, stage: Stage, seed: int) -> None:
        """Everything is as it was, but what holds from now on. stage: of the episode that begins."""
        self._undo()
        self._undo = nothing
        self._stage, self._seed = stage, seed
        self._moment = self._chosen.step(seed, stage.hz)
        if self._kind.from_reset:
            self._happen()

    def told(self, action: np.ndarray) -> np.ndarray:
        """What the robot does, [a], where it is told `action` for the next control step."""
        if self._stage.steps == self._moment and not self._kind.from_reset:
            self._happen()
        self._stage.steps += 1
        return self._stage.told(action)

    def seen(self, observation: Observation) -> Observation:
        """What a policy is shown of it."""
        return self._stage.seen(observation)

    def _happen(self) -> None:
        self._undo = self._kind.happen(self._stage, self._chosen.strength, draws(self._seed, 1))
