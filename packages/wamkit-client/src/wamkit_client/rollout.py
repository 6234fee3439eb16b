"""One closed-loop episode: observe, ask, execute, record.

An Episode takes control steps until a query is due, so that whoever drives it may ask one policy for many episodes at
once. It knows an environment and an executor (chunk.py); `rollout` adds a policy. No processes, no statistics.
"""

from __future__ import annotations

import io
import math
from dataclasses import dataclass, replace
from typing import Any, Dict, List, Optional, Union

import numpy as np

from wamkit_client.chunk import DECAY, EXECUTORS, Act, Ask, Executor, Hold
from wamkit_client.envs.base import Env, InitialState, project
from wamkit_client.files import replace_file
from wamkit_client.smoothness import Pace, Smoothness
from wamkit_client.types import ActionChunk, BadInput, Observation, Policy


@dataclass(frozen=True)
class EpisodeConfig:
    """replan_steps: actions executed of every chunk.  max_steps: control steps before the episode has failed.

    record: keep images of every step (slower: it renders at each step instead of each query).
    executor: "sync", "async", "ensemble" or "guided", see chunk.py.
    delay_ms: from a query to its answer, in whole control steps of the environment, rounded up. In a simulator the
        world stands still while a policy thinks; a delay measures what its latency would cost a robot. With nothing
        left to execute, the robot holds: a step of the environment's `idle_action`.
    ensemble_decay: of the weights of "ensemble".
    """

    replan_steps: int
    max_steps: int
    record: bool = False
    executor: str = "sync"
    delay_ms: float = 0.0
    ensemble_decay: float = DECAY

    def __post_init__(self) -> None:
        if self.max_steps < 1:
            raise BadInput(f"max_steps is {self.max_steps}, expected at least 1")
        if self.executor not in EXECUTORS:
            raise BadInput(f"executor {self.executor!r} is unknown; expected one of {', '.join(EXECUTORS)}")
        EXECUTORS[self.executor](self.replan_steps, 0, self.ensemble_decay)

    def delay_steps(self, hz: float) -> int:
        """The delay in control steps, of which there are `hz` in a second."""
        return math.ceil(round(self.delay_ms * hz / 1000, 6))

    def new_executor(self, hz: float) -> Executor:
        """The executor of one episode, which expects the delay. BadInput for numbers that do not go together."""
        return EXECUTORS[self.executor](self.replan_steps, self.delay_steps(hz), self.ensemble_decay)


@dataclass(frozen=True)
class Outcome:
    """How an episode ended: solved or not, after how many control steps and queries of the policy, how smoothly."""

    initial_state: InitialState
    success: bool
    steps: int
    queries: int
    smoothness: Smoothness


class Recording:
    """Everything a report draws, of one episode of t steps and q queries; arrays in the .npz file:

    view_<name> uint8 [t + 1, h, w, 3], display uint8 [t + 1, H, W, 3], proprio [t + 1, p] (row t: after the last
    action); action [t, a] as executed; query_step int [q], query_chunk [q, k, a], query_path [q, k, 2]: pixels
    (u right, v down) in the display image of that step; success bool.
    """

    def __init__(self) -> None:
        self.observations: List[Observation] = []
        self._displays: List[np.ndarray] = []
        self._actions: List[np.ndarray] = []
        self._query_steps: List[int] = []
        self._camera = np.zeros((3, 4))  # of the last query's display image
        self._chunks: List[np.ndarray] = []
        self._paths: List[np.ndarray] = []

    def see(self, observation: Observation, display: np.ndarray) -> None:
        self.observations.append(observation)
        self._displays.append(display)

    def ask(self, step: int, camera: np.ndarray) -> None:
        self._query_steps.append(step)
        self._camera = camera

    def answer(self, chunk: np.ndarray, path: np.ndarray) -> None:
        """path: world points [k, 3] of the chunk [k, a]."""
        self._chunks.append(chunk)
        self._paths.append(project(self._camera, path))

    def act(self, action: np.ndarray) -> None:
        self._actions.append(action)

    def arrays(self, success: bool) -> Dict[str, Any]:
        views = self.observations[0].images
        arrays = {
            f"view_{name}": np.stack([seen.images[name] for seen in self.observations]) for name in views
        }
        arrays["display"] = np.stack(self._displays)
        arrays["proprio"] = np.stack([seen.proprio for seen in self.observations])
        arrays["action"] = np.stack(self._actions).astype(np.float32)
        arrays["query_step"] = np.array(self._query_steps)
        arrays["query_chunk"] = np.stack(self._chunks).astype(np.float32)
        arrays["query_path"] = np.stack(self._paths).astype(np.float32)
        arrays["success"] = np.array(success)
        return arrays


def noise_seed(seed: int, query: int) -> int:
    """What a sampling policy draws the chunk of this query from: a function of episode and query, of nothing else."""
    return int(np.random.SeedSequence([seed, query]).generate_state(1, np.uint64)[0] >> np.uint64(1))


class Questions:
    """What a policy is asked about in one episode: observations, with what it has to know beside them.

    seed: of the episode; every query draws noise of its own. episode: its name. count: queries so far.
    """

    def __init__(self, seed: int, episode: str, executor: Executor) -> None:
        self._seed, self._episode, self._executor = seed, episode, executor
        self.count = 0

    def about(self, seen: Observation, ask: Ask, step: int) -> Observation:
        """The next query. step: of the episode, at which this was seen."""
        seed = noise_seed(self._seed, self.count)
        self.count += 1
        return replace(
            seen,
            noise_seed=seed,
            previous=ask.previous,
            delay=ask.delay,
            steps=self._executor.wanted,
            episode=self._episode,
            step=step,
        )


class Episode:
    """One episode from a seed: `next_query` and `answer` by turns, until there is no further query.

    initial_state: what the episode began from.  steps: control steps so far.  over: it is solved, or none is left.
    """

    def __init__(self, env: Env, seed: int, config: EpisodeConfig) -> None:
        self._env, self._config = env, config
        self.initial_state = env.reset(seed)
        self._executor, self._delay = config.new_executor(env.control_hz), config.delay_steps(env.control_hz)
        self._questions = Questions(seed, f"{self.initial_state.task}_{seed}", self._executor)
        self._pace = Pace(env.control_hz)
        self._recording = Recording()
        self.steps = 0
        self._success = self.over = False
        self._begun = np.zeros(0)  # proprio at the first query, before the first step
        self._actions: List[np.ndarray] = []
        self._answer_due = 0  # the control step before which the answer to the last query arrives
        self._asked: Observation  # about what the last query was
        if config.record:
            self._recording.see(env.observe(), env.display())

    def next_query(self) -> Optional[Observation]:
        """Take control steps until the policy is to be asked: what it is asked about; None when the episode is over."""
        while not self.over:
            decision = self._executor.next()
            if isinstance(decision, Ask):
                return self._ask(decision)
            self._step(decision)
        return None

    def answer(self, chunk: ActionChunk) -> None:
        """The chunk for the last query. BadInput for a broken one.

        It arrives after the delay: the steps until then are taken first, as if the policy had thought meanwhile.
        """
        while self.steps < self._answer_due and not self.over:
            decision = self._executor.next()
            assert not isinstance(decision, Ask), "one query at a time"
            self._step(decision)
        self._executor.give(chunk)
        if self._config.record:
            path = self._env.chunk_path(self._asked.proprio, chunk.actions)
            self._recording.answer(np.asarray(chunk.actions), path)

    def _ask(self, ask: Ask) -> Observation:
        if self._config.record:
            self._recording.ask(self.steps, self._env.cameras()["display"])
            seen = self._recording.observations[-1]
        else:
            seen = self._env.observe()
        if not self.steps:
            self._begun = seen.proprio
        self._asked = self._questions.about(seen, ask, self.steps)
        self._answer_due = self.steps + self._delay
        return self._asked

    def _step(self, decision: Union[Act, Hold]) -> None:
        last = self._actions[-1] if self._actions else None
        action = decision.action if isinstance(decision, Act) else self._env.idle_action(last)
        result = self._env.step(action)
        self._pace.take(decision)
        self._actions.append(action)
        self.steps += 1
        self._success = result.success
        self.over = result.success or result.done or self.steps >= self._config.max_steps
        if self._config.record:
            self._recording.act(action)
            self._recording.see(self._env.observe(), self._env.display())

    @property
    def outcome(self) -> Outcome:
        smoothness = self._pace.smoothness(self._path())
        return Outcome(self.initial_state, self._success, self.steps, self._questions.count, smoothness)

    def _path(self) -> np.ndarray:
        """Where the hand was told to be after each step so far: [t, 3]."""
        if not self._actions:
            return np.zeros((0, 3))
        return self._env.chunk_path(self._begun, np.stack(self._actions))

    def save(self, path: str) -> None:
        """Write the recording as a compressed .npz file, atomically. NotSaved, and no file, where the disk refuses."""
        packed = io.BytesIO()  # a zip file that cannot be closed would raise something else than OSError
        np.savez_compressed(packed, **self._recording.arrays(self._success))
        replace_file(path, packed.getbuffer())


def rollout(policy: Policy, env: Env, seed: int, config: EpisodeConfig) -> Outcome:
    """One episode in this process."""
    policy.reset()
    episode = Episode(env, seed, config)
    observation = episode.next_query()
    while observation:
        episode.answer(policy.act([observation])[0])
        observation = episode.next_query()
    return episode.outcome
