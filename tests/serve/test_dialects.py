"""Clients of several projects on one port: frames as their own programs send them, byte by byte."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import msgpack
import numpy as np
import pytest
from wamkit_client.codec import unpack
from wamkit_client.envs.robotwin import wire
from websockets.exceptions import ConnectionClosedError
from websockets.sync.client import ClientConnection, connect

from tests.serve.robots import FACTS, Echo, libero, service
from wamkit.serve.dialects.spoken import dialects, greeting
from wamkit.serve.served import Served
from wamkit.serve.server import Server


@pytest.fixture
def policy() -> Echo:
    return Echo()


@pytest.fixture
def server(policy: Echo) -> Iterator[Server]:
    served = service(policy)
    with Server(served, dialects(), greeting=greeting(served.policies)) as running:
        yield running


@pytest.fixture
def client(server: Server) -> Iterator[ClientConnection]:
    with connect(server.url, compression=None) as connection:
        told = unpack(connection.recv(timeout=30))
        assert told["protocol"] == "wamkit/1"
        yield connection


def foreign(message: dict[str, Any]) -> bytes:
    """As the msgpack of openpi and those who copied it packs arrays."""

    def array(value: Any) -> dict[bytes, Any]:
        if isinstance(value, np.generic):
            return {b"__npgeneric__": True, b"data": value.item(), b"dtype": value.dtype.str}
        return {
            b"__ndarray__": True,
            b"data": value.tobytes(),
            b"dtype": value.dtype.str,
            b"shape": value.shape,
        }

    packed: bytes = msgpack.packb(message, default=array)
    return packed


def asked(connection: ClientConnection, message: dict[str, Any]) -> Any:
    connection.send(foreign(message))
    answer = connection.recv(timeout=30)
    return unpack(answer) if isinstance(answer, bytes) else answer


def test_an_array_of_openpis_begins_as_it_does_on_its_wire() -> None:
    assert foreign({"x": np.zeros(1)})[3:].startswith(b"\x84\xc4\x0b__ndarray__\xc3\xc4\x04data")


def test_metadata_are_openpis_and_roboarenas(server: Server) -> None:
    with connect(server.url) as connection:
        told = unpack(connection.recv(timeout=30))
    assert (told["action_horizon"], told["action_dim"], told["state_dim"], told["control_hz"]) == (
        4,
        7,
        8,
        20.0,
    )
    assert told["cameras"][1] == {"name": "wrist_image", "height": 32, "width": 32}
    assert (told["needs_wrist_camera"], told["n_external_cameras"], told["action_space"]) == (
        True,
        1,
        "cartesian_velocity",
    )
    assert told["image_resolution"] == [32, 32] and list(told["policies"]) == ["echo"]


def test_several_observations_are_one_call(client: ClientConnection, policy: Echo) -> None:
    message = {"observations": [libero("a", 1.0, seed=3), libero("b", 2.0)], "request_id": "x"}
    answer = asked(client, message)
    assert [chunk["actions"][0, 0] for chunk in answer["chunks"]] == [1, 2]
    assert answer["chunks"][0]["seed"] == 3 and answer["request_id"] == "x"
    assert policy.instructions == [["a", "b"]]


def test_one_of_several_policies(server: Server, client: ClientConnection, policy: Echo) -> None:
    other = Echo()
    server.service.policies.add(Served("other", other, FACTS))
    assert asked(client, libero("a"))["policy"] == "echo"
    assert asked(client, libero("b", policy="other"))["policy"] == "other"
    assert asked(client, {"reset": True, "policy": "other", "request_id": 4}) == {
        "reset": True,
        "request_id": 4,
    }
    assert (policy.instructions, other.instructions, other.resets) == ([["a"]], [["b"]], 1)
    assert asked(client, {"about": True})["about"] == "{}"


def test_roboarena(client: ClientConnection, policy: Echo) -> None:
    answer = asked(client, libero(number=2.0, endpoint="infer", session_id="s"))
    np.testing.assert_array_equal(answer["actions"], np.full((2, 7), 2.0, np.float32))
    assert policy.calls[0][0].steps == 2, "it executes what it gets"
    assert (
        asked(client, {"endpoint": "reset", "session_id": "s"}) == "reset successful" and policy.resets == 1
    )
    assert "'endpoint': expected infer or reset" in asked(client, {"endpoint": "kill"})
    with pytest.raises(ConnectionClosedError, match="1011"):
        client.recv(timeout=30)


def test_starvla(client: ClientConnection, policy: Echo) -> None:
    image = np.zeros((32, 32, 3), np.uint8)
    example = {"image": [image, image], "lang": "lift", "state": np.full((1, 8), 3.0)}
    both = {"examples": [example, {**example, "lang": "drop"}], "unnorm_key": "franka", "do_sample": False}
    answer = asked(client, both)
    assert (answer["status"], answer["ok"], answer["type"], answer["request_id"]) == (
        "ok",
        True,
        "inference_result",
        "default",
    )
    np.testing.assert_array_equal(answer["data"]["actions"], np.full((2, 4, 7), 3.0, np.float32))
    assert policy.instructions == [["lift", "drop"]]
    wrapped = asked(client, {"type": "infer", "request_id": "7", "payload": {"examples": [example]}})
    assert wrapped["request_id"] == "7" and wrapped["data"]["actions"].shape == (1, 4, 7)
    for kind in ("ping", "init", "reset"):
        assert asked(client, {"type": kind, "request_id": "8"}) == {
            "status": "ok",
            "ok": True,
            "type": kind,
            "request_id": "8",
        }
    assert policy.resets == 1
    for wrong, said in (
        ({"examples": []}, "'examples'"),
        ({"examples": [{**example, "image": [image]}]}, "a list of 2 images"),
        ({"examples": [{**example, "state": np.zeros((2, 4))}]}, "row of numbers"),
        ({"examples": [{**example, "lang": "break"}]}, "ZeroDivisionError"),
    ):
        answer = asked(client, wrong)
        assert (answer["ok"], answer["status"]) == (False, "error") and said in answer["error"]["message"]


def test_xpolicylab_where_the_policy_is_another_robots(client: ClientConnection) -> None:
    for kind, said in (("hello", ""), ("reset", "are not RoboTwin's")):
        client.send(wire.pack(wire.Frame(kind, "1", "e")))
        answer = wire.unpack(client.recv(timeout=30))
        assert answer.message_id == "1" and said in answer.payload.get("message", "")
    assert "actions" in asked(client, libero())  # dialects may be mixed on one connection
