"""The websocket server under the smallest dialect there is."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator

import pytest
from wamkit_client.types import BadInput
from websockets.exceptions import ConnectionClosedOK, InvalidStatus
from websockets.sync.client import connect

from wamkit.serve import server as server_module
from wamkit.serve.server import PENDING, Server, Work


class Echo:
    """A Dialect. "wait": work that ends when `go` is set.  "work": work.  "bye": the end. Others are answered at once.

    worked: what came to the worker.
    """

    def __init__(self) -> None:
        self.worked: list[bytes] = []
        self.go = threading.Event()

    def read(self, message: bytes) -> bytes | Work | None:
        word = message.partition(b" ")[0]
        if word == b"bye":
            return None
        return (lambda: self._work(message)) if word in (b"wait", b"work") else message

    def busy(self, message: bytes) -> bytes:
        return b"busy"

    def _work(self, message: bytes) -> bytes:
        self.worked.append(message)
        if message.startswith(b"wait"):
            assert self.go.wait(30)
        return message

    def until_it_waits(self) -> None:
        while not self.worked:
            time.sleep(0.01)


@pytest.fixture
def echo() -> Echo:
    return Echo()


@pytest.fixture
def server(echo: Echo) -> Iterator[Server]:
    with Server(echo) as running:
        yield running


def test_who_may_ask(server: Server) -> None:
    """Those who know the token; the server makes one unless it is given one."""
    place, token = server.url.rsplit("/", 1)
    assert server.url.startswith("ws://127.0.0.1:")
    for path in ("", "/", "/wrong", f"/{token[:-1]}", f"/{token}/more", f"/?{token}", "/%00\u00e9"):
        with pytest.raises(InvalidStatus, match="401"), connect(place + path):
            pass
    with pytest.raises(InvalidStatus, match="403"):  # a page in a browser names its origin
        connect(server.url, origin="http://evil.example")
    with Server(Echo(), token="of_my_own_0123456789") as other:
        assert other.url.endswith(f":{other.port}/of_my_own_0123456789") and token not in other.url
        with connect(other.url):
            pass
    for weak in ("secret", "with a space in it....", "a/b/c/d/e/f/g/h/i/j/k"):
        with pytest.raises(BadInput, match="at least 16 letters"):
            Server(Echo(), token=weak)
    with pytest.raises(BadInput, match="choose another port"), Server(Echo(), port=server.port):
        pass


def test_answers_do_not_wait_for_the_worker(server: Server, echo: Echo) -> None:
    with connect(server.url) as first, connect(server.url) as second:
        first.send(b"wait")
        echo.until_it_waits()
        first.send(b"still there?")  # on the same connection
        assert first.recv(timeout=30) == b"still there?"
        second.send("and here?")  # text is as good as bytes
        assert second.recv(timeout=30) == b"and here?"
        echo.go.set()
        assert first.recv(timeout=30) == b"wait"
        first.send(b"bye")
        with pytest.raises(ConnectionClosedOK):
            first.recv(timeout=30)


def test_work_whose_client_has_gone_is_not_done(server: Server, echo: Echo) -> None:
    with connect(server.url) as first, connect(server.url) as second:
        first.send(b"wait")
        echo.until_it_waits()
        second.send(b"work nobody waits for")
        second.close()
        time.sleep(0.3)  # until the server has noticed
        echo.go.set()
        first.recv(timeout=30)
        first.send(b"work afterwards")
        first.recv(timeout=30)
    assert echo.worked == [b"wait", b"work afterwards"]


def test_running_work_whose_client_has_gone_does_not_run_beside_the_next(server: Server, echo: Echo) -> None:
    with connect(server.url) as second:
        with connect(server.url) as first:
            first.send(b"wait")
            echo.until_it_waits()
        second.send(b"work")
        time.sleep(0.3)
        assert echo.worked == [b"wait"]
        echo.go.set()
        assert second.recv(timeout=30) == b"work"


def test_what_may_wait_is_bounded(server: Server, echo: Echo) -> None:
    with connect(server.url) as first:
        first.send(b"wait")
        echo.until_it_waits()
        asked = [b"work %d" % number for number in range(PENDING - 1)]
        for message in asked:
            first.send(message)
        for _ in range(3):
            first.send(b"one more")
            assert first.recv(timeout=30) == b"busy"
        with connect(server.url) as other:
            other.send(b"not me")
            assert other.recv(timeout=30) == b"not me"
        echo.go.set()
        assert [first.recv(timeout=30) for _ in range(PENDING)] == [b"wait", *asked]
        first.send(b"again")
        assert first.recv(timeout=30) == b"again"


def test_waiting_messages_have_room_for_so_many_bytes(
    server: Server, echo: Echo, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(server_module, "WAITING_BYTES", 100_000)
    large, small = b"work " + bytes(60_000), b"work " + bytes(30_000)
    with connect(server.url) as first:
        first.send(b"wait " + bytes(60_000))
        echo.until_it_waits()
        for _ in range(5):  # they send, and go away: what they sent is forgotten
            with connect(server.url) as other:
                other.send(small)
        time.sleep(0.2)  # until the server has noticed
        with connect(server.url) as last:
            last.send(large)
            assert last.recv(timeout=30) == b"busy"
            last.send(b"at once" + bytes(20_000))
            assert last.recv(timeout=30) == b"at once" + bytes(20_000)
            echo.go.set()
            first.recv(timeout=30)
            last.send(large)
            assert last.recv(timeout=30) == large


def test_connections_are_counted(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server_module, "CONNECTIONS", 2)
    with connect(server.url), connect(server.url) as second:
        with pytest.raises(InvalidStatus, match="503"), connect(server.url):
            pass
        second.close()
        time.sleep(0.2)  # until the server has noticed
        with connect(server.url):
            pass
