"""XPolicyLab over real sockets, mostly from a client whose codec and envelopes are not ours."""

from __future__ import annotations

import random
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path

import msgpack
import numpy as np
import pytest
from wamkit_client.envs.robotwin.adapter import Model, get_model
from wamkit_client.envs.robotwin.conventions import Layout
from wamkit_client.envs.robotwin.wire import Frame, WireError, pack, unpack
from wamkit_client.types import ActionChunk, BadInput, Observation, Policy
from websockets.exceptions import ConnectionClosedOK
from websockets.sync.client import connect

from tests.robotwin.standin import HERE, module, run_directory, tiny_run
from tests.until import SECONDS, until
from wamkit.serve.dialects.base import Service
from wamkit.serve.dialects.spoken import dialects, greeting
from wamkit.serve.dialects.xpolicylab import XPolicyLab
from wamkit.serve.doors import Doors
from wamkit.serve.limits import Limits
from wamkit.serve.scheduler import Scheduler
from wamkit.serve.served import Facts, Policies, Robot, Served
from wamkit.serve.server import Server
from wamkit.stages.serving import load_served

CAMERAS = ("cam_high", "cam_left_wrist", "cam_right_wrist")
FACTS = Facts(
    "echo", (Robot("aloha", CAMERAS, 14, 14, 4, 25.0),), Layout("joint", 6).names, 24, 32, replan_steps=3
)
PENDING = Limits().pending

CLIENT = module(HERE / "present" / "XPolicyLab" / "client_server" / "ws" / "model_client.py")


class Echo(Policy):
    """Answers with its proprio and, in the left gripper's place, the count of the row; keeps what it saw.

    instruction "wait": only when `go` is set.  "break": not at all.  "nan", "short": as no policy should.
    """

    def __init__(self) -> None:
        self.seen: list[Observation] = []
        self.go = threading.Event()

    def act(self, observations: Sequence[Observation]) -> list[ActionChunk]:
        (observation,) = observations
        self.seen.append(observation)
        if observation.instruction == "wait":
            assert self.go.wait(SECONDS)
        if observation.instruction == "break":
            raise ZeroDivisionError("the policy fell apart")
        rows = np.tile(observation.proprio, (4, 1))
        rows[:, 6] = np.arange(4)
        if observation.instruction == "nan":
            rows[0, 0] = np.nan
        return [ActionChunk(rows[:2] if observation.instruction == "short" else rows)]


@pytest.fixture
def policy() -> Echo:
    return Echo()


@pytest.fixture
def dialect() -> XPolicyLab:
    return XPolicyLab()


@pytest.fixture
def server(dialect: XPolicyLab, policy: Echo) -> Iterator[Server]:
    service = Service(Policies(Served("echo", policy, FACTS)), Scheduler(window=0, most=1))
    with Server(service, [dialect], Doors({"evaluator": "a_token_0123456789"})) as running:
        yield running


def seen(instruction: str = "lift", joints: int = 6, **changes: object) -> dict[str, object]:
    color = np.arange(24 * 32 * 3, dtype=np.uint8).reshape(24, 32, 3)
    state = {"left_arm_joint_state": np.arange(joints, dtype=np.float32), "left_ee_joint_state": np.ones(1)}
    state |= {"right_arm_joint_state": -np.arange(6.0), "right_ee_joint_state": np.zeros(1)}
    vision = {name: {"color": color} for name in ("cam_head", "cam_left_wrist", "cam_right_wrist")}
    return {"vision": vision, "state": state, "instruction": instruction, **changes}


def state(joint: int, value: float) -> dict[str, object]:
    """Of an observation, with this value in the left arm."""
    arm = np.arange(6.0)
    arm[joint] = value
    return {**seen()["state"], "left_arm_joint_state": arm}  # type: ignore[dict-item]


def client(server: Server, name: str = "evaluation") -> object:
    found = CLIENT.Client(server.url, name)
    found.ask("prepare_case", {"task_name": "place_fan", "seed": 4, "action_type": "joint"})
    found.ask("reset", {"task_name": "place_fan", "seed": 4, "action_type": "joint", "instruction": "lift"})
    return found


def test_an_episode(server: Server, dialect: XPolicyLab, policy: Echo) -> None:
    asked = client(server)
    for query in range(2):
        actions = asked.infer(seen())
        assert [list(action) for action in actions] == [
            ["left_arm_joint_state", "left_ee_joint_state", "right_arm_joint_state", "right_ee_joint_state"]
        ] * 3
        assert [action["left_ee_joint_state"].tolist() for action in actions] == [[0], [1], [2]]
        np.testing.assert_array_equal(actions[0]["right_arm_joint_state"], -np.arange(6))
        assert policy.seen[query].embodiment == "aloha" and policy.seen[query].instruction == "lift"
    assert asked.ask("heartbeat", {})["ok"] is True
    asked.ask("trial_end", {"task_name": "place_fan", "success": True})
    (attempt,) = dialect.attempts["place_fan"]
    assert (attempt.seed, attempt.outcome, attempt.calls, attempt.error) == (4, "success", [0, 1], "")
    assert set(policy.seen[0].images) == {"cam_high", "cam_left_wrist", "cam_right_wrist"}
    assert policy.seen[0].noise_seed != policy.seen[1].noise_seed


def test_heartbeats_are_answered_while_the_policy_thinks(server: Server, policy: Echo) -> None:
    asked = client(server)
    question = asked.send("infer", {"observation": seen("wait")})
    until(lambda: policy.seen)
    assert asked.ask("heartbeat", {})["ok"] is True  # on the same connection
    other = CLIENT.Client(server.url, "another")  # hello: on a new one
    policy.go.set()
    answer = asked.receive()
    assert answer["message_id"] == question and answer["message_type"] == "infer_result"
    other.close()


def raw(**fields: object) -> bytes:
    frame = {"message_type": "heartbeat", "message_id": "7", "evaluation_id": "e", "payload": {}}
    packed: bytes = msgpack.packb({**frame, **fields})
    return packed


@pytest.mark.parametrize(
    ("message", "code", "said"),
    [
        (b"\xc1 no msgpack", "invalid_frame", "not a msgpack message"),
        ("text", "invalid_frame", ""),
        (msgpack.packb([1, 2]), "invalid_frame", "a message is a map"),
        (raw(message_id=None), "invalid_frame", "'message_id' is missing"),
        (raw(message_type=5), "invalid_frame", "'message_type' is missing"),
        (raw(payload=[1]), "invalid_frame", "'payload' must be a dict"),
        (raw(message_type="kill"), "unknown_message_type", "'kill' is unknown"),
        (
            raw(payload={"x": {b"nd": True, b"type": "|O", b"kind": b"O", b"data": b"pickle"}}),
            "invalid_frame",
            "|O",
        ),
        (
            raw(payload={"x": {b"nd": True, b"type": "<f4", b"shape": [9], b"data": b"short"}}),
            "invalid_frame",
            "5 bytes",
        ),
        (raw(payload={"x": {b"nd": True, b"type": "<f4"}}), "invalid_frame", "malformed"),
        (raw(message_type="infer"), "infer_failed", "infer before reset"),
        (raw(message_type="trial_end"), "internal", "trial_end before reset"),
        (
            raw(message_type="reset", payload={"action_type": "ee"}),
            "reset_failed",
            "start the evaluator with",
        ),
        (raw(message_type="reset", payload={"seed": "x"}), "reset_failed", "expected an integer"),
        (
            raw(message_type="reset", payload={"episode": -1}),
            "reset_failed",
            "episode is -1, expected an integer",
        ),
        (raw(message_type="reset", payload={"task_name": {}}), "reset_failed", "must be strings"),
        (
            raw(message_type="reset", payload={"action_type": "x" * 100_000}),
            "reset_failed",
            "action_type 'xxx",
        ),
        (raw(message_type="reset", payload={"action_type": []}), "reset_failed", "action_type []"),
    ],
)
def test_malformed_messages(server: Server, message: bytes | str, code: str, said: str) -> None:
    with connect(server.url) as socket:
        socket.send(message)
        answer = unpack(socket.recv(timeout=30))
        assert (answer.message_type, answer.payload["code"]) == ("error", code)
        assert said in answer.payload["message"] and len(answer.payload["message"]) < 3000
        socket.send(raw())  # and the connection goes on
        assert unpack(socket.recv(timeout=30)).message_type == "heartbeat_ack"


@pytest.mark.parametrize(
    ("observation", "code", "said"),
    [
        (seen("break"), "infer_failed", "ZeroDivisionError: the policy fell apart"),
        (seen("nan"), "infer_failed", "NaN or infinity"),
        (seen("short"), "infer_failed", "a chunk has 2 actions, expected at least 3"),
        (seen(""), "invalid_frame", "instruction is empty"),
        (seen(joints=7), "invalid_frame", "expected 6 finite numbers, got float32 of shape"),
        (
            seen(state=state(3, np.nan)),
            "invalid_frame",
            "6 finite numbers of float32's range, number 3 is nan",
        ),
        (
            seen(state=state(5, 1e300)),
            "invalid_frame",
            "number 5 is 1e+300; the simulator that sent it is broken",
        ),
        (seen(state={}), "invalid_frame", "has no 'left_arm_joint_state'"),
        (seen(vision={"cam_head": {"color": np.zeros((2, 2, 3))}}), "invalid_frame", "uint8 RGB"),
        (seen(vision={"cam_head": {"depth": np.zeros((2, 2))}}), "invalid_frame", "uint8 RGB"),
        (seen(vision=5), "invalid_frame", "'vision' is int"),
        ("nothing", "invalid_frame", "needs 'observation', a map"),
    ],
)
def test_errors_say_what_is_wrong_and_the_next_query_is_answered(
    server: Server, dialect: XPolicyLab, observation: object, code: str, said: str
) -> None:
    """infer_failed is the policy's fault, invalid_frame the asker's."""
    asked = client(server)
    with pytest.raises(CLIENT.Refused, match=code) as caught:
        asked.infer(observation)
    assert said in str(caught.value) and said in dialect.attempts["place_fan"][0].error
    assert len(asked.infer(seen())) == 3


def test_one_message_too_many_is_told_so_by_its_own_id(server: Server, policy: Echo) -> None:
    first = client(server, "a")
    first.send("infer", {"observation": seen("wait")})
    until(lambda: policy.seen)
    for _ in range(PENDING - 1):
        first.send("infer", {"observation": seen()})
    with pytest.raises(CLIENT.Refused, match="busy: too much is waiting"):
        first.ask("heartbeat", {})
    policy.go.set()
    assert {first.receive()["message_type"] for _ in range(PENDING)} == {"infer_result"}


def test_the_wrong_url_says_what_it_needs(server: Server) -> None:
    with pytest.raises(BadInput, match=r"refuses this connection .*401.*with the token"):
        get_model({"server": server.url.rsplit("/", 1)[0], "task_name": "place_fan"})


def test_a_message_of_millions_of_values_does_not_stop_the_others(server: Server) -> None:
    bystander = client(server)
    with connect(server.url) as socket:
        socket.send(b"\xdd" + (20_000_000).to_bytes(4, "big") + 20_000_000 * b"\x80")
        assert bystander.ask("heartbeat", {})["ok"] is True
        answer = unpack(socket.recv(timeout=30))
    assert answer.payload["code"] == "invalid_frame" and "values" in answer.payload["message"]


def test_three_hundred_damaged_messages(server: Server) -> None:
    """Each is answered, and the next one is."""
    rng = random.Random(0)
    whole = pack(Frame("infer", "1", "evaluation", {"observation": seen()}))
    client(server)
    with connect(server.url) as socket:
        for _ in range(300):
            data = bytearray(whole)
            for _ in range(rng.randrange(1, 6)):
                data[rng.randrange(rng.choice([150, len(data)]))] = rng.randrange(256)
            socket.send(bytes(data))
            assert unpack(socket.recv(timeout=30)).message_type in ("error", "infer_result")
    assert len(client(server).infer(seen())) == 3


def test_the_end_of_another_trial_is_not_that_of_this_one(server: Server, dialect: XPolicyLab) -> None:
    asked = client(server)
    with pytest.raises(CLIENT.Refused, match="trial_end of seed 5, but the last reset was of seed 4"):
        asked.ask("trial_end", {"seed": 5, "success": True})
    assert dialect.attempts["place_fan"][0].outcome == ""
    asked.ask("trial_end", {"seed": 4, "success": True})
    assert dialect.attempts["place_fan"][0].outcome == "success"


def test_close(server: Server) -> None:
    asked = client(server)
    asked.send("close", {})
    with pytest.raises(ConnectionClosedOK):
        asked.receive()


def test_xpolicylabs_folder(server: Server, dialect: XPolicyLab) -> None:
    """policy/wamkit/model.py is `    from wamkit_client.envs.robotwin.adapter import Model`."""
    config = {"server": server.url, "task_name": "place_fan", "action_type": "joint"}
    model = Model({**config, "port": None, "ckpt_name": "x"})
    model.prepare_case({"seed": 11, "task_name": "place_fan"})
    model.reset()
    with pytest.raises(BadInput, match="call update_obs"):
        model.get_action()
    model.update_obs(seen())
    assert len(model.get_action()) == 3
    model.update_obs_batch([seen("a"), seen("b")])
    assert [len(actions) for actions in model.get_action_batch([0, 1])] == [3, 3]
    with pytest.raises(BadInput, match="2 were observed"):
        model.get_action_batch([0])
    model.on_trial_end({"success": False})
    (attempt,) = dialect.attempts["place_fan"]
    assert (attempt.seed, attempt.outcome, len(attempt.calls)) == (11, "failure", 3)
    with pytest.raises(WireError, match="the policy acts by 'joint'"):
        Model({**config, "action_type": "ee"}).reset()
    with pytest.raises(BadInput, match="has no 'server'"):
        get_model({"task_name": "place_fan"})


def test_a_real_policy(tmp_path: Path) -> None:
    run = tiny_run()
    policies = Policies(load_served("tiny", run_directory(tmp_path / "run", run), run))
    with Server(Service(policies, Scheduler()), dialects(), greeting=greeting(policies)) as server:
        config = {"server": server.url, "task_name": "place_fan", "action_type": "joint"}
        Model(config).reset()  # our own client, which is greeted, too
        asked = client(server)
        actions = asked.infer(seen())
        assert len(actions) == 24 and actions[0]["left_arm_joint_state"].shape == (6,)
        nothing = seen(vision={name: {"color": np.zeros((0, 0, 3), np.uint8)} for name in seen()["vision"]})
        with pytest.raises(CLIENT.Refused, match=r"invalid_frame: camera 'cam_high': .*at least one pixel"):
            asked.infer(nothing)
        lonely = seen(vision={"cam_head": {"color": np.zeros((24, 32, 3), np.uint8)}})
        with pytest.raises(CLIENT.Refused, match="camera 'cam_left_wrist' is missing"):
            asked.infer(lonely)


def test_an_envelope_survives() -> None:
    frame = Frame("infer", "1", "e", {"x": np.float32(0.5)}, trial_id="t", repeat_index=2, step=3)
    assert unpack(pack(frame)) == frame
