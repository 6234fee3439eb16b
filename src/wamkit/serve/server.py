"""A websocket server for a policy: who may connect, how much may wait, and one message at a time in a worker thread.

A Dialect knows the messages. Its work runs in one thread, so that heartbeats, other clients and the websocket's own
pings are answered meanwhile; work whose client has gone is dropped before it begins.

A connection must name the server's token, which `url` holds, as its path. What may wait is bounded: PENDING messages of
a connection, WAITING_BYTES of all together. Further ones are refused as the dialect words it, and no more is read from
their connection before that answer is taken.
"""

from __future__ import annotations

import asyncio
import hmac
import http
import re
import secrets
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from threading import Thread
from types import TracebackType
from typing import Protocol

from wamkit_client.codec import LARGEST_MESSAGE
from wamkit_client.types import BadInput
from websockets.asyncio.server import ServerConnection, serve
from websockets.exceptions import ConnectionClosed
from websockets.http11 import Request, Response

HERE = "127.0.0.1"
TOKEN = re.compile(r"[A-Za-z0-9_-]{16,}")
CONNECTIONS = 64
PENDING = 8  # messages of one connection; a robot has one query at a time, and heartbeats
WAITING_BYTES = 4 * LARGEST_MESSAGE

Work = Callable[[], bytes]


class Dialect(Protocol):
    """The messages of one protocol. Its methods run in the event loop and are quick; the work they return runs in the
    worker thread. None of them raises: whatever fails is answered."""

    def read(self, message: bytes) -> bytes | Work | None:
        """The answer, or work that computes it, or None where the client says goodbye."""

    def busy(self, message: bytes) -> bytes:
        """The answer to a message that there is no room for."""


class Server:
    """Serves while it is entered. `port` 0 takes a free one; afterwards `port` is the real one.

    token: what connections must name; "" makes one.
    Raises BadInput for a token that does not fit a URL or is easily guessed, and on entering for an address in use.
    """

    def __init__(self, dialect: Dialect, host: str = HERE, port: int = 0, token: str = "") -> None:
        self.host, self.port, self.token = host, port, token or secrets.token_hex(16)
        if not TOKEN.fullmatch(self.token):
            raise BadInput("the token must have at least 16 letters, digits, - or _; expected a random one")
        self._dialect = dialect
        self._connections = self._waiting = 0  # open now; bytes of messages under way
        self._turn = asyncio.Lock()
        self._worker = ThreadPoolExecutor(1, "policy")
        self._thread = Thread(target=lambda: asyncio.run(self._serve()), name="server", daemon=True)
        self._ready: Future[asyncio.AbstractEventLoop] = Future()
        self._stop = asyncio.Event()

    @property
    def url(self) -> str:
        """What clients are given; whoever has it may connect."""
        return f"ws://{self.host}:{self.port}/{self.token}"

    def __enter__(self) -> Server:
        self._thread.start()
        self._ready.result()
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._ready.result().call_soon_threadsafe(self._stop.set)
        self._thread.join()
        self._worker.shutdown(cancel_futures=True)

    async def _serve(self) -> None:
        try:
            # Browsers send an origin; a web page must not drive a robot. No pings: an idle client is not a dead one.
            server = await serve(
                self._connection,
                self.host,
                self.port,
                origins=[None],
                process_request=self._admit,
                max_size=LARGEST_MESSAGE,
                max_queue=1,
                compression=None,
                ping_interval=None,
            )
        except OSError as error:
            wrong = f"{self.host}:{self.port} cannot be served ({error}); choose another port, or 0 for a free one"
            self._ready.set_exception(BadInput(wrong))
            return
        async with server:
            self.port = next(iter(server.sockets)).getsockname()[1]
            self._ready.set_result(asyncio.get_running_loop())
            await self._stop.wait()

    def _admit(self, connection: ServerConnection, request: Request) -> Response | None:
        """The HTTP answer to those who are refused, None for the others."""
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
                    await _send(connection, self._dialect.busy(data))
                else:
                    self._begin(connection, data, pending)
        except ConnectionClosed:
            pass
        finally:
            self._connections -= 1
            for task in pending:
                task.cancel()

    def _begin(self, connection: ServerConnection, data: bytes, pending: set[asyncio.Task[None]]) -> None:
        def end(task: asyncio.Task[None]) -> None:
            pending.discard(task)
            self._waiting -= len(data)

        self._waiting += len(data)
        task = asyncio.create_task(self._respond(connection, data))
        pending.add(task)
        task.add_done_callback(end)  # a callback, because a task may be cancelled before it has begun

    async def _respond(self, connection: ServerConnection, data: bytes) -> None:
        reply = self._dialect.read(data)
        if reply is None:
            await connection.close()
        else:
            await _send(connection, reply if isinstance(reply, bytes) else await self._in_turn(reply))

    async def _in_turn(self, work: Work) -> bytes:
        """One after the other in the worker. Running work cannot be interrupted: where its client has gone, the next
        waits for its end here, so that the worker's own queue, which nothing bounds, stays empty."""
        async with self._turn:
            running = asyncio.get_running_loop().run_in_executor(self._worker, work)
            try:
                return await asyncio.shield(running)
            except asyncio.CancelledError:
                await asyncio.wait([running])
                raise


async def _send(connection: ServerConnection, answer: bytes) -> None:
    with suppress(ConnectionClosed):  # nobody is left to tell
        await connection.send(answer)
