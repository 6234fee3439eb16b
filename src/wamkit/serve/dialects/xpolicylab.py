"""XPolicyLab's protocol, which RoboTwin's evaluator speaks; a record is kept of the last attempts.

Of every chunk the first `replan_steps` actions are sent, because the evaluator executes whatever it gets. Messages of
one evaluation are answered in their order. Knows nothing about processes and results.
"""

from __future__ import annotations

import asyncio
import itertools
import logging
from collections import deque
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from cachetools import LRUCache
from wamkit_client.chunk import checked
from wamkit_client.envs.robotwin.conventions import Layout, RoboTwinConfig, layout_of, to_observation
from wamkit_client.envs.robotwin.wire import ANSWERS, Frame, WireError, error_frame, pack, read
from wamkit_client.rollout import noise_seed
from wamkit_client.types import BadInput

from wamkit.serve.dialects.base import Client, Message, Reply
from wamkit.serve.refusals import Reason, Refused
from wamkit.serve.served import Facts, Served

EPISODE_NAMES = ("seed", "episode")
FAILURES = {"infer": "infer_failed", "reset": "reset_failed"}
CODES: Mapping[Reason, str] = {"malformed": "invalid_frame", "failed": "internal"}
"""Of errors that are found before a message is read, or outside of this protocol; of all others "busy"."""
ACTION_TYPES = {"joint": "joint", "qpos": "joint", "ee": "ee", "endpose": "ee"}
MOST_TASKS, MOST_ATTEMPTS, MOST_EVALUATIONS = 64, 10_000, 256
"""That are remembered; names of tasks and evaluations are the client's."""

Outcome = Literal["", "success", "failure"]
log = logging.getLogger(__name__)


@dataclass
class Attempt:
    """What happened between two resets, as the server saw it.

    told: which episode the evaluator said it is: {"seed": the simulator's}, {"episode": counted from 0}, {} = neither.
    seed: of the sampler's noise: the seed or episode that was told, else the number of the reset.
    calls, milliseconds: of the queries; calls are numbered over all attempts.
    error: what went wrong in a query, which the evaluator may count as a failure.
    outcome: as told ("" = not told).  steps: executed actions as told (0 = not told).
    """

    seed: int
    told: dict[str, int] = field(default_factory=dict)
    instruction: str = ""
    calls: list[int] = field(default_factory=list)
    milliseconds: list[float] = field(default_factory=list)
    error: str = ""
    outcome: Outcome = ""
    steps: int = 0


@dataclass
class _Evaluation:
    """turn: of its messages.  attempt: at its present episode; None before the first reset."""

    turn: asyncio.Lock = field(default_factory=asyncio.Lock)
    attempt: Attempt | None = None


class XPolicyLab:
    """A Dialect. attempts: one for every reset, by task name, in order."""

    name = "xpolicylab"

    def __init__(self) -> None:
        self.attempts: LRUCache[str, deque[Attempt]] = LRUCache(MOST_TASKS)
        self._calls = itertools.count()
        self._evaluations: LRUCache[str, _Evaluation] = LRUCache(
            MOST_EVALUATIONS
        )  # outlive their connections
        self._handlers: dict[str, Callable[[Frame, Client], Awaitable[dict[str, Any]]]] = {
            "reset": self._reset,
            "infer": self._infer,
            "trial_end": self._trial_end,
        }

    def speaks(self, fields: Mapping[Any, Any]) -> bool:
        return "message_type" in fields

    async def answer(self, message: Message, client: Client) -> Reply | None:
        try:
            frame = read(message.fields)
        except WireError as error:
            return Reply(pack(error_frame(error)), refused="malformed")
        if frame.message_type == "close":
            return None
        if frame.message_type in self._handlers:
            evaluation = self._evaluation(frame)
            async with evaluation.turn:
                return await self._handled(frame, client)
        if frame.message_type in ANSWERS:
            return _answered(frame)
        known = f"message_type {frame.message_type!r} is unknown; expected {', '.join(ANSWERS)} or close"
        return Reply(pack(frame.refuse(WireError("unknown_message_type", known))), refused="bad_request")

    def refuse(self, message: Message, error: Refused) -> Reply:
        wrong = WireError(CODES.get(error.reason, "busy"), error.message)
        try:
            return Reply(pack(read(message.fields).refuse(wrong)))
        except WireError:
            return Reply(pack(error_frame(wrong)))

    async def _handled(self, frame: Frame, client: Client) -> Reply:
        kind = frame.message_type
        reason: Reason = "bad_request"
        try:
            return _answered(frame, await self._handlers[kind](frame, client))
        except WireError as error:
            wrong = error
        except BadInput as error:
            wrong = WireError(FAILURES.get(kind, "internal"), str(error))
        except Refused as error:
            wrong, reason = (
                WireError("busy" if error.reason == "busy" else FAILURES[kind], error.message),
                error.reason,
            )
        except Exception as error:  # whatever broke in the policy: the evaluator must not wait for an answer
            log.exception("the policy failed")
            wrong = WireError(FAILURES.get(kind, "internal"), f"{type(error).__name__}: {error}")
            reason = "failed"
        attempt = self._evaluation(frame).attempt
        if kind == "infer" and attempt:
            attempt.error = wrong.message
        return Reply(pack(frame.refuse(wrong)), refused=reason)

    def _evaluation(self, frame: Frame) -> _Evaluation:
        found: _Evaluation = self._evaluations.setdefault(frame.evaluation_id, _Evaluation())
        return found

    async def _reset(self, frame: Frame, client: Client) -> dict[str, Any]:
        served, layout = _served(client)
        asked = frame.payload.get("action_type", layout.control)
        if not isinstance(asked, str) or ACTION_TYPES.get(asked) != layout.control:
            raise BadInput(
                f"action_type {asked!r} is asked for, but the policy acts by {layout.control!r}; "
                f"start the evaluator with action_type={layout.control}"
            )
        task, instruction = (frame.payload.get(key, "") for key in ("task_name", "instruction"))
        if not isinstance(task, str) or not isinstance(instruction, str):
            raise BadInput("reset's task_name and instruction must be strings")
        told = {key: frame.payload[key] for key in EPISODE_NAMES if key in frame.payload}
        for key, number in told.items():
            if type(number) is not int or number < 0:
                raise BadInput(f"the episode's {key} is {number!r}, expected an integer from 0")
        await client.reset(served)
        attempts = self.attempts.setdefault(task, deque(maxlen=MOST_ATTEMPTS))
        attempt = Attempt(next(iter(told.values()), len(attempts)), told, instruction)
        attempts.append(attempt)
        self._evaluation(frame).attempt = attempt
        return {}

    async def _infer(self, frame: Frame, client: Client) -> dict[str, Any]:
        attempt, seen = self._attempt(frame), frame.payload.get("observation")
        if not isinstance(seen, dict):
            wrong = f"infer's payload needs 'observation', a map; got {type(seen).__name__}"
            raise WireError("invalid_frame", wrong)
        served, layout = _served(client)
        steps = served.facts.replan_steps
        try:
            seed = noise_seed(attempt.seed, len(attempt.calls))
            observation = replace(to_observation(seen, layout, _robot(served.facts), seed), steps=steps)
            client.compare(served, observation)
            attempt.instruction = observation.instruction
            answer = await client.ask(served, [observation], frame.evaluation_id)
        except BadInput as error:  # the client's fault, not the policy's
            raise WireError("invalid_frame", str(error)) from None
        actions = [layout.action(action) for action in checked(answer.chunks[0], steps)[:steps]]
        milliseconds = round(1000 * answer.timing.called, 3)
        attempt.calls.append(next(self._calls))
        attempt.milliseconds.append(milliseconds)
        return {"actions": actions, "latency_ms": milliseconds}

    async def _trial_end(self, frame: Frame, client: Client) -> dict[str, Any]:
        attempt, payload = self._attempt(frame), frame.payload
        for key, number in attempt.told.items():
            if payload.get(key, number) != number:
                raise BadInput(
                    f"trial_end of {key} {payload[key]!r}, but the last reset was of {key} {number}"
                )
        steps = payload.get("steps", 0)
        attempt.outcome = "success" if payload.get("success") is True else "failure"
        attempt.steps = steps if isinstance(steps, int) else 0
        return {}

    def _attempt(self, frame: Frame) -> Attempt:
        attempt = self._evaluation(frame).attempt
        if attempt is None:
            raise BadInput(f"{frame.message_type} before reset: an episode begins with reset")
        return attempt


def _served(client: Client) -> tuple[Served, Layout]:
    """The policy, and what its numbers mean. BadInput where it is of another robot."""
    served = client.service.policies.find()
    return served, layout_of(served.facts.action_names)


def _robot(facts: Facts) -> str:
    """RoboTwin does not name its robot: the policy's only one, or the usual one."""
    return facts.robot("" if len(facts.robots) == 1 else RoboTwinConfig.embodiment).name


def _answered(frame: Frame, payload: dict[str, Any] | None = None) -> Reply:
    return Reply(pack(frame.answer(ANSWERS[frame.message_type], payload or {"ok": True, "server": "wamkit"})))
