"""What recorded numbers say of each action dimension: is it a displacement, a target, a gripper?

A target is where the robot is, or is a step later; displacements, added up over a fifth of a second, go with how the
state changed in that time. `judge` proposes a kind for every dimension, with the numbers that speak for it;
`contradictions` holds kinds that were given against the same numbers. Suspicions, not proofs. It does not know about
recipes.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from wamkit.data.actions import RELATIVE, WIDTHS, ActionSpace, Kind
from wamkit.data.joined import AnyDataset
from wamkit.data.lerobot.files import dimension_names
from wamkit.data.normalize import SOURCES, field_rows
from wamkit.data.statistics import STILL

EPISODES = 64
"""How many are looked at."""
SECONDS = 0.2
"""Over which displacements are added up: longer than most controllers lag behind."""
NEAR, EQUAL = 0.3, 0.1
"""Mean distance of a target from the next state, in standard deviations of the state: as `judge` accepts it, and as
`contradictions` is sure of it."""
ALIKE, SAME_COURSE, SURE_COURSE = 0.5, 0.9, 0.8
"""Correlations: of displacements with changes and of targets with states; of targets in other units than the state; of
displacements that were called targets."""
TWO_VALUES = 0.95
"""Share of the steps that a gripper of two commands spends at either."""
POSE = 3.0
"""Displacements come and go: their mean is not this many standard deviations from 0."""
UNIT_LENGTH = 0.02
"""Quaternions are this close to length 1, on average."""
GRIPPER = re.compile(r"grip|claw|jaw", re.IGNORECASE)
TURN = re.compile(r"(^|[_. ]|d|delta_?)(r[xyz]|roll|pitch|yaw|w[xyz]|a[xyz]|rot\w*)\b", re.IGNORECASE)
LAST = re.compile(r"(^|[_. ]|q)x$", re.IGNORECASE)
"""The first name of a quaternion that has w last."""


@dataclass(frozen=True)
class Recording:
    """Actions [t a] and states [t p] of some episodes, physical units; p is 0 where there is no proprio.

    A state may have been recorded after the last action. names, states_names: "" where the dataset has none.
    """

    actions: tuple[np.ndarray, ...]
    states: tuple[np.ndarray, ...]
    hz: float
    names: tuple[str, ...]
    state_names: tuple[str, ...]

    @classmethod
    def of(cls, dataset: AnyDataset) -> Recording:
        """At most EPISODES episodes, evenly over the dataset. BadInput where their columns cannot be read."""
        places = np.unique(np.linspace(0, len(dataset.episodes) - 1, EPISODES).round().astype(int))
        chosen = [dataset.episodes[place] for place in places]
        action, proprio = (
            tuple(field_rows(dataset, field, [episode]) for episode in chosen) for field in SOURCES
        )
        names, state_names = (
            dimension_names(dataset.features.get(SOURCES[field], {}), rows[0].shape[1])
            for field, rows in (("action", action), ("proprio", proprio))
        )
        return cls(action, proprio, dataset.fps, names, state_names)

    @cached_property
    def flat(self) -> np.ndarray:
        """Every action, [n a] in float64."""
        return np.concatenate(self.actions).astype(np.float64)

    @property
    def steps(self) -> int:
        """Control steps in SECONDS, at least one."""
        return max(1, round(SECONDS * self.hz))


@dataclass(frozen=True)
class Match:
    """The dimension of the state that an action dimension is most like; state -1: there is none.

    gap: mean distance of action and state. spread: standard deviation of the state. r: correlation, of action and
    state or of added-up actions and the state's change.
    """

    state: int = -1
    gap: float = np.inf
    spread: float = 1.0
    r: float = 0.0


@dataclass(frozen=True)
class Evidence:
    """Of one action dimension. ends: share of the steps at its least or greatest value.

    target, motion: what it is most like as a target and as a displacement.
    """

    low: float
    high: float
    mean: float
    std: float
    ends: float
    target: Match
    motion: Match

    @property
    def still(self) -> bool:
        """Whether it never moves."""
        return self.high - self.low < STILL

    @property
    def two_valued(self) -> bool:
        """Whether it is one of two commands in nearly every step."""
        return not self.still and self.ends >= TWO_VALUES

    @property
    def far(self) -> float:
        """Of its mean from 0, in standard deviations."""
        return abs(self.mean) / max(self.std, STILL)


@dataclass(frozen=True)
class Verdict:
    """What one action dimension seems to be. reason: in numbers. doubt: 0 .. 1, to find the least clear of several.

    asks: the kind is a guess, and `reason` says what to find out.
    """

    kind: Kind
    reason: str
    doubt: float = 0.0
    asks: bool = False


def measure(recording: Recording) -> tuple[Evidence, ...]:
    """The evidence on every action dimension."""
    flat = recording.flat
    targets, motions = _targets(recording), _motions(recording)
    found = []
    for dim in range(flat.shape[1]):
        column = flat[:, dim]
        low, high = float(column.min()), float(column.max())
        near = 1e-3 * (high - low)
        ends = float(((column <= low + near) | (column >= high - near)).mean())
        found.append(
            Evidence(low, high, float(column.mean()), float(column.std()), ends, targets[dim], motions[dim])
        )
    return tuple(found)


def judge(recording: Recording) -> tuple[Verdict, ...]:
    """A kind for every action dimension, with its reason."""
    verdicts = [
        _gripper(recording.names[dim], evidence) or _verdict(recording, evidence)
        for dim, evidence in enumerate(measure(recording))
    ]
    for first in _quaternions(recording, verdicts):
        verdicts[first : first + 4] = [_quaternion(recording.names[first])] * 4
    for first in _turns(recording, verdicts):
        verdicts[first : first + 3] = [_turn(verdict) for verdict in verdicts[first : first + 3]]
    return tuple(verdicts)


def contradictions(space: ActionSpace, recording: Recording) -> list[str]:
    """One sentence for each dimension whose numbers speak against its kind; an empty list where none does."""
    evidence = measure(recording)
    found = [
        f"action {dim} ({space.names[dim]}) {sentence}"
        for kind, dims in space.runs()
        for dim in dims
        for sentence in CONTRADICTIONS.get(kind, _nothing)(evidence[dim], recording)
    ]
    return [*found, *_lengths(space, recording)]


# evidence


def _targets(recording: Recording) -> list[Match]:
    """Of each dimension, the state that it is nearest to, at the same step or a step later."""
    looks = [_pairs(recording, lag) for lag in (0, 1)]
    tables = [_gaps(*look) for look in looks if len(look[0])]  # gap, spread, r: [a p] each
    matches = []
    for dim in range(recording.flat.shape[1]):
        best = Match()
        for gaps, spreads, r in tables:
            for state in range(len(spreads)):
                match = Match(state, float(gaps[dim, state]), float(spreads[state]), float(r[dim, state]))
                best = max(best, match, key=_likeness)
        matches.append(best)
    return matches


def _likeness(match: Match) -> tuple[bool, float]:
    """In other units than the state's no gap is small, and the course alone tells."""
    near = match.gap <= NEAR * match.spread
    return (near, -match.gap / match.spread if near else match.r)


def _pairs(recording: Recording, lag: int) -> tuple[np.ndarray, np.ndarray]:
    """Actions, and the states `lag` steps later: [n a] and [n p]."""
    actions, states = [], []
    for own, seen in zip(recording.actions, recording.states, strict=True):
        count = max(0, min(len(own), len(seen) - lag))
        actions.append(own[:count])
        states.append(seen[lag : lag + count])
    return np.concatenate(actions).astype(np.float64), np.concatenate(states).astype(np.float64)


def _gaps(actions: np.ndarray, states: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Mean distances [a p], standard deviations of the states [p], correlations [a p], of states that move."""
    gaps = np.array([[np.abs(x - y).mean() for y in states.T] for x in actions.T])
    still = np.ptp(states, axis=0) < STILL
    gaps[:, still] = np.inf
    return gaps, np.where(still, 1.0, states.std(axis=0)), _correlations(actions, states)


def _motions(recording: Recording) -> list[Match]:
    """Of each dimension, the state whose change goes best with the actions of the same time, added up."""
    steps = recording.steps
    sums, changes = [], []
    for actions, states in zip(recording.actions, recording.states, strict=True):
        starts = max(0, min(len(actions) + 1, len(states)) - steps)
        added = np.concatenate([np.zeros((1, actions.shape[1])), actions.astype(np.float64).cumsum(axis=0)])
        sums.append((added[steps:] - added[:-steps])[:starts])
        changes.append((states[steps:].astype(np.float64) - states[:-steps])[:starts])
    r = _correlations(np.concatenate(sums), np.concatenate(changes))
    if not r.shape[1]:
        return [Match() for _ in r]
    return [Match(state=int(row.argmax()), r=float(row.max())) for row in r]


def _correlations(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Pearson's, of every column of x [n a] with every one of y [n p]: [a p]; 0 where one is still."""
    if len(x) < 2:
        return np.zeros((x.shape[1], y.shape[1]))
    x, y = x - x.mean(axis=0), y - y.mean(axis=0)
    sizes = np.sqrt((x**2).sum(axis=0))[:, None] * np.sqrt((y**2).sum(axis=0))[None]
    return np.divide(x.T @ y, sizes, out=np.zeros_like(sizes), where=sizes > 1e-12)


# verdicts


def _gripper(name: str, found: Evidence) -> Verdict | None:
    """Where a name or two commands say so."""
    if GRIPPER.search(name):
        moves = "" if not found.still else ", and it never moves"
        return Verdict(
            "gripper", f"by its name; {found.low:.3g} .. {found.high:.3g}{moves}", asks=found.still
        )
    if found.two_valued:
        return Verdict(
            "gripper", f"{found.low:.3g} or {found.high:.3g} in {100 * found.ends:.3g} % of the steps"
        )
    return None


def _verdict(recording: Recording, found: Evidence) -> Verdict:
    """Of a dimension that is no gripper."""
    target, motion = found.target, found.motion
    if found.still:
        kind: Kind = "absolute" if found.low else "delta"
        return Verdict(kind, f"always {found.low:.4g}: should it be omitted?", 1.0, asks=True)
    if target.gap <= NEAR * target.spread and target.r >= ALIKE:
        name = _state(recording, target)
        reason = f"mean |action - {name}| {target.gap:.2g}, std {target.spread:.2g}"
        return Verdict("absolute", reason, target.gap / target.spread)
    if motion.r >= ALIKE and motion.r > target.r:
        reason = f"added up over {SECONDS:g} s it goes with the change of {_state(recording, motion)}, r {motion.r:.2f}"
        return Verdict("delta", reason, 1 - motion.r)
    if target.r >= SAME_COURSE:
        return Verdict("absolute", f"it follows {_state(recording, target)}, r {target.r:.2f}", 1 - target.r)
    pose = found.far > 1
    reason = f"mean {found.mean:.2g}, std {found.std:.2g}, like nothing in the state: is 0 'stay'?"
    return Verdict("absolute" if pose else "delta", reason, 1.0, asks=True)


def _state(recording: Recording, match: Match) -> str:
    """As a reader calls it."""
    return f"state {recording.state_names[match.state] or match.state}"


def _quaternions(recording: Recording, verdicts: Sequence[Verdict]) -> Iterator[int]:
    """First dimensions of four in a row of length 1, none of which is a displacement or a gripper."""
    flat, first = recording.flat, 0
    while first + 4 <= flat.shape[1]:
        four = flat[:, first : first + 4]
        plain = all(verdict.kind != "gripper" for verdict in verdicts[first : first + 4])
        if plain and np.abs(np.linalg.norm(four, axis=1) - 1).mean() < UNIT_LENGTH and np.ptp(four) > STILL:
            yield first
            first += 4
        else:
            first += 1


def _quaternion(first_name: str) -> Verdict:
    if LAST.search(first_name):
        reason = (
            "of length 1: a quaternion with w last; kind quaternion needs w first (reorder: --data.columns)"
        )
        return Verdict("absolute", reason, asks=True)
    named = first_name.lower().endswith("w")
    return Verdict("quaternion", f"of length 1{'' if named else ': is w the first?'}", asks=not named)


def _turns(recording: Recording, verdicts: Sequence[Verdict]) -> Iterator[int]:
    """First dimensions of three displacements in a row that are named as turns."""
    first = 0
    while first + 3 <= len(verdicts):
        three = range(first, first + 3)
        if all(verdicts[dim].kind == "delta" and TURN.search(recording.names[dim]) for dim in three):
            yield first
            first += 3
        else:
            first += 1


def _turn(verdict: Verdict) -> Verdict:
    return Verdict("rotation", f"{verdict.reason}; named as a turn", verdict.doubt, verdict.asks)


# contradictions; each completes the sentence "action 2 (x) ..."


def _nothing(found: Evidence, recording: Recording) -> Iterator[str]:
    yield from ()


def _no_delta(found: Evidence, recording: Recording) -> Iterator[str]:
    """A "displacement" that equals a coordinate of the state, or has a pose for its mean, is a target."""
    if found.still:
        return
    if found.low >= 0 or found.high <= 0:
        never = f"never {'negative' if found.low >= 0 else 'positive'} ({found.low:.4g} .. {found.high:.4g})"
        yield f"is called a delta and is {never}: is it an absolute target?"
    elif found.far > POSE:
        yield (
            f"is called a delta and its mean is {found.mean:.3g}, {found.far:.2g} times its standard deviation "
            f"({found.std:.2g}): is it an absolute target?"
        )
    if found.target.gap < EQUAL * found.target.spread and found.target.r >= ALIKE:
        name = recording.state_names[found.target.state] or found.target.state
        yield (
            f"is called a delta and is nearly equal to the state's {name} (mean difference {found.target.gap:.2g}): is "
            "it an absolute target?"
        )


def _no_target(found: Evidence, recording: Recording) -> Iterator[str]:
    """A "target" that goes with how the state changes, and not with the state, is a displacement."""
    target, motion = found.target, found.motion
    if motion.r >= SURE_COURSE and target.r < SAME_COURSE and target.gap > NEAR * target.spread:
        name = recording.state_names[motion.state] or motion.state
        yield (
            f"is called an absolute target, and added up over {SECONDS:g} s it goes with the change of the state's "
            f"{name} (correlation {motion.r:.2f}), not with the state ({target.r:.2f}): is it a delta?"
        )


CONTRADICTIONS = {**dict.fromkeys(RELATIVE, _no_delta), "absolute": _no_target}


def _lengths(space: ActionSpace, recording: Recording) -> Iterator[str]:
    """Quaternions are of length 1."""
    for kind, dims in space.runs():
        for first in dims[:: WIDTHS["quaternion"]] if kind == "quaternion" else ():
            lengths = np.linalg.norm(recording.flat[:, first : first + 4], axis=1)
            if np.abs(lengths - 1).mean() >= UNIT_LENGTH:
                yield (
                    f"actions {first} to {first + 3} ({space.names[first]}, ...) are called a quaternion and have "
                    f"lengths {lengths.min():.3g} .. {lengths.max():.3g}, expected 1: are they in this order?"
                )
