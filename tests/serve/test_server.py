"""The server under openpi's dialect: who may connect, how much may wait, what is said to whom. Real sockets."""

from __future__ import annotations

import http.client
import socket
import subprocess
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from wamkit_client.codec import pack, unpack
from wamkit_client.types import BadInput
from websockets.exceptions import ConnectionClosedError, ConnectionClosedOK, InvalidStatus, WebSocketException
from websockets.sync.client import ClientConnection, connect

from tests.serve.robots import FACTS, ROBOT, Echo, libero, service
from tests.until import SECONDS, until
from wamkit.data.colours import Colours
from wamkit.serve.dialects.openpi import OpenPi
from wamkit.serve.doors import WHOEVER_IS_HERE, Doors, expect_guarded, read_keys, tls_context
from wamkit.serve.limits import Limits
from wamkit.serve.refusals import refusal
from wamkit.serve.served import Policies, Served
from wamkit.serve.server import Server
from wamkit.serve.watch import Watch

KEYS = {"anna": "of_anna_0123456789", "ben": "of_ben_9876543210"}


@pytest.fixture
def policy() -> Echo:
    return Echo()


@pytest.fixture
def server(policy: Echo) -> Iterator[Server]:
    with serving(policy) as running:
        yield running


def serving(policy: Echo, doors: Doors = WHOEVER_IS_HERE, **limits: Any) -> Server:
    return Server(replace(service(policy), limits=Limits(**limits)), [OpenPi()], doors)


def asked(connection: ClientConnection, **fields: object) -> dict[str, Any]:
    connection.send(pack(libero(**fields)))
    return received(connection)


def received(connection: ClientConnection) -> dict[str, Any]:
    found = unpack(connection.recv(timeout=30))
    assert isinstance(found, dict)
    return found


def page(server: Server, path: str, **headers: str) -> tuple[int, str]:
    connection = http.client.HTTPConnection(server.host, server.port, timeout=30)
    connection.request("GET", path, headers=headers)
    response = connection.getresponse()
    return response.status, response.read().decode()


def test_who_may_ask() -> None:
    """Whoever has a key, in openpi's header or as the path."""
    with serving(Echo(), Doors(KEYS)) as server:
        for key in KEYS.values():
            with connect(server.url, additional_headers={"Authorization": f"Api-Key {key}"}) as one:
                assert "actions" in asked(one)
            with connect(f"{server.url}/{key}") as one:
                assert "actions" in asked(one)
        for path in (
            "",
            "/",
            "/wrong",
            "/of_anna_012345678",
            "/of_anna_0123456789/more",
            "/?x",
            "/%00\u00e9",
        ):
            with pytest.raises(InvalidStatus, match="401"), connect(server.url + path):
                pass
        for header in ("Api-Key wrong", "Api-Key ", f"Bearer {KEYS['anna']}", f"Api-Key {KEYS['anna']}x"):
            headers = {"Authorization": header}
            with pytest.raises(InvalidStatus, match="401"), connect(server.url, additional_headers=headers):
                pass
        path, browser = KEYS["anna"], "http://evil.example"  # a page in one names its origin
        with pytest.raises(InvalidStatus, match="403"), connect(f"{server.url}/{path}", origin=browser):
            pass
        assert page(server, "/healthz") == (200, "OK\n") and page(server, "/nothing")[0] == 401
        with pytest.raises(BadInput, match="choose another port"), serving(Echo()) as other:
            Server(other.service, [OpenPi()], port=server.port).__enter__()
    with pytest.raises(BadInput, match="choose another port"):
        Server(service(Echo()), [OpenPi()], port=70_000).__enter__()


def test_one_key_is_part_of_the_url() -> None:
    with serving(Echo(), Doors({"robot": "of_my_own_0123456789"})) as server:
        assert server.url.endswith(f":{server.port}/of_my_own_0123456789")
        with connect(server.url) as one:
            assert "actions" in asked(one)


@pytest.mark.parametrize("weak", ["secret", "with a space in it....", "a/b/c/d/e/f/g/h/i/j/k"])
def test_weak_keys_are_refused(weak: str, tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="at least 16 letters"):
        Doors({"robot": weak})
    (tmp_path / "keys").write_text(f"# ours\n\nanna {KEYS['anna']}\nben {weak}\n")
    with pytest.raises(BadInput, match=r"keys:4: expected NAME KEY") as caught:
        read_keys(tmp_path / "keys")
    assert weak not in str(caught.value)


def test_keys_in_a_file(tmp_path: Path) -> None:
    (tmp_path / "keys").write_text("# ours\n\n" + "".join(f"{name}  {key}\n" for name, key in KEYS.items()))
    assert read_keys(tmp_path / "keys") == KEYS
    (tmp_path / "none").write_text("# nobody\n")
    for name, said in (("none", "no API key"), ("missing", "cannot be read")):
        with pytest.raises(BadInput, match=said):
            read_keys(tmp_path / name)


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.168.1.5", "robot.example"])
def test_addresses_that_others_reach_are_guarded(host: str) -> None:
    with pytest.raises(BadInput, match=f"--host {host}: whoever reaches .*--keys FILE.*--insecure"):
        expect_guarded(host, Doors(), insecure=False)
    expect_guarded(host, Doors(KEYS), insecure=False)
    expect_guarded(host, Doors(), insecure=True)
    for own in ("127.0.0.1", "::1", "localhost"):
        expect_guarded(own, Doors(), insecure=False)


def test_tls(tmp_path: Path) -> None:
    cert, key = tmp_path / "cert.pem", tmp_path / "key.pem"
    words = [
        "openssl",
        "req",
        "-x509",
        "-newkey",
        "rsa:2048",
        "-nodes",
        "-keyout",
        key,
        "-out",
        cert,
        "-days",
        "2",
    ]
    subprocess.run([*words, "-subj", "/CN=localhost"], check=True, capture_output=True)
    import ssl

    trusting = ssl.create_default_context(cafile=str(cert))
    trusting.check_hostname = False
    with serving(Echo(), Doors(tls=tls_context(cert, key))) as server:
        assert server.url.startswith("wss://")
        with connect(server.url, ssl=trusting) as one:
            assert "actions" in asked(one)
    with pytest.raises(BadInput, match="cannot be used"):
        tls_context(key, key)


def test_pages_do_not_wait_for_the_policy(server: Server, policy: Echo) -> None:
    with connect(server.url) as first, connect(server.url) as second:
        first.send(pack(libero("wait")))
        policy.until_called()
        assert page(server, "/healthz") == (200, "OK\n") and page(server, "/readyz") == (200, "ready\n")
        with connect(server.url):  # and others may come
            pass
        second.send(pack(libero(request_id=1, policy="another")))  # and errors are told
        assert received(second)["error"]["reason"] == "bad_request"
        policy.go.set()
        assert "actions" in received(first)


def test_a_server_without_policies_is_not_ready() -> None:
    with Server(replace(service(Echo()), policies=Policies()), [OpenPi()]) as server:
        assert page(server, "/readyz")[0] == 503 and page(server, "/healthz")[0] == 200
        with pytest.raises(InvalidStatus, match="503"), connect(server.url):
            pass
        server.service.policies.add(Served("late", Echo(), FACTS))
        assert page(server, "/readyz")[0] == 200
        with connect(server.url) as one:
            assert asked(one)["policy"] == "late"


def test_what_may_wait_is_bounded(policy: Echo) -> None:
    with serving(policy, pending=3) as server, connect(server.url) as first:
        first.send(pack(libero("wait", robot="0", request_id=0)))
        policy.until_called()
        for number in (1, 2, 3, 4):
            first.send(pack(libero(robot=str(number), request_id=number)))
        refused = [received(first) for _ in range(2)]
        assert [one["request_id"] for one in refused] == [3, 4]
        assert all(
            one["error"]["reason"] == "busy" and "at most 3" in one["error"]["message"] for one in refused
        )
        with connect(server.url) as other:
            assert asked(other, request_id=9, policy="x")["error"]["reason"] == "bad_request"
        policy.go.set()
        assert sorted(received(first)["request_id"] for _ in range(3)) == [0, 1, 2]
        assert asked(first, request_id=5)["request_id"] == 5


def test_waiting_messages_have_room_for_so_many_bytes(policy: Echo) -> None:
    large, small = {"more": bytes(60_000)}, {"more": bytes(20_000)}
    with serving(policy, waiting_bytes=110_000) as server, connect(server.url) as first:
        first.send(pack(libero("wait", **large)))
        policy.until_called()
        for _ in range(5):  # they send, and go away: what they sent is forgotten
            with connect(server.url) as other:
                other.send(pack(libero(**small)))
        until(lambda: server._open.total() == 1)
        with connect(server.url) as last:
            assert asked(last, request_id=1, **large)["error"]["reason"] == "busy"
            policy.go.set()
            received(first)
            assert "actions" in asked(last, request_id=2, **large)


def test_a_message_has_a_largest_size() -> None:
    with serving(Echo(), message_bytes=20_000) as server, connect(server.url) as one:
        assert "actions" in asked(one)
        one.send(pack(libero(more=bytes(30_000))))
        with pytest.raises(ConnectionClosedError, match="1009"):
            one.recv(timeout=30)


def test_connections_are_counted() -> None:
    doors = Doors(KEYS)
    anna, ben = (f"/{key}" for key in KEYS.values())
    with (
        serving(Echo(), doors, connections=3, connections_per_key=2) as server,
        connect(server.url + anna),
        connect(server.url + anna) as second,
    ):
        with pytest.raises(InvalidStatus, match="503"), connect(server.url + anna):
            pass
        with connect(server.url + ben), pytest.raises(InvalidStatus, match="503"), connect(server.url + ben):
            pass
        second.close()
        until(lambda: server._open.total() == 1)
        with connect(server.url + anna):
            pass


def test_messages_per_second_are_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [0.0]
    monkeypatch.setattr("wamkit.serve.doors.time", SimpleNamespace(monotonic=lambda: now[0]))
    with serving(Echo(), rate=5) as server, connect(server.url) as one:

        def refused(messages: int) -> list[str]:
            answers = [asked(one, request_id=number) for number in range(messages)]
            return [answer["error"]["reason"] for answer in answers if "error" in answer]

        assert refused(8) == ["rate"] * 3
        now[0] += 0.5
        assert refused(3) == ["rate"]


@pytest.mark.parametrize(
    ("sent", "said"),
    [
        (b"\xc1 no msgpack", "not a msgpack message|not a message"),
        ("text", ""),
        (pack([1, 2]), "a message is a map, got list"),
        (pack(libero(policy="other")), "policy 'other' is not served here; known: echo"),
        (pack(libero(policy=5)), "'policy': expected"),
        (pack(libero(protocol="wamkit/9")), "this server speaks wamkit/1"),
        (pack(libero(deadline_ms=-1)), "'deadline_ms'"),
        (pack(libero(request_id=[1])), "'request_id'"),
        (pack({"observations": []}), "'observations': expected a list of maps"),
        (pack({"observations": [libero()] * 65}), "65 observations in one message, expected at most 64"),
        (pack(libero("break")), "ZeroDivisionError: the policy fell apart"),
        (pack(libero("nan")), "NaN or infinity"),
    ],
)
def test_openpis_clients_are_told_in_words_and_let_go(server: Server, sent: bytes | str, said: str) -> None:
    import re

    with connect(server.url) as one:
        one.send(sent)
        words = one.recv(timeout=30)
        assert isinstance(words, str) and re.search(said, words) and "Traceback" not in words
        with pytest.raises(ConnectionClosedError, match="1011"):
            one.recv(timeout=30)
    with connect(server.url) as other:
        assert "actions" in asked(other)


def test_whoever_names_requests_goes_on_after_an_error(server: Server) -> None:
    with connect(server.url) as one:
        for words, reason in (("break", "failed"), ("nan", "failed"), ("", "bad_request")):
            answer = asked(one, prompt=words, request_id=words)
            assert answer["error"]["reason"] == reason and answer["request_id"] == words
        assert asked(one, request_id="last")["request_id"] == "last"


def test_tracebacks_are_for_those_who_debug(policy: Echo) -> None:
    with Server(replace(service(policy), debug=True), [OpenPi()]) as server, connect(server.url) as one:
        assert "Traceback" in asked(one, prompt="break", request_id=1)["error"]["message"]


def test_keys_may_change_while_it_serves() -> None:
    with serving(Echo(), Doors(KEYS)) as server, connect(f"{server.url}/{KEYS['anna']}") as one:
        server.doors = Doors({"carl": "of_carl_0123456789"})
        assert "actions" in asked(one)
        with pytest.raises(InvalidStatus, match="401"), connect(f"{server.address}/{KEYS['anna']}"):
            pass
        with connect(f"{server.address}/of_carl_0123456789"):
            pass


def test_a_strange_proprio_is_counted_and_warned_of_once(caplog: pytest.LogCaptureFixture) -> None:
    class Counting(Watch):
        outsiders = 0

        def outside(self, policy: str, robot: str) -> None:
            self.outsiders += 1

    known = replace(FACTS, robots=(replace(ROBOT, low=(-1.0,) * 8, high=(1.0,) * 8),))
    watch = Counting()
    with (
        Server(replace(service(Echo(), known), watch=watch), [OpenPi()]) as server,
        connect(server.url) as one,
    ):
        for number in (1.4, 1.6, -9.0):
            assert "actions" in asked(one, number=number)
    assert watch.outsiders == 2
    (warning,) = [record.message for record in caplog.records if "proprio" in record.message]
    assert "policy echo, robot panda: proprio dimensions 0, 1, 2" in warning and "[-1, 1], got 1.6" in warning


def test_an_error_of_ours_is_a_few_words() -> None:
    error = refusal(ZeroDivisionError("apart"))
    assert (error.reason, error.message) == ("failed", "ZeroDivisionError: apart")
    assert len(refusal(BadInput("x" * 100_000)).message) == 2000


def test_the_end_waits_for_answers(policy: Echo) -> None:
    server = serving(policy, drain_seconds=SECONDS)
    ending = threading.Thread(target=server.__exit__, args=(None, None, None))
    server.__enter__()
    with connect(server.url) as one, connect(server.url) as idle:
        one.send(pack(libero("wait", request_id=1)))
        policy.until_called()
        ending.start()
        until(lambda: not _lets_in(server))
        one.send(pack(libero("more", request_id=2)))
        assert received(one)["error"]["reason"] == "stopping"
        policy.go.set()
        assert received(one)["request_id"] == 1
        for connection in (one, idle):
            with pytest.raises(ConnectionClosedOK, match="1001"):
                connection.recv(timeout=30)
        ending.join()


def _lets_in(server: Server) -> bool:
    try:
        with connect(server.url):
            return True
    except (OSError, WebSocketException):  # refused, or reset at any moment of the handshake
        return False


def test_the_end_does_not_wait_for_ever(policy: Echo) -> None:
    server = serving(policy, drain_seconds=0.2)
    ending = threading.Thread(target=server.__exit__, args=(None, None, None))
    server.__enter__()
    with connect(server.url) as one:
        one.send(pack(libero("wait")))
        policy.until_called()
        ending.start()
        with pytest.raises(ConnectionClosedOK, match="1001"):
            one.recv(timeout=30)
    policy.go.set()
    ending.join()


def test_slow_and_silent_connections_are_ended() -> None:
    """One that opens and says nothing; one that says it letter by letter; one with a bomb of headers."""
    with serving(Echo(), open_seconds=0.5) as server:
        silent, slow, bomb = (socket.create_connection((server.host, server.port)) for _ in range(3))
        bomb.sendall(b"GET / HTTP/1.1\r\n" + b"X-Header: again\r\n" * 1000)
        assert b"101" not in received_by(bomb)
        for letter in b"GET / HTTP/1.1":
            try:
                slow.sendall(bytes([letter]))
            except OSError:
                break
            time.sleep(0.05)
        assert received_by(silent) == received_by(slow) == b""
        until(lambda: _lets_in(server))  # which a busy machine may not do within open_seconds


def test_messages_have_a_time_to_arrive(policy: Echo) -> None:
    """One whose bytes stop coming, and one in pieces with pings between them; who waits for an answer is not ended."""

    class Counting(Watch):
        def __init__(self) -> None:
            self.reasons: list[str] = []

        def refused(self, dialect: str, reason: str) -> None:
            self.reasons.append(reason)

    watch, said = Counting(), "1008.*longer than 0.5 s to arrive"
    limited = replace(service(policy), limits=Limits(message_seconds=0.5), watch=watch)
    with (
        Server(limited, [OpenPi()]) as server,
        connect(server.url) as waits,
        connect(server.url) as slow,
        connect(server.url) as pieces,
    ):
        waits.send(pack(libero("wait")))
        policy.until_called()
        slow.socket.sendall(b"\x82\xff" + (100_000).to_bytes(8, "big") + bytes(4))  # and never the rest

        def fragments() -> Iterator[bytes]:
            while True:
                yield b"x"
                pieces.ping()
                time.sleep(0.02)

        with pytest.raises(ConnectionClosedError, match=said):
            pieces.send(fragments())
        with pytest.raises(ConnectionClosedError, match=said):
            slow.recv(timeout=30)
        assert watch.reasons == ["slow", "slow"]
        policy.go.set()
        assert "actions" in received(waits) and "actions" in asked(waits)


def received_by(one: socket.socket) -> bytes:
    """Until the server ends the connection."""
    one.settimeout(30)
    try:
        found = b""
        while more := one.recv(4096):
            found += more
        return found
    except ConnectionResetError:
        return b""


def test_half_open_connections_are_found_by_the_kernel(server: Server) -> None:
    with connect(server.url) as one:
        asked(one)
        theirs = one.socket.getsockname()[1]
        until(lambda: _timer_of_the_other_end(theirs).startswith("02:"))  # that of the keep-alive


def _timer_of_the_other_end(port: int) -> str:
    lines = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()]
    return next(line[5] for line in lines if line[2].endswith(f":{port:04X}"))


def test_numbers_of_the_answer(server: Server) -> None:
    with connect(server.url) as one:
        first, second = asked(one, number=3.0), asked(one)
        np.testing.assert_array_equal(first["actions"], np.full((4, 7), 3.0, np.float32))
        np.testing.assert_array_equal(first["action_chunk"], first["actions"])
        timing = second["server_timing"]
        assert {"infer_ms", "queue_ms", "decode_ms", "batch", "prev_total_ms"} <= set(timing)
        assert "prev_total_ms" not in first["server_timing"] and first["seed"] != second["seed"]
        assert asked(one, seed=11)["seed"] == 11
        assert asked(one, reset=True) == {"reset": True}


def test_red_and_blue_exchanged_are_warned_of_once(caplog: pytest.LogCaptureFixture) -> None:
    """By a connection's first ten images of a camera; one that sends a few like that is not taken for it."""

    class Counting(Watch):
        def __init__(self) -> None:
            self.views: list[str] = []

        def exchanged(self, policy: str, robot: str, view: str) -> None:
            self.views.append(view)

    image = np.full((32, 32, 3), [200, 150, 100], np.uint8)
    known = replace(FACTS, robots=(replace(ROBOT, colours={"image": Colours.of([image])}),))
    watch = Counting()
    with Server(replace(service(Echo(), known), watch=watch), [OpenPi()]) as server:
        for bgr in (0, 7, 8, 12):
            with connect(server.url) as one:
                for number in range(12):
                    seen = image[..., ::-1] if number < bgr else image
                    assert "actions" in asked(one, **{"observation/image": np.ascontiguousarray(seen)})
    assert watch.views == ["image"] * 2
    (warning,) = [record.message for record in caplog.records if "exchanged" in record.message]
    assert "policy echo, robot panda, camera image" in warning and "BGR" in warning
