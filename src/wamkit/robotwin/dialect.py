"""XPolicyLab's protocol, which RoboTwin's evaluator speaks, in front of a policy; it keeps a record of every attempt.

Of every chunk the first `replan_steps` actions are sent, because the evaluator executes whatever it gets.
Knows nothing about connections, processes and results.
"""

from __future__ import annotations

import logging
import time
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Literal

from wamkit_client.chunk import checked
from wamkit_client.envs.robotwin.conventions import Layout, to_observation
from wamkit_client.envs.robotwin.wire import ANSWERS, Frame, WireError, error_frame, pack, unpack
from wamkit_client.rollout import noise_seed
from wamkit_client.types import BadInput, Policy

from wamkit.serve.server import PENDING, Work

EPISODE_NAMES = ("seed", "episode")
FAILURES = {"infer": "infer_failed", "reset": "reset_failed"}
ACTION_TYPES = {"joint": "joint", "qpos": "joint", "ee": "ee", "endpose": "ee"}

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


class XPolicyLab:
    """A Dialect (wamkit/serve/server.py). attempts: one for every reset, by task name, in order."""

    def __init__(self, policy: Policy, layout: Layout, embodiment: str, replan_steps: int) -> None:
        self.layout, self.embodiment, self.replan_steps = layout, embodiment, replan_steps
        self.attempts: dict[str, list[Attempt]] = defaultdict(list)
        self._policy, self._calls = policy, 0
        self._current: dict[str, Attempt] = {}  # by evaluation: a connection may break and come back
        self._handlers: dict[str, Callable[[Frame], dict[str, Any]]] = {
            "reset": self._reset,
            "infer": self._infer,
            "trial_end": self._trial_end,
        }

    def read(self, message: bytes) -> bytes | Work | None:
        try:
            frame = unpack(message)
        except WireError as error:
            return pack(error_frame(error))
        if frame.message_type == "close":
            return None
        if frame.message_type in self._handlers:
            return partial(self._answer, frame)
        if frame.message_type in ANSWERS:
            return _answered(frame)
        known = f"message_type {frame.message_type!r} is unknown; expected {', '.join(ANSWERS)} or close"
        return pack(frame.refuse(WireError("unknown_message_type", known)))

    def busy(self, message: bytes) -> bytes:
        try:
            frame = unpack(message)
        except WireError as error:
            return pack(error_frame(error))
        wrong = f"too much is waiting; ask at most {PENDING} things at a time, and again later"
        return pack(frame.refuse(WireError("busy", wrong)))

    def _answer(self, frame: Frame) -> bytes:
        kind = frame.message_type
        try:
            return _answered(frame, self._handlers[kind](frame))
        except WireError as error:
            wrong = error
        except BadInput as error:
            wrong = WireError(FAILURES.get(kind, "internal"), str(error))
        except Exception as error:  # whatever broke in the policy: the evaluator must not wait for an answer
            log.exception("the policy failed")
            wrong = WireError(FAILURES.get(kind, "internal"), f"{type(error).__name__}: {error}")
        if kind == "infer" and frame.evaluation_id in self._current:
            self._current[frame.evaluation_id].error = wrong.message
        return pack(frame.refuse(wrong))

    def _reset(self, frame: Frame) -> dict[str, Any]:
        control = self.layout.control
        asked = frame.payload.get("action_type", control)
        if not isinstance(asked, str) or ACTION_TYPES.get(asked) != control:
            raise BadInput(
                f"action_type {asked!r} is asked for, but the policy acts by {control!r}; "
                f"start the evaluator with action_type={control}"
            )
        task, instruction = (frame.payload.get(key, "") for key in ("task_name", "instruction"))
        if not isinstance(task, str) or not isinstance(instruction, str):
            raise BadInput("reset's task_name and instruction must be strings")
        told = {key: frame.payload[key] for key in EPISODE_NAMES if key in frame.payload}
        for key, number in told.items():
            if type(number) is not int or number < 0:
                raise BadInput(f"the episode's {key} is {number!r}, expected an integer from 0")
        self._policy.reset()
        number = next(iter(told.values()), len(self.attempts[task]))
        attempt = Attempt(number, told, instruction)
        self.attempts[task].append(attempt)
        self._current[frame.evaluation_id] = attempt
        return {}

    def _infer(self, frame: Frame) -> dict[str, Any]:
        attempt, seen = self._attempt(frame), frame.payload.get("observation")
        if not isinstance(seen, dict):
            wrong = f"infer's payload needs 'observation', a map; got {type(seen).__name__}"
            raise WireError("invalid_frame", wrong)
        try:
            seed = noise_seed(attempt.seed, len(attempt.calls))
            observation = to_observation(seen, self.layout, self.embodiment, seed)
            attempt.instruction = observation.instruction
            begin = time.perf_counter()
            chunk = self._policy.act([observation])[0]
        except BadInput as error:  # the client's fault, not the policy's
            raise WireError("invalid_frame", str(error)) from None
        milliseconds = round(1000 * (time.perf_counter() - begin), 3)
        executed = checked(chunk, self.replan_steps)[: self.replan_steps]
        actions = [self.layout.action(action) for action in executed]
        attempt.calls.append(self._calls)
        attempt.milliseconds.append(milliseconds)
        self._calls += 1
        return {"actions": actions, "latency_ms": milliseconds}

    def _trial_end(self, frame: Frame) -> dict[str, Any]:
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
        if frame.evaluation_id not in self._current:
            raise BadInput(f"{frame.message_type} before reset: an episode begins with reset")
        return self._current[frame.evaluation_id]


def _answered(frame: Frame, payload: dict[str, Any] | None = None) -> bytes:
    return pack(frame.answer(ANSWERS[frame.message_type], payload or {"ok": True, "server": "wamkit"}))
