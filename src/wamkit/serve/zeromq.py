"""GR00T's transport: request sockets of ZeroMQ, at a port of their own beside a server's (dialects/gr00t.py).

Everything is the server's: its event loop, policies, keys, limits and metrics. What ZeroMQ does not give: it tells of
no connections, so these are not counted, a message that comes slowly is waited for, and nothing is encrypted.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from functools import partial
from typing import Literal

import zmq
import zmq.asyncio
from cachetools import LRUCache
from wamkit_client.types import BadInput

from wamkit.serve.dialects.base import NOTHING, Client, Message, Reply, read_message
from wamkit.serve.dialects.gr00t import Gr00t, arrays
from wamkit.serve.doors import HERE
from wamkit.serve.refusals import Reason, Refused, refusal
from wamkit.serve.server import GONE_SECONDS, Server
from wamkit.serve.traffic import Own

MOST_CLIENTS = 4096
"""That are remembered."""
LINGER_MS = 1000
"""For answers that are still being sent when the port is closed."""


class Gr00tPort:
    """Serves while `beside` a server is entered, in its event loop. port: of 0 a free one, afterwards the real one."""

    def __init__(self, dialect: Gr00t, host: str = HERE, port: int = 0) -> None:
        self.host, self.port, self._dialect = host, port, dialect

    @asynccontextmanager
    async def beside(self, server: Server) -> AsyncIterator[None]:
        """Answer. Raises BadInput on entering for an address in use."""
        context = zmq.asyncio.Context()
        socket = context.socket(zmq.ROUTER)
        try:
            self._bind(socket, server)
            listens = asyncio.create_task(self._listen(socket, server))
            try:
                yield
            finally:
                listens.cancel()
        finally:
            socket.close(linger=LINGER_MS)
            context.term()

    def _bind(self, socket: zmq.asyncio.Socket, server: Server) -> None:
        limits = server.service.limits
        socket.setsockopt(zmq.MAXMSGSIZE, limits.message_bytes)
        socket.setsockopt(zmq.RCVHWM, limits.pending)
        socket.setsockopt(zmq.HANDSHAKE_IVL, round(1000 * limits.open_seconds))
        socket.setsockopt(zmq.HEARTBEAT_IVL, 1000 * GONE_SECONDS // 3)
        socket.setsockopt(zmq.HEARTBEAT_TIMEOUT, 1000 * GONE_SECONDS)
        socket.setsockopt(zmq.IPV6, ":" in self.host)
        host = f"[{self.host}]" if ":" in self.host else self.host
        try:
            if self.port:
                socket.bind(f"tcp://{host}:{self.port}")
            else:
                self.port = socket.bind_to_random_port(f"tcp://{host}")
        except zmq.ZMQError as error:
            wrong = f"--gr00t-port {self.port}: {host} cannot be served ({error}); choose another port"
            raise BadInput(wrong) from None

    async def _listen(self, socket: zmq.asyncio.Socket, server: Server) -> None:
        known: LRUCache[bytes, tuple[Client, Own]] = LRUCache(MOST_CLIENTS)
        while True:
            parts = await socket.recv_multipart()
            if len(parts) != 3:  # not of a request socket, which waits for an answer
                continue
            name, _, data = parts
            known[name] = client, own = known.get(name) or (server.traffic.client(self._dialect), set())
            send = partial(self._send, server, socket, name, client, time.perf_counter())
            message = NOTHING
            try:
                message = read_message(data)
                owner = server.doors.owner_of(message.name("api_token"))
                if not owner:
                    raise BadInput("'api_token': expected a key that the server's file of keys has")
                server.traffic.expect_room(owner, own, len(data))
                message = Message(arrays(message.fields), message.decode_ms)
            except (Refused, BadInput) as error:
                refused = refusal(error)
                await send(self._dialect.refuse(message, refused), refused.reason)
            else:
                server.traffic.begin(self._answer(message, client, send), own, len(data))

    async def _answer(
        self, message: Message, client: Client, send: Callable[[Reply, Reason | Literal[""]], Awaitable[None]]
    ) -> None:
        reason: Reason | Literal[""] = ""
        try:
            reply = await self._dialect.answer(message, client)
        except Exception as error:  # whatever broke: a request socket waits for its answer
            refused = refusal(error, client.service.debug)
            reply, reason = self._dialect.refuse(message, refused), refused.reason
        await send(reply, reason)

    async def _send(
        self,
        server: Server,
        socket: zmq.asyncio.Socket,
        name: bytes,
        client: Client,
        arrived: float,
        reply: Reply,
        refused: Reason | Literal[""],
    ) -> None:
        await socket.send_multipart([name, b"", reply.frame])
        server.traffic.ended(client, arrived, refused)
