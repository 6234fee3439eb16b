"""A policy that is served by another process, as if it were in this one."""

from __future__ import annotations

import json
import time
import uuid
from contextlib import ExitStack
from itertools import count
from types import TracebackType
from typing import Any, Dict, Iterator, List, Optional, Sequence, Tuple, Type

from websockets.exceptions import InvalidStatus, InvalidURI, WebSocketException
from websockets.sync.client import ClientConnection, connect

from wamkit_client.codec import LARGEST_MESSAGE, Malformed, pack, unpack
from wamkit_client.protocol import FAULTS, LATE, PASSING, PROTOCOL, Unreadable, to_chunks, to_message
from wamkit_client.types import ActionChunk, BadInput, Observation, Policy

SHORTEST_WAIT, LONGEST_WAIT = 0.05, 2.0
"""Seconds between two attempts; each time twice as many."""
GREETING_SECONDS = 10.0


class NoAnswer(ConnectionError):
    """The policy's server cannot be reached, or does not answer in time."""


class PolicyFailed(RuntimeError):
    """The policy broke while it was asked: the fault lies with the server."""


class _TryAgain(Exception):
    """This attempt failed, and another may not."""


class RemotePolicy(Policy):
    """The policy that a server serves at `url` ("ws://127.0.0.1:8000", "wss://..."). Connects with the first question.

    policy: its name, where the server has several.  key: what the server lets in; "": it asks for none.
    answer_seconds: an answer that takes longer is given up.  patience_seconds: for how long a lost or busy server is
    asked again, with growing pauses.  first_seconds: the same for one that was never reached; its address may be wrong.
    A question that was lost with its connection is asked again on another: a chunk is a function of the observation, so
    the episode goes on as if nothing had happened.

    Methods raise NoAnswer when time is over, PolicyFailed, and BadInput for what the server refuses: the URL, the key,
    an observation, a server of another version. One question at a time: for one thread.
    """

    def __init__(
        self,
        url: str,
        policy: str = "",
        key: str = "",
        answer_seconds: float = 60.0,
        patience_seconds: float = 60.0,
        first_seconds: float = 5.0,
    ) -> None:
        self.url, self.answer_seconds, self.patience_seconds = url, answer_seconds, patience_seconds
        self.first_seconds = first_seconds
        self._policy, self._headers = policy, {"Authorization": f"Api-Key {key}"} if key else {}
        self._names = (f"{uuid.uuid4().hex[:12]}-{number}" for number in count())
        self._open = ExitStack()
        self._socket: Optional[ClientConnection] = None
        self._reached = False  # whether there has been a server at this address

    def act(self, observations: Sequence[Observation]) -> List[ActionChunk]:
        """One chunk per observation; `info` holds the server's timing in milliseconds."""
        deadline = 1000 * self.answer_seconds
        answer = self._ask(observations=[to_message(seen) for seen in observations], deadline_ms=deadline)
        try:
            return to_chunks(answer, len(observations))
        except Unreadable as error:
            raise PolicyFailed(f"{self.url}: {error}") from None

    def reset(self) -> None:
        """A new episode begins."""
        self._ask(reset=True)

    def about(self) -> Dict[str, Any]:
        """What the server says about its policy: what a result has to record."""
        found: Dict[str, Any] = json.loads(self._ask(about=True)["about"])
        return found

    def close(self) -> None:
        """Hang up. The next question connects again."""
        self._socket = None
        self._open.close()

    def __enter__(self) -> RemotePolicy:
        return self

    def __exit__(
        self,
        kind: Optional[Type[BaseException]],
        error: Optional[BaseException],
        trace: Optional[TracebackType],
    ) -> None:
        self.close()

    def _ask(self, **content: Any) -> Dict[str, Any]:
        """The answer to a question, however many attempts it takes."""
        name = next(self._names)
        try:
            message = pack({"request_id": name, "policy": self._policy, **content})
        except TypeError as error:
            raise BadInput(f"the observation: {error}") from None
        began = 0.0
        for wait in _waits():
            try:
                return self._attempt(message, name)
            except _TryAgain as error:
                began = began or time.monotonic()
                if time.monotonic() + wait > began + self._patience:
                    raise NoAnswer(self._gave_up(error)) from None
            time.sleep(wait)
        raise AssertionError("waits never end")

    @property
    def _patience(self) -> float:
        return self.patience_seconds if self._reached else min(self.first_seconds, self.patience_seconds)

    def _gave_up(self, error: Exception) -> str:
        if self._reached:
            return f"{self.url} gave no answer for {self._patience:g} s: {error}"
        return (
            f"no policy server was found at {self.url} for {self._patience:g} s: {error}. Check host and port, and "
            "whether it runs; `wamkit serve` prints its address"
        )

    def _attempt(self, message: bytes, name: str) -> Dict[str, Any]:
        try:
            socket = self._connected()
            socket.send(message)
            answer = self._receive(socket, name)
        except (NoAnswer, PolicyFailed, BadInput):
            self.close()
            raise
        except (WebSocketException, OSError, EOFError) as error:
            self.close()
            raise _TryAgain(f"no connection ({error or type(error).__name__})") from None
        if "error" not in answer:
            return answer
        reason, wrong = _error(answer["error"])
        if reason in FAULTS:
            raise BadInput(wrong)
        if reason in PASSING:
            raise _TryAgain(f"{reason}: {wrong}")
        raise (NoAnswer if reason == LATE else PolicyFailed)(f"{self.url}: {wrong}")

    def _receive(self, socket: ClientConnection, name: str) -> Dict[str, Any]:
        """The answer to the question of that name; answers to others, which came too late, are passed over."""
        until = time.monotonic() + self.answer_seconds
        while True:
            try:
                frame = socket.recv(timeout=max(until - time.monotonic(), 0.0))
            except TimeoutError:
                raise NoAnswer(f"{self.url} gave no answer within {self.answer_seconds:g} s") from None
            answer = self._read(frame)
            if answer.get("request_id") == name:
                return answer

    def _read(self, frame: Any) -> Dict[str, Any]:
        if not isinstance(frame, bytes):  # openpi's way to tell of an error
            raise PolicyFailed(f"{self.url}: {frame[:2000]}")
        try:
            answer = unpack(frame)
        except Malformed as error:
            raise PolicyFailed(f"{self.url} answered with what is no message ({error})") from None
        if type(answer) is not dict:
            raise PolicyFailed(f"{self.url} answered with a {type(answer).__name__}, expected a map")
        return answer

    def _connected(self) -> ClientConnection:
        if self._socket is None:
            self._socket = self._connect()
        return self._socket

    def _connect(self) -> ClientConnection:
        try:  # entering is the only way to connect that every version of websockets has
            socket = self._open.enter_context(
                connect(
                    self.url, max_size=LARGEST_MESSAGE, compression=None, additional_headers=self._headers
                )
            )
        except InvalidURI as error:
            raise BadInput(f"{error}; the server's URL is ws://HOST:PORT, or wss:// with TLS") from None
        except InvalidStatus as error:
            self._reached = True
            status = error.response.status_code
            if status >= 500 or status == 429:
                raise
            raise BadInput(
                f"{self.url} does not let this client in (HTTP {status}); give a key that its file of keys has"
                if status in (401, 403)
                else f"{self.url} is not a policy server's (HTTP {status})"
            ) from None
        self._reached = True
        greeting = self._read(socket.recv(timeout=GREETING_SECONDS))
        spoken = str(greeting.get("protocol", "another protocol"))[:100]
        if spoken != PROTOCOL:
            raise BadInput(
                f"{self.url} speaks {spoken}, this client {PROTOCOL}; install wamkit and wamkit-client of one version"
            )
        return socket


def _error(told: Any) -> Tuple[str, str]:
    """Reason and message of an answer's error."""
    return (
        (str(told.get("reason")), str(told.get("message"))) if type(told) is dict else ("", str(told)[:2000])
    )


def _waits() -> Iterator[float]:
    wait = SHORTEST_WAIT
    while True:
        yield wait
        wait = min(2 * wait, LONGEST_WAIT)
