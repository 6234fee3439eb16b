"""GR00T's protocol over real ZeroMQ sockets: frames of its own client, N1.5's form, keys, limits, damaged arrays."""

from __future__ import annotations

import base64
import io
import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import msgpack
import numpy as np
import pytest
import zmq
from wamkit_client.types import BadInput
from websockets.sync.client import connect

from tests.serve.test_recorded import IMAGE, RECORDED, Same, facts
from tests.until import until
from wamkit.serve.dialects.base import Service
from wamkit.serve.dialects.gr00t import Gr00t, arrays, file_array, parsed_groups
from wamkit.serve.dialects.spoken import dialects
from wamkit.serve.doors import WHOEVER_IS_HERE, Doors
from wamkit.serve.layouts import LAYOUTS, mapped
from wamkit.serve.limits import Limits
from wamkit.serve.scheduler import Scheduler
from wamkit.serve.served import Policies, Served
from wamkit.serve.server import Server
from wamkit.serve.zeromq import Gr00tPort

JOINTS = ("pan", "lift", "elbow", "flex", "roll", "gripper")
GROUPS = {"single_arm": slice(0, 5), "gripper": slice(5, 6)}
NAMES = {"proprio": "state/single_arm+state/gripper"}
KEY = "a_key_0123456789abcdef"


class Asking:
    """A policy of an SO-101 behind GR00T's port, and a client's socket."""

    def __init__(self, server: Server, port: Gr00tPort, policy: Same) -> None:
        self.server, self.port, self.policy = server, port, policy
        self.socket = zmq.Context.instance().socket(zmq.REQ)
        self.socket.setsockopt(zmq.RCVTIMEO, 30_000)
        self.socket.setsockopt(zmq.LINGER, 0)
        self.socket.connect(f"tcp://127.0.0.1:{port.port}")

    def __call__(self, frame: bytes | dict[str, Any]) -> Any:
        self.socket.send(frame if isinstance(frame, bytes) else packed(frame))
        return unpacked(self.socket.recv())


@contextmanager
def asking(
    groups: dict[str, slice] = GROUPS, doors: Doors = WHOEVER_IS_HERE, **limits: Any
) -> Iterator[Asking]:
    policy, port = Same(6), Gr00tPort(Gr00t(groups))
    served = Served("so101", policy, facts("so101", ("front", "wrist"), 6, JOINTS, 2))
    service = Service(Policies(served), Scheduler(), mapped(LAYOUTS, NAMES), Limits(**limits))
    with Server(service, dialects(), doors, beside=[port.beside]) as server:
        asked = Asking(server, port, policy)
        yield asked
    asked.socket.close()


def packed(message: Any) -> bytes:
    """As GR00T's clients pack arrays."""

    def array(value: Any) -> Any:
        file = io.BytesIO()
        np.save(file, value, allow_pickle=False)
        return {"__ndarray_class__": True, "as_npy": file.getvalue()}

    found: bytes = msgpack.packb(message, default=array)
    return found


def unpacked(frame: bytes) -> Any:
    def array(fields: dict[str, Any]) -> Any:
        return np.load(io.BytesIO(fields["as_npy"])) if "__ndarray_class__" in fields else fields

    return msgpack.unpackb(frame, object_hook=array)


def seen(number: float) -> dict[str, Any]:
    """As N1.5 sends it."""
    return {
        "video.front": np.stack([IMAGE * 0, IMAGE]),
        "video.wrist": IMAGE[None],
        "state.single_arm": np.full((1, 5), number),
        "state.gripper": np.full((1, 1), number),
        "annotation.human.action.task_description": ["grab it"],
    }


def test_its_own_client_is_answered() -> None:
    frames = [base64.b64decode(one) for one in json.loads((RECORDED / "gr00t.json").read_text())["frames"]]
    with asking() as asked:
        ping, modalities, reset, one, kill, again, two, one_later, two_later = map(asked, frames)
        resets, calls = asked.policy.resets, asked.policy.calls
    assert ping == again == {"status": "ok", "message": "Server is running"} and reset == {} and resets == 1
    assert modalities["video"]["as_json"]["modality_keys"] == ["front", "wrist"]
    assert modalities["state"]["as_json"]["modality_keys"] == list(GROUPS)
    assert modalities["action"]["as_json"] == {
        "delta_indices": [0, 1, 2, 3],
        "modality_keys": ["single_arm", "gripper"],
    }
    assert "'kill'; clients do not end this server" in kill["error"]
    for actions, info in (one, one_later):
        np.testing.assert_array_equal(actions["single_arm"], np.full((1, 4, 5), 0.25, np.float32))
        assert actions["gripper"].shape == (1, 4, 1) and info["infer_ms"] > 0
    for actions, _ in (two, two_later):
        np.testing.assert_array_equal(actions["gripper"][:, 0, 0], np.array([0.5, 0.75], np.float32))
    assert [[o.instruction for o in call] for call in calls[1:2]] == [["grab the marker", "drop it"]]
    np.testing.assert_array_equal(calls[2][0].images["wrist"], IMAGE[::-1])


def test_as_n1_5_asks() -> None:
    """Its observation is the data itself, without a batch; of several times the last counts."""
    with asking() as asked:
        actions = asked({"endpoint": "get_action", "data": seen(0.5)})
        np.testing.assert_array_equal(actions["action.single_arm"], np.full((4, 5), 0.5, np.float32))
        assert asked({"data": seen(0.25)})["action.gripper"].shape == (
            4,
            1,
        )  # get_action where nothing is said
        np.testing.assert_array_equal(asked.policy.calls[0][0].images["front"], IMAGE)
    with asking({}) as asked:
        assert list(asked({"data": seen(0.5)})) == [f"action.{name}" for name in JOINTS]
    with asking({"arm": slice(0, 5)}) as asked:
        assert "expected each of the 6 dimensions" in asked({"data": seen(0.5)})["error"]


def test_who_may_ask_and_how_often(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("wamkit.serve.doors.time", SimpleNamespace(monotonic=lambda: 0.0))
    ping = {"endpoint": "ping"}
    with asking(doors=Doors({"robot": KEY}), rate=3, message_bytes=20_000) as asked:
        assert (
            "'api_token'" in asked(ping)["error"]
            and "'api_token'" in asked({**ping, "api_token": "x"})["error"]
        )
        assert asked({**ping, "api_token": KEY})["status"] == "ok"
        with connect(f"{asked.server.address}/{KEY}"):  # both ports at once
            answers = [asked({**ping, "api_token": KEY}) for _ in range(6)]
        assert any("3 messages per second" in answer.get("error", "") for answer in answers)
        asked.socket.setsockopt(zmq.RCVTIMEO, 500)
        asked.socket.send(packed({**ping, "more": bytes(30_000)}))
        with pytest.raises(zmq.Again):  # ZeroMQ hangs up on who sends more than the limit
            asked.socket.recv()
    with asking() as asked, pytest.raises(BadInput, match="choose another port"):
        taken = Gr00tPort(Gr00t({}), port=asked.port.port)
        Server(asked.server.service, dialects(), beside=[taken.beside]).__enter__()


@pytest.mark.parametrize(
    ("message", "said"),
    [
        (b"\xc1", "not a msgpack message"),
        (packed([1]), "a message is a map"),
        ({"endpoint": "get_action"}, "'data': expected a map, got NoneType"),
        ({"endpoint": ["x"]}, "'endpoint': expected ping"),
        ({"data": {"observation": 5}}, "'observation': expected a map"),
        ({"data": {}}, "'video': expected images"),
        ({"data": {**seen(0), "video.front": np.zeros((2, 2), np.uint8)}}, "'video/front': expected uint8"),
        ({"data": {**seen(0), "video.front": np.zeros((0, 2, 2, 3), np.uint8)}}, "'video/front': expected"),
        ({"data": {**seen(0), "state.gripper": np.zeros(1)}}, "'state/gripper': expected"),
        ({"data": {**seen(0), "state.gripper": np.zeros((1, 2))}}, "7 numbers"),
        ({"data": {**seen(0), "annotation": ["x", "y"]}}, "expected 1 instructions"),
        ({"data": {**seen(0), "annotation": ["x"]}}, "expected one instruction, got"),
        ({"data": {**seen(np.nan)}}, "finite"),
        ({"data": {"observation": seen(0), "options": 5}}, "'options': expected a map"),
        ({"data": {"observation": seen(0), "options": {"policy": "x"}}}, "policy 'x' is not served"),
        (
            {"data": {**seen(0), "annotation.human.action.task_description": ["break"]}},
            "ZeroDivisionError: the policy fell apart",
        ),
    ],
)
def test_what_is_refused(gripper: Asking, message: bytes | dict[str, Any], said: str) -> None:
    assert said in gripper(message)["error"]
    assert gripper({"data": seen(0.5)})["action.gripper"].shape == (4, 1), "and it goes on"


@pytest.fixture(scope="module")
def gripper() -> Iterator[Asking]:
    with asking() as asked:
        yield asked


@pytest.mark.parametrize(
    "value",
    [np.zeros((2, 0, 3)), np.array(2.5), np.asfortranarray(np.arange(6.0).reshape(2, 3)), np.arange(4) > 1],
)
def test_arrays_arrive_as_they_were(value: np.ndarray) -> None:
    file = io.BytesIO()
    np.save(file, value)
    found = arrays({"x": [{"__ndarray_class__": True, "as_npy": file.getvalue()}]})["x"][0]
    np.testing.assert_array_equal(found, value)
    assert found.dtype == value.dtype and not found.flags.writeable
    np.testing.assert_array_equal(np.load(io.BytesIO(file_array(found)["as_npy"])), value)


def test_damaged_arrays_cost_nothing() -> None:
    """What a header announces is not believed, and nothing in it is evaluated."""
    whole = file_array(np.zeros((3, 4), np.float32))["as_npy"]
    for change in (
        (b"(3, 4)", b"(3, 5)"),
        (b"(3, 4)", b"(9" + b"9" * 10 + b", 9)"),
        (b"'<f4'", b"'|O'"),
        (b"'<f4'", b"'<c8'"),
        (b"False", b"print"),
        (b"\x93NUMPY\x01", b"\x93NUMPY\x02"),
        (whole, b""),
    ):
        with pytest.raises(BadInput, match="an array: "):
            arrays({"__ndarray_class__": True, "as_npy": whole.replace(*change)})
    with pytest.raises(BadInput, match="an array: "):
        arrays({"__ndarray_class__": True, "as_npy": 5})


def test_groups_on_the_command_line() -> None:
    assert parsed_groups({"arm": "0:5", "gripper": "5:6"}) == {"arm": slice(0, 5), "gripper": slice(5, 6)}
    for wrong in ("5", "5:5", "a:b", "-1:2"):
        with pytest.raises(BadInput, match="expected NAME=FIRST:END"):
            parsed_groups({"arm": wrong})


def test_what_was_asked_is_answered_when_it_ends() -> None:
    data = {**seen(0.5), "annotation.human.action.task_description": ["wait"]}
    with ThreadPoolExecutor(2) as pool:
        with asking() as asked:
            answer = pool.submit(asked_beside, asked, {"data": data})
            asked.policy.until_called()
            pool.submit(go_when_stopping, asked)
        assert answer.result(30)["action.gripper"].shape == (4, 1)


def asked_beside(other: Asking, frame: dict[str, Any]) -> Any:
    """With a socket of the calling thread: sockets of ZeroMQ are not for several, and abort the process."""
    asked = Asking(other.server, other.port, other.policy)
    with closing(asked.socket):
        return asked(frame)


def go_when_stopping(asked: Asking) -> None:
    until(lambda: asked.server.traffic.stopping)
    asked.policy.go.set()


def test_its_messages_are_counted() -> None:
    from wamkit.serve.metrics import Metrics

    metrics = Metrics()
    policy, port = Same(6), Gr00tPort(Gr00t(GROUPS))
    served = Served("so101", policy, facts("so101", ("front", "wrist"), 6, JOINTS, 2))
    service = replace(Service(Policies(served), Scheduler(), mapped(LAYOUTS, NAMES)), watch=metrics)
    with Server(service, dialects(), beside=[port.beside]) as server:
        asked = Asking(server, port, policy)
        asked({"data": seen(0.5)})
        asked({"endpoint": "kill"})
        asked({"endpoint": "ping"})  # the others were counted before this was answered
        asked.socket.close()
    text = metrics.page()[1]
    assert 'wamkit_request_seconds_count{dialect="gr00t"}' in text
    assert 'wamkit_refused_total{dialect="gr00t",reason="bad_request"} 1.0' in text
