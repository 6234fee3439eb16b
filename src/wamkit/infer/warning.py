"""The world model warns: what it expected for now, some queries ago, is held against what the cameras show now.

With every query of a known episode (Observation.episode, step) a Watcher keeps what the policy's world model expects,
in latents or features (types.Foresight). A later query of the episode is compared with what was expected for its
moment, at least `ahead` seconds before. The score is the squared error by patch in multiples of the usual one there, on
average over patches: 1 is as wrong as usual. Above a threshold it is an alarm. What is usual and what is too much is
measured on episodes that the policy was not trained on (stages/calibrate.py). Chunks are those of the engine alone.
"""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor
from wamkit_client.types import ActionChunk, BadInput, Observation
from wamkit_client.types import Policy as ClientPolicy

from wamkit.foresight import Foreseeing
from wamkit.infer.engine import Engine
from wamkit.infer.threads import threads
from wamkit.spans import Span

EPISODES = 1024
"""Episodes that are remembered at a time; the one that was asked about least lately is forgotten first."""
EXACT = 1e-3
"""Control steps that are no difference."""


@dataclass(frozen=True)
class Usual:
    """Of one robot. errors [t][s]: the usual squared error by frame ahead and patch. threshold: of the score."""

    errors: list[list[float]]
    threshold: float


@dataclass(frozen=True)
class Expectation:
    """What was seen at a step [s d], and what was expected there for each of the `later` steps [t s d]."""

    step: int
    seen: Tensor
    steps: tuple[float, ...]
    later: Tensor


@dataclass(frozen=True)
class Compared:
    """A moment that something was expected for. frame: how far ahead, as a number of the frames after the present.

    expected, seen [s d]: then and now. before [s d]: what was seen when it was expected.
    """

    frame: int
    expected: Tensor
    seen: Tensor
    before: Tensor

    def score(self, usual: Usual) -> float:
        """See the module docstring."""
        return relative(self.expected, self.seen, usual.errors[self.frame])

    def still(self, usual: Usual) -> float:
        """The score of who expects that nothing moves."""
        return relative(self.before, self.seen, usual.errors[self.frame])


def errors(expected: Float[Tensor, "s d"], seen: Float[Tensor, "s d"]) -> Float[np.ndarray, " s"]:
    """Mean squared error of every patch."""
    found: np.ndarray = (expected.double() - seen.double()).square().mean(dim=1).cpu().numpy()
    return found


def relative(expected: Float[Tensor, "s d"], seen: Float[Tensor, "s d"], usual: Sequence[float]) -> float:
    """The error in multiples of the usual one, on average over patches."""
    return float((errors(expected, seen) / np.asarray(usual)).mean())


@dataclass(frozen=True)
class _Memory:
    """Of one episode: expectations, the oldest first. slack: control steps that a comparison may be off.

    ahead: control steps; frames that were expected sooner after their query are not compared with.
    """

    slack: float
    ahead: float
    kept: deque[Expectation] = field(default_factory=deque)

    def compare(self, step: int, seen: Tensor) -> list[Compared]:
        """With what was expected for the time nearest to `step`, by the latest query where several are as near; nothing
        where none is near."""
        near = [
            (abs(at - step), -one.step, frame, one)
            for one in self.kept
            if one.step < step
            for frame, at in enumerate(one.steps)
            if abs(at - step) <= self.slack + EXACT and at - one.step >= self.ahead - EXACT
        ]
        found = sorted(near, key=lambda each: each[:2])[:1]
        return [Compared(frame, one.later[frame], seen, one.seen) for _, _, frame, one in found]

    def keep(self, new: Expectation) -> None:
        """Forget what this query puts in the shade: those from its step on, which are of an attempt before it or of
        another episode of the name, and those that nothing can be compared with any more."""
        while self.kept and self.kept[-1].step >= new.step:
            self.kept.pop()
        while self.kept and self.kept[0].steps[-1] + self.slack < new.step:
            self.kept.popleft()
        self.kept.append(new)


def replayed(expectations: Sequence[Expectation], slack: float, ahead: float) -> list[list[Compared]]:
    """What a Watcher finds at the queries of one episode, in their order. slack, ahead: control steps."""
    memory, found = _Memory(slack, ahead), []
    for now in expectations:
        found.append(memory.compare(now.step, now.seen))
        memory.keep(now)
    return found


class Watcher:
    """What comes of expectations, query by query. ahead: seconds, as the module docstring has it; 0: every expectation
    counts.

    BadInput for a policy that expects nothing, or nothing so far ahead.
    """

    def __init__(self, engine: Engine[Foreseeing], ahead: float = 0.0) -> None:
        if not isinstance(engine.policy, Foreseeing):
            raise BadInput(
                "eval.warn: this policy has no world model that could be held against what happens"
            )
        furthest = engine.policy.data.frame_times[-1]
        if not 0 <= ahead <= furthest:
            raise BadInput(
                f"ahead {ahead:g} s: expected from 0 to {furthest:g}, the furthest that this policy expects"
            )
        self.engine, self._foresee, self._ahead = engine, engine.policy.foreseer(engine.passes), ahead
        self._episodes: OrderedDict[str, _Memory] = OrderedDict()

    def compare(self, observations: Sequence[Observation]) -> list[list[Compared]]:
        """For each observation one comparison, or none: at the beginning of an episode, and where the observation does
        not say which episode it is of."""
        found: list[list[Compared]] = [[] for _ in observations]
        for robot in dict.fromkeys(seen.embodiment for seen in observations if seen.episode):
            own = [n for n, seen in enumerate(observations) if seen.episode and seen.embodiment == robot]
            for n, now in zip(own, self.expectations([observations[n] for n in own]), strict=True):
                memory = self._memory(observations[n].episode, robot)
                found[n] = memory.compare(now.step, now.seen)
                memory.keep(now)
        return found

    @torch.inference_mode()
    def expectations(self, observations: Sequence[Observation]) -> list[Expectation]:
        """Of observations of one robot."""
        engine = self.engine
        with threads(engine.threads), Span("warning"):
            generators = [torch.Generator().manual_seed(seen.noise_seed) for seen in observations]
            query = engine.query(engine.clip(observations), generators)
            foresight = self._foresee(query, engine.encoder)
        offsets = self._offsets(observations[0].embodiment)
        return [
            Expectation(seen.step, now, tuple(seen.step + offset for offset in offsets), later)
            for seen, now, later in zip(observations, foresight.now, foresight.later, strict=True)
        ]

    def slack(self, robot: str) -> float:
        """Control steps that a comparison may be off: half of what lies between two frames that are expected."""
        return min(later - sooner for sooner, later in pairwise((0.0, *self._offsets(robot)))) / 2

    def ahead(self, robot: str) -> float:
        """In control steps."""
        return self._ahead * self.engine.spec(robot).hz

    def _offsets(self, robot: str) -> list[float]:
        """Control steps of the frames after the present."""
        spec = self.engine.spec(robot)
        return [time * spec.hz for time in spec.frame_times[1:]]

    def _memory(self, episode: str, robot: str) -> _Memory:
        memory = self._episodes.pop(episode, _Memory(self.slack(robot), self.ahead(robot)))
        self._episodes[episode] = memory
        while len(self._episodes) > EPISODES:
            self._episodes.popitem(last=False)
        return memory


class Watched(ClientPolicy):
    """An engine, with "warning" in the `info` of every chunk whose observation could be compared:
    {"step": the observation's, "score", "still": what the score would be had it been expected that nothing moves,
    "threshold", "alarm": whether the score is above it}.

    usual: by robot.
    """

    def __init__(self, watcher: Watcher, usual: Mapping[str, Usual]) -> None:
        self.engine, self._usual, self._watcher = watcher.engine, usual, watcher

    def act(self, observations: Sequence[Observation]) -> list[ActionChunk]:
        """The engine's chunks. BadInput for a robot that the warning was not calibrated for."""
        for seen in observations:
            if seen.episode and seen.embodiment not in self._usual:
                raise BadInput(
                    f"warning: it was calibrated for {', '.join(self._usual)} and not for robot {seen.embodiment!r}; "
                    "calibrate it with episodes of that robot too, or act without --eval.warn"
                )
        chunks = self.engine.act(observations)
        found = self._watcher.compare(observations)
        for seen, chunk, compared in zip(observations, chunks, found, strict=True):
            for own in compared:
                usual = self._usual[seen.embodiment]
                score = own.score(usual)
                chunk.info["warning"] = {
                    "step": seen.step,
                    "score": score,
                    "still": own.still(usual),
                    "threshold": usual.threshold,
                    "alarm": score > usual.threshold,
                }
        return chunks

    def reset(self) -> None:
        """As the engine; what is remembered is remembered by episode."""
        self.engine.reset()
