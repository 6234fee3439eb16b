"""A policy that is asked from a thread of its own, so that a robot moves on while it thinks."""

from __future__ import annotations

import time
from dataclasses import dataclass
from queue import Empty, SimpleQueue
from threading import Thread
from types import TracebackType
from typing import Callable, Optional, Type, Union

from wamkit_client.types import ActionChunk, Observation, Policy

LEAVING_SECONDS = 1.0
"""For which a question that is being answered is waited for at the end."""


@dataclass(frozen=True)
class Answer:
    """A chunk, and how long the policy took for it."""

    chunk: ActionChunk
    seconds: float


class Background:
    """Questions to a policy and its answers, in this order: ask, answer, ask, ... The first is `warm_up`.

    All are asked from one thread, since threads of a numeric library are started anew for every thread that calls it. A
    policy that does not answer keeps nobody from leaving: the thread ends with the process.
    """

    def __init__(self, policy: Policy) -> None:
        self._policy = policy
        self._questions: SimpleQueue[Optional[Callable[[], ActionChunk]]] = SimpleQueue()
        self._answers: SimpleQueue[Union[Answer, BaseException]] = SimpleQueue()
        self._thread = Thread(target=self._work, name="policy", daemon=True)

    def __enter__(self) -> Background:
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: Optional[Type[BaseException]],
        error: Optional[BaseException],
        trace: Optional[TracebackType],
    ) -> None:
        self._questions.put(None)
        self._thread.join(LEAVING_SECONDS)

    def warm_up(self, seen: Observation) -> None:
        """Ask what is not used, and reset the policy: an episode begins. Returns at once."""
        self._questions.put(lambda: self._first(seen))

    def ask(self, seen: Observation) -> None:
        """Returns at once."""
        self._questions.put(lambda: self._policy.act([seen])[0])

    def answer(self) -> Optional[Answer]:
        """The answer to the last question, once; None while there is none. Raises what the policy raised."""
        try:
            found = self._answers.get_nowait()
        except Empty:
            return None
        if isinstance(found, BaseException):
            raise found
        return found

    def _first(self, seen: Observation) -> ActionChunk:
        chunk = self._policy.act([seen])[0]
        self._policy.reset()
        return chunk

    def _work(self) -> None:
        try:
            for question in iter(self._questions.get, None):
                began = time.monotonic()
                chunk = question()
                self._answers.put(Answer(chunk, time.monotonic() - began))
        except BaseException as error:  # raised where the answer is waited for
            self._answers.put(error)
