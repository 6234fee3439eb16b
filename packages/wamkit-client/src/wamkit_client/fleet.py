"""Many episodes at once: environments in processes, and policy calls for the queries that are due.

Environments are served as they become ready, so that a slow one delays no other. The policy is asked about one
observation at a time, so that an episode does not depend on what else runs. In batched mode it is asked about several
in one call: then every environment is waited for and observations keep the order of the lanes, so that batches do not
depend on timing. Episodes share the policy, which is reset once at the beginning: a policy with a memory needs one
process. An environment that crashes gives its episode the status "error" and is replaced; the others go on.
"""

from __future__ import annotations

import time
from collections import deque
from dataclasses import dataclass, field
from threading import Event
from typing import AbstractSet, Any, Dict, Iterator, List, Optional, Sequence, Tuple, Union

from wamkit_client.envs.base import InitialState, Task
from wamkit_client.envs.vector import ANSWER_SECONDS, EnvCrashed, EnvProcess, Host, ended
from wamkit_client.rollout import Episode, EpisodeConfig, Outcome
from wamkit_client.smoothness import Smoothness
from wamkit_client.types import ActionChunk, BadInput, Observation, Policy

NEVER = Event()  # is never set


@dataclass(frozen=True)
class EpisodeJob:
    """One episode to run. recording: path of the .npz file, written when config.record is on."""

    task: Task
    seed: int
    config: EpisodeConfig
    recording: str = ""


@dataclass(frozen=True)
class EpisodeResult:
    """status: "success", "failure", or "error" (the environment crashed: says nothing about the policy).

    vector: the initial state; empty when the environment crashed before it had one.
    One entry for each policy call this episode took part in: query_call counts the calls of the run (0 warms up),
    query_ms is its wall time, query_batch the episodes that shared it.
    smoothness: None of an episode that crashed.
    warnings: what a watched policy said of queries that it could compare with what it had expected, in their order:
        {"step", "score", "still", "threshold", "alarm"}; () of a policy that is not watched.
    """

    task: str
    seed: int
    status: str
    steps: int
    vector: Tuple[float, ...]
    query_call: Tuple[int, ...]
    query_ms: Tuple[float, ...]
    query_batch: Tuple[int, ...]
    error: str = ""
    smoothness: Optional[Smoothness] = None
    warnings: Tuple[Dict[str, Any], ...] = ()


@dataclass(frozen=True)
class _Turn:
    """A process's answer: what the episode began from, its control steps so far, and the observation to ask the policy
    about, or how it ended."""

    initial_state: InitialState
    steps: int
    said: Union[Observation, Outcome]


@dataclass
class _Lane:
    """One process, the episode it runs, and the queries made for it."""

    process: EnvProcess
    job: EpisodeJob
    steps: int = 0
    vector: Tuple[float, ...] = ()
    query_call: List[int] = field(default_factory=list)
    query_ms: List[float] = field(default_factory=list)
    query_batch: List[int] = field(default_factory=list)
    warnings: List[Dict[str, Any]] = field(default_factory=list)

    def receive(self, seconds: float, demonstrated: AbstractSet[str]) -> Union[Observation, EpisodeResult]:
        """The observation to ask the policy about, or how the episode ended."""
        try:
            turn: _Turn = self.process.receive(seconds)
        except EnvCrashed as crash:
            return self._result("error", str(crash))
        state = turn.initial_state
        if state.key() in demonstrated:
            raise BadInput(
                f"{state.task}: seed {state.seed} begins from a state that was demonstrated in training "
                f"({state.key()}); a score must be measured on other initial states: choose another first_seed"
            )
        self.steps, self.vector = turn.steps, state.vector
        if isinstance(turn.said, Observation):
            return turn.said
        status = "success" if turn.said.success else "failure"
        return self._result(status, smoothness=turn.said.smoothness)

    def _result(self, status: str, error: str = "", smoothness: Optional[Smoothness] = None) -> EpisodeResult:
        queries = tuple(self.query_call), tuple(self.query_ms), tuple(self.query_batch)
        return EpisodeResult(
            self.job.task.name,
            self.job.seed,
            status,
            self.steps,
            self.vector,
            *queries,
            error,
            smoothness,
            tuple(self.warnings),
        )


def run_episodes(
    policy: Policy,
    processes: Sequence[EnvProcess],
    jobs: Sequence[EpisodeJob],
    demonstrated: AbstractSet[str] = frozenset(),
    answer_seconds: float = ANSWER_SECONDS,
    stop: Event = NEVER,
    batched: bool = False,
) -> Iterator[EpisodeResult]:
    """Results as episodes end.

    demonstrated: keys of initial states that no episode may begin from.
    answer_seconds: an environment that takes longer for an answer is ended, and its episode is an error.
    stop: once it is set, no query follows, and running episodes have no result.
    batched: one policy call for all episodes that need a chunk, in place of one for each. The last bits of a chunk then
        depend on which other episodes run.
    Raises BadInput when an episode begins from a demonstrated state and for a policy's malformed chunks, NotSaved when
    the disk refuses a recording.
    """
    policy.reset()
    queue, idle = deque(jobs), deque(processes)
    running: List[_Lane] = []
    asking: List[Tuple[_Lane, Observation]] = []
    call = 0
    while (queue or running or asking) and not stop.is_set():
        while queue and idle:
            lane = _Lane(idle.popleft(), queue.popleft())
            lane.process.send(_begin, lane.job)
            running.append(lane)
        for lane in list(running) if batched else _ended(running, answer_seconds, block=not asking):
            running.remove(lane)
            received = lane.receive(answer_seconds, demonstrated)
            if isinstance(received, Observation):
                asking.append((lane, received))
            else:
                idle.append(lane.process)
                yield received
        batch, asking = (asking, []) if batched else (asking[:1], asking[1:])
        if batch and not stop.is_set():
            _ask(policy, batch, call)
            running += [lane for lane, _ in batch]
            call += 1


def _ended(lanes: Sequence[_Lane], seconds: float, block: bool) -> List[_Lane]:
    """The lanes whose process `ended`."""
    processes = ended([lane.process for lane in lanes], seconds, block)
    return [lane for lane in lanes if lane.process in processes]


def _ask(policy: Policy, batch: Sequence[Tuple[_Lane, Observation]], call: int) -> None:
    begin = time.perf_counter()
    chunks = policy.act([observation for _, observation in batch])
    milliseconds = round(1000 * (time.perf_counter() - begin), 3)
    if len(chunks) != len(batch):
        raise BadInput(
            f"the policy returned {len(chunks)} chunks for {len(batch)} observations, expected one each"
        )
    for (lane, _), chunk in zip(batch, chunks):
        lane.query_call.append(call)
        lane.query_ms.append(milliseconds)
        lane.query_batch.append(len(batch))
        lane.warnings += chunk.warnings
        lane.process.send(_answer, chunk)


def _begin(host: Host, job: EpisodeJob) -> _Turn:
    episode = Episode(host.env(job.task), job.seed, job.config)
    host.notes.update(episode=episode, job=job)
    return _turn(episode, job)


def _answer(host: Host, chunk: ActionChunk) -> _Turn:
    episode: Episode = host.notes["episode"]
    episode.answer(chunk)
    return _turn(episode, host.notes["job"])


def _turn(episode: Episode, job: EpisodeJob) -> _Turn:
    observation = episode.next_query()
    if episode.over and job.config.record:
        episode.save(job.recording)
    return _Turn(episode.initial_state, episode.steps, observation or episode.outcome)
