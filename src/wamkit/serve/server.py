"""One port for robots, simulators and those who watch: websockets in any of several dialects, and pages over HTTP.

The server runs in a thread of its own, with one event loop. Policies compute in the scheduler's worker, so pages, other
clients and the websocket's own pings are answered meanwhile. What may wait is bounded (limits.py); further messages
are refused as their dialect words it, and no more is read from their connection before that answer is taken.

A client that has vanished without a word is found by the kernel (keep-alive, user timeout) and not by unanswered pings:
a robot that is slow to answer them is not a dead one.
"""

from __future__ import annotations

import asyncio
import http
import json
import socket
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from contextlib import AbstractAsyncContextManager, AsyncExitStack, suppress
from functools import partial
from threading import Thread
from types import MappingProxyType, TracebackType
from typing import cast

from wamkit_client.types import BadInput
from websockets.asyncio.server import Server as WebSockets
from websockets.asyncio.server import ServerConnection, serve
from websockets.datastructures import Headers
from websockets.exceptions import ConnectionClosed
from websockets.http11 import Request, Response

from wamkit.serve.dialects.base import NOTHING, Client, Dialect, Message, Reply, Service, read_message
from wamkit.serve.doors import HERE, WHOEVER_IS_HERE, Doors
from wamkit.serve.punctual import PunctualConnection
from wamkit.serve.refusals import Refused, refusal
from wamkit.serve.traffic import Own, Traffic

GONE_SECONDS = 60
"""After which the kernel gives up a connection whose other end does not acknowledge."""

Page = Callable[[], tuple[str, str]]
"""Content type and text of a page."""
NO_PAGES: Mapping[str, Page] = MappingProxyType({})


class Server:
    """Serves while it is entered. `port` 0 takes a free one; afterwards `port` is the real one.

    dialects: of two that speak a message the first answers it, and the last one answers what cannot be read.
    greeting: what a client is sent when it connects; b"": nothing. pages: by path, for those who may connect.
    beside: further ports, which are open as long (zeromq.py).
    `/healthz` says that the process lives, `/readyz` that policies are served and that it is not about to end.
    Raises BadInput on entering for an address in use.
    """

    def __init__(
        self,
        service: Service,
        dialects: Sequence[Dialect],
        doors: Doors = WHOEVER_IS_HERE,
        host: str = HERE,
        port: int = 0,
        greeting: Callable[[], bytes] = bytes,
        pages: Mapping[str, Page] = NO_PAGES,
        beside: Sequence[Callable[[Server], AbstractAsyncContextManager[None]]] = (),
    ) -> None:
        self.host, self.port, self.service, self.doors = host, port, service, doors
        self.traffic = Traffic(service)
        self._dialects, self._greeting, self._pages, self._beside = dialects, greeting, pages, beside
        self._open: Counter[str] = Counter()  # connections by owner of a key
        self._thread = Thread(target=lambda: asyncio.run(self._serve()), name="server", daemon=True)
        self._ready: Future[asyncio.AbstractEventLoop] = Future()
        self._stop = asyncio.Event()

    @property
    def url(self) -> str:
        """What clients are given; of a server with one key, it holds that: whoever has it may connect."""
        keys = list(self.doors.keys.values())
        return self.address + (f"/{keys[0]}" if len(keys) == 1 else "")

    @property
    def address(self) -> str:
        """Without a key."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{'wss' if self.doors.tls else 'ws'}://{host}:{self.port}"

    def __enter__(self) -> Server:
        self._thread.start()
        self._ready.result()
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        """Answer what was asked, for `limits.drain_seconds` at most, and close."""
        self._ready.result().call_soon_threadsafe(self._stop.set)
        self._thread.join()

    def in_turn(self, work: Callable[[], None]) -> None:
        """Run something in the thread that calls the policies, between two calls, and wait for it. From another thread.

        Raises what it raises.
        """
        loop = self._ready.result()
        asyncio.run_coroutine_threadsafe(self.service.scheduler.in_turn(work), loop).result()

    async def _serve(self) -> None:
        async with AsyncExitStack() as ports:
            try:
                server = await ports.enter_async_context(await self._listen())
                for beside in self._beside:
                    await ports.enter_async_context(beside(self))
            except BadInput as error:
                self._ready.set_exception(error)
                return
            scheduler = asyncio.create_task(self.service.scheduler.run())
            self.port = next(iter(server.sockets)).getsockname()[1]
            self._ready.set_result(asyncio.get_running_loop())
            await self._stop.wait()
            server.close(close_connections=False)  # nobody new; what follows answers the others
            await self.traffic.drain()
            await asyncio.gather(*(each.close(1001, "the server ends") for each in server.connections))
            scheduler.cancel()

    async def _listen(self) -> WebSockets:
        limits, watch = self.service.limits, self.service.watch
        late = partial(watch.refused, self._dialects[-1].name, "slow")
        punctual = partial(PunctualConnection, seconds=limits.message_seconds, late=late)
        try:
            # Browsers send an origin; a web page must not drive a robot.
            return await serve(
                self._connection,
                self.host,
                self.port,
                create_connection=cast(type[ServerConnection], punctual),
                origins=[None],
                process_request=self._admit,
                max_size=limits.message_bytes,
                max_queue=1,
                compression=None,
                open_timeout=limits.open_seconds,
                ping_interval=None,
                server_header=None,
                ssl=self.doors.tls,
                ssl_handshake_timeout=limits.open_seconds if self.doors.tls else None,
            )
        except (OSError, OverflowError) as error:  # the latter of a port that there is not
            wrong = f"{self.host}:{self.port} cannot be served ({error}); choose another port, or 0 for a free one"
            raise BadInput(wrong) from None

    def _admit(self, connection: ServerConnection, request: Request) -> Response | None:
        """The HTTP answer to pages and to those who are refused, None for the others."""
        if request.path == "/healthz":
            return connection.respond(http.HTTPStatus.OK, "OK\n")
        if request.path == "/readyz":
            ready = bool(self.service.policies.all) and not self._stop.is_set()
            status = http.HTTPStatus.OK if ready else http.HTTPStatus.SERVICE_UNAVAILABLE
            return connection.respond(status, "ready\n" if ready else "not ready\n")
        owner = self.doors.owner(request)
        if not owner:
            wanted = "expected the header Authorization: Api-Key KEY, or ws://HOST:PORT/KEY\n"
            return connection.respond(http.HTTPStatus.UNAUTHORIZED, wanted)
        if request.path in self._pages and "Upgrade" not in request.headers:
            kind, text = self._pages[request.path]()
            headers = Headers({"Content-Type": kind, "Content-Length": str(len(text.encode()))})
            return Response(http.HTTPStatus.OK, "OK", headers, text.encode())
        if no_room := self._no_room(owner):
            return connection.respond(http.HTTPStatus.SERVICE_UNAVAILABLE, no_room)
        return None

    def _no_room(self, owner: str) -> str:
        """Why there is no room for one more connection; "" where there is."""
        limits = self.service.limits
        if self._open.total() >= limits.connections:
            return "too many connections\n"
        if self._open[owner] >= limits.connections_per_key:
            return "too many connections with this key\n"
        return "" if self.service.policies.all else "policies are being loaded\n"

    async def _connection(self, connection: ServerConnection) -> None:
        _expect_signs_of_life(connection)
        assert connection.request is not None
        owner = self.doors.owner(connection.request)
        client = self.traffic.client(self._dialects[-1])
        own: Own = set()
        self._open[owner] += 1
        self.service.watch.connected(1)
        try:
            if greeting := self._greeting():
                await connection.send(greeting)
            async for data in connection:
                await self._begin(connection, client, owner, data, own)
        except ConnectionClosed:
            pass
        finally:
            self._open[owner] -= 1
            self.service.watch.connected(-1)
            for task in own:
                task.cancel()

    async def _begin(
        self,
        connection: ServerConnection,
        client: Client,
        owner: str,
        data: str | bytes,
        own: Own,
    ) -> None:
        """Have a message answered, or refuse it at once."""
        arrived = time.perf_counter()
        message = NOTHING
        try:
            message = read_message(data if isinstance(data, bytes) else data.encode())
            client.dialect = self._dialect(message)
            self.traffic.expect_room(owner, own, len(data))
        except Refused as error:
            await self._send(connection, client, client.dialect.refuse(message, error), arrived, error)
            return
        answer = self._answer(connection, client, client.dialect, message, arrived)
        self.traffic.begin(answer, own, len(data))

    def _dialect(self, message: Message) -> Dialect:
        return next((one for one in self._dialects if one.speaks(message.fields)), self._dialects[-1])

    async def _answer(
        self,
        connection: ServerConnection,
        client: Client,
        dialect: Dialect,
        message: Message,
        arrived: float,
    ) -> None:
        refused = None
        try:
            reply = await dialect.answer(message, client)
        except Exception as error:  # whatever broke: the client must not wait for an answer
            refused = refusal(error, self.service.debug)
            reply = dialect.refuse(message, refused)
        await self._send(connection, client, reply, arrived, refused)

    async def _send(
        self,
        connection: ServerConnection,
        client: Client,
        reply: Reply | None,
        arrived: float,
        refused: Refused | None,
    ) -> None:
        if reply is None:
            await connection.close()
            return
        with suppress(ConnectionClosed):  # nobody is left to tell
            await connection.send(reply.frame)
            if reply.ends:
                await connection.close(1011, reply.ends)
        self.traffic.ended(client, arrived, refused.reason if refused else reply.refused)


def json_page(content: Callable[[], object]) -> Page:
    """A page of JSON."""
    return lambda: ("application/json", json.dumps(content(), indent=1) + "\n")


def _expect_signs_of_life(connection: ServerConnection) -> None:
    """Have the kernel end a connection whose other end is gone."""
    connected: socket.socket = connection.transport.get_extra_info("socket")
    connected.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    connected.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, GONE_SECONDS // 2)
    connected.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, GONE_SECONDS // 6)
    connected.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPCNT, 3)
    connected.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, 1000 * GONE_SECONDS)
