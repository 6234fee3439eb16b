"""A policy behind XPolicyLab's websocket protocol, which RoboTwin's evaluator speaks.

Inference runs in one worker thread, so that heartbeats, other evaluators and the websocket's own pings are answered
meanwhile; a query whose asker has gone is dropped before it is computed. Of every chunk the first `replan_steps`
actions are sent, because the evaluator executes whatever it gets.

A connection must name the server's token, which `url` holds, as its path. What may wait is bounded: PENDING messages of
a connection, WAITING_BYTES of all together; further ones are answered with the error "busy", and no more is read from
their connection before that answer is taken. Knows nothing about processes and results.
"""

from __future__ import annotations

import asyncio
import hmac
import http
import logging
import re
import secrets
import time
from collections import defaultdict
from collections.abc import Callable, Coroutine
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from threading import Thread
from types import TracebackType
from typing import Any

from wamkit_client.chunk import ChunkExecutor
from wamkit_client.envs.robotwin.conventions import Layout, observation
from wamkit_client.envs.robotwin.wire import (
    ANSWERS,
    LARGEST_FRAME,
    Frame,
    WireError,
    error_frame,
    pack,
    unpack,
)
from wamkit_client.rollout import noise_seed
from wamkit_client.types import BadInput, Policy
from websockets.asyncio.server import ServerConnection, serve
from websockets.exceptions import ConnectionClosed
from websockets.http11 import Request, Response

HERE = "127.0.0.1"
TOKEN = re.compile(r"[A-Za-z0-9_-]{16,}")
CONNECTIONS = 64
PENDING = 8  # messages of one connection; an evaluator has one question at a time, and heartbeats
WAITING_BYTES = 4 * LARGEST_FRAME
LONGEST_MESSAGE = 2000  # characters of an error; a refused value may be huge
TOLD = ("seed", "episode")
FAILURES = {"infer": "infer_failed", "reset": "reset_failed"}
CONTROLS = {"joint": "joint", "qpos": "joint", "ee": "ee", "endpose": "ee"}

Work = Callable[[Frame], dict[str, Any] | None]
log = logging.getLogger(__name__)


@dataclass
class Trial:
    """What happened between two resets, as the server saw it.

    told: which episode it is in the evaluator's words, {"seed": the simulator's} or {"episode": counted from 0}.
    seed: what noise is drawn from: the seed or episode that was told, else the number of the reset.
    calls, milliseconds: of the queries; calls are counted over the server's life.
    error: what went wrong in the policy, which the evaluator may count as a failure.
    ended: "", "success" or "failure" as told.  steps: executed actions as told (0 = not told).
    """

    seed: int
    told: dict[str, int] = field(default_factory=dict)
    instruction: str = ""
    calls: list[int] = field(default_factory=list)
    milliseconds: list[float] = field(default_factory=list)
    error: str = ""
    ended: str = ""
    steps: int = 0


class PolicyServer:
    """Serves while it is entered. `port` 0 takes a free one; afterwards `port` is the real one.

    token: what connections must name; "" makes one.  trials: one for every reset by task name, in order.
    Raises BadInput for a token that is no word of a URL or easily guessed, and on entering where the address is taken.
    """

    def __init__(
        self,
        policy: Policy,
        layout: Layout,
        embodiment: str,
        replan_steps: int,
        host: str = HERE,
        port: int = 0,
        token: str = "",
    ) -> None:
        self.host, self.port, self.token = host, port, token or secrets.token_hex(16)
        if not TOKEN.fullmatch(self.token):
            raise BadInput("the token must have at least 16 letters, digits, - or _; expected a random one")
        self.trials: dict[str, list[Trial]] = defaultdict(list)
        self.layout, self.embodiment, self.replan_steps = layout, embodiment, replan_steps
        self._policy, self._calls = policy, 0
        self._current: dict[str, Trial] = {}  # by evaluation: a connection may break and come back
        self._connections = self._waiting = 0  # open now; bytes of messages under way
        self._turn = asyncio.Lock()
        self._worker = ThreadPoolExecutor(1, "policy")
        self._thread = Thread(target=lambda: asyncio.run(self._serve()), name="robotwin-server", daemon=True)
        self._ready: Future[asyncio.AbstractEventLoop] = Future()
        self._stop = asyncio.Event()

    @property
    def url(self) -> str:
        """What evaluators are told; whoever has it may ask."""
        return f"ws://{self.host}:{self.port}/{self.token}"

    def __enter__(self) -> PolicyServer:
        self._thread.start()
        self._ready.result()
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._ready.result().call_soon_threadsafe(self._stop.set)
        self._thread.join()
        self._worker.shutdown(cancel_futures=True)

    async def _serve(self) -> None:
        try:
            # Browsers name an origin; a page must not drive a robot. No pings: an idle evaluator is not a dead one.
            server = await serve(
                self._connection,
                self.host,
                self.port,
                origins=[None],
                process_request=self._admit,
                max_size=LARGEST_FRAME,
                max_queue=1,
                compression=None,
                ping_interval=None,
            )
        except OSError as error:
            self._ready.set_exception(
                BadInput(
                    f"{self.host}:{self.port} cannot be served ({error}); choose another port, or 0 for a free one"
                )
            )
            return
        async with server:
            self.port = next(iter(server.sockets)).getsockname()[1]
            self._ready.set_result(asyncio.get_running_loop())
            await self._stop.wait()

    def _admit(self, connection: ServerConnection, request: Request) -> Response | None:
        """An HTTP answer for those who are not let in."""
        if not hmac.compare_digest(request.path.encode(), f"/{self.token}".encode()):
            return connection.respond(http.HTTPStatus.UNAUTHORIZED, "the URL needs the server's token\n")
        if self._connections >= CONNECTIONS:
            return connection.respond(http.HTTPStatus.SERVICE_UNAVAILABLE, "too many connections\n")
        return None

    async def _connection(self, connection: ServerConnection) -> None:
        pending: set[asyncio.Task[None]] = set()
        self._connections += 1
        try:
            async for message in connection:
                data = message if isinstance(message, bytes) else message.encode()
                if len(pending) >= PENDING or self._waiting + len(data) > WAITING_BYTES:
                    await _send(connection, _busy(data))
                    continue
                self._begin(self._respond(connection, data), len(data), pending)
        except ConnectionClosed:
            pass
        finally:
            self._connections -= 1
            for task in pending:
                task.cancel()

    def _begin(self, answer: Coroutine[Any, Any, None], size: int, pending: set[asyncio.Task[None]]) -> None:
        def end(task: asyncio.Task[None]) -> None:
            pending.discard(task)
            self._waiting -= size

        self._waiting += size
        task = asyncio.create_task(answer)
        pending.add(task)
        task.add_done_callback(end)  # also of one that is cancelled before it has begun

    async def _respond(self, connection: ServerConnection, data: bytes) -> None:
        try:
            frame = unpack(data)
        except WireError as error:
            await _send(connection, error_frame(error))
            return
        if frame.message_type == "close":
            await connection.close()
        else:
            await _send(connection, await self._answer(frame))

    async def _answer(self, frame: Frame) -> Frame:
        in_the_worker: dict[str, Work] = {
            "reset": self._reset,
            "infer": self._infer,
            "trial_end": self._trial_end,
        }
        kind, payload = frame.message_type, {"ok": True, "server": "wamkit"}
        code, wrong = FAILURES.get(kind, "internal"), ""
        try:
            if kind not in ANSWERS:
                known = f"message_type {kind!r} is unknown; expected {', '.join(ANSWERS)} or close"
                raise WireError("unknown_message_type", known)
            if kind in in_the_worker:
                payload = await self._in_turn(in_the_worker[kind], frame) or payload
        except WireError as error:
            code, wrong = error.code, error.message
        except BadInput as error:
            wrong = str(error)
        except Exception as error:  # whatever broke in the policy: the evaluator must not wait for an answer
            log.exception("the policy failed")
            wrong = _named(error)
        if wrong:
            return frame.answer("error", {"code": code, "message": wrong[:LONGEST_MESSAGE], "details": {}})
        return frame.answer(ANSWERS[kind], payload)

    async def _in_turn(self, work: Work, frame: Frame) -> dict[str, Any] | None:
        """One after the other in the worker. A call there cannot be interrupted: where its asker goes away, the next
        waits for its end here, so that the worker's own queue, which nothing bounds, stays empty."""
        async with self._turn:
            running = asyncio.get_running_loop().run_in_executor(self._worker, work, frame)
            try:
                return await asyncio.shield(running)
            except asyncio.CancelledError:
                await asyncio.wait([running])
                raise

    def _reset(self, frame: Frame) -> None:
        asked = frame.payload.get("action_type", self.layout.control)
        if not isinstance(asked, str) or CONTROLS.get(asked) != self.layout.control:
            raise BadInput(
                f"action_type {asked!r} is asked for, but the policy acts by {self.layout.control!r}; "
                f"start the evaluator with action_type={self.layout.control}"
            )
        task, instruction = (frame.payload.get(key, "") for key in ("task_name", "instruction"))
        if not isinstance(task, str) or not isinstance(instruction, str):
            raise BadInput("reset's task_name and instruction must be words")
        told = {key: frame.payload[key] for key in TOLD if key in frame.payload}
        for key, number in told.items():
            if type(number) is not int or number < 0:
                raise BadInput(f"the episode's {key} is {number!r}, expected an integer from 0")
        self._policy.reset()
        number = next(iter(told.values()), len(self.trials[task]))
        trial = Trial(number, told, instruction)
        self.trials[task].append(trial)
        self._current[frame.evaluation_id] = trial

    def _infer(self, frame: Frame) -> dict[str, Any]:
        if frame.evaluation_id not in self._current:
            raise BadInput("infer before reset: an episode begins with reset")
        trial = self._current[frame.evaluation_id]
        try:
            return self._actions(frame.payload.get("observation"), trial)
        except (BadInput, WireError) as error:
            trial.error = str(error)[:LONGEST_MESSAGE]
            raise
        except Exception as error:
            trial.error = _named(error)[:LONGEST_MESSAGE]
            raise

    def _actions(self, seen: Any, trial: Trial) -> dict[str, Any]:
        try:
            if not isinstance(seen, dict):
                raise BadInput(f"infer's payload needs 'observation', a map; got {type(seen).__name__}")
            seed = noise_seed(trial.seed, len(trial.calls))
            asked = observation(seen, self.layout, self.embodiment, seed)
            trial.instruction = asked.instruction
            begin = time.perf_counter()
            chunk = self._policy.act([asked])[0]
        except BadInput as error:  # the asker's fault, not the policy's
            raise WireError("invalid_frame", str(error)) from None
        milliseconds = round(1000 * (time.perf_counter() - begin), 3)
        executor = ChunkExecutor(self.replan_steps)
        executor.give(chunk)
        actions = [self.layout.action(executor.next_action()) for _ in range(self.replan_steps)]
        trial.calls.append(self._calls)
        trial.milliseconds.append(milliseconds)
        self._calls += 1
        return {"actions": actions, "latency_ms": milliseconds}

    def _trial_end(self, frame: Frame) -> None:
        if frame.evaluation_id not in self._current:
            raise BadInput("trial_end before reset: an episode begins with reset")
        trial, steps = self._current[frame.evaluation_id], frame.payload.get("steps", 0)
        for key, number in trial.told.items():
            if frame.payload.get(key, number) != number:
                raise BadInput(
                    f"trial_end of {key} {frame.payload[key]!r}, but the last reset was of {key} {number}"
                )
        trial.ended = "success" if frame.payload.get("success") is True else "failure"
        trial.steps = steps if isinstance(steps, int) else 0


async def _send(connection: ServerConnection, answer: Frame) -> None:
    with suppress(ConnectionClosed):  # nobody is left to tell
        await connection.send(pack(answer))


def _busy(data: bytes) -> Frame:
    """The answer to a message that there is no room for."""
    try:
        frame = unpack(data)
    except WireError as error:
        return error_frame(error)
    wrong = f"too much is waiting; ask at most {PENDING} things at a time, and again later"
    return frame.answer("error", {"code": "busy", "message": wrong, "details": {}})


def _named(error: Exception) -> str:
    return f"{type(error).__name__}: {error}"
