"""Frames that other projects' own programs have sent, byte by byte: each is answered as those programs read it.

recorded/*.json says how its frames were made. The answers are read by a decoder that is not ours.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import msgpack
import numpy as np
from wamkit_client.envs.robotwin.conventions import Layout
from wamkit_client.types import Observation
from websockets.sync.client import connect

from tests.serve.robots import NAMES, Echo, service
from wamkit.serve.dialects.spoken import dialects, greeting
from wamkit.serve.served import Facts, Robot
from wamkit.serve.server import Server

RECORDED = Path(__file__).parent / "recorded"
IMAGE = np.arange(16 * 16 * 3, dtype=np.uint8).reshape(16, 16, 3)


def facts(name: str, views: tuple[str, ...], proprio: int, actions: tuple[str, ...], steps: int) -> Facts:
    robot = Robot(name, views, proprio, len(actions), horizon=4, hz=15.0)
    return Facts("echo", (robot,), actions, 16, 16, replan_steps=steps)


class Same(Echo):
    """Answers with rows of its proprio, as many numbers as an action has."""

    def __init__(self, action_dim: int) -> None:
        super().__init__()
        self._action_dim = action_dim

    def _rows(self, observation: Observation) -> np.ndarray:
        return np.tile(observation.proprio[: self._action_dim], (4, 1)).astype(np.float32)


def decoded(frame: bytes | str) -> Any:
    """A frame as the clients of openpi, msgpack-numpy and GR00T read it."""

    def array(fields: dict[Any, Any]) -> Any:
        if fields.get(b"nd"):
            return np.frombuffer(fields[b"data"], fields[b"type"]).reshape(fields[b"shape"])
        if b"__ndarray__" in fields:
            return np.frombuffer(fields[b"data"], fields[b"dtype"]).reshape(fields[b"shape"])
        return fields

    return msgpack.unpackb(frame, object_hook=array) if isinstance(frame, bytes) else frame


@contextmanager
def answers(name: str, known: Facts) -> Iterator[tuple[Any, list[Any], list[Observation]]]:
    """The greeting, an answer to each recorded frame, and what the policy saw."""
    policy = Same(len(known.action_names))
    asked = service(policy, known)
    frames = [base64.b64decode(one) for one in json.loads((RECORDED / f"{name}.json").read_text())["frames"]]
    with (
        Server(asked, dialects(), greeting=greeting(asked.policies)) as server,
        connect(server.url, compression=None) as socket,
    ):
        told, found = decoded(socket.recv(timeout=30)), []
        for frame in frames:
            socket.send(frame)
            found.append(decoded(socket.recv(timeout=30)))
        yield told, found, [seen for call in policy.calls for seen in call]


def test_roboarena() -> None:
    views = ("exterior_image_1_left", "wrist_image_left")
    joints = (*(f"joint_{number}" for number in range(7)), "gripper")
    with answers("roboarena", facts("panda", views, 8, joints, steps=2)) as (told, found, seen):
        first, second, reset, refused = found
    assert (told["n_external_cameras"], told["needs_wrist_camera"]) == (1, True)
    assert (told["action_space"], told["image_resolution"]) == ("joint_position", [16, 16])
    np.testing.assert_array_equal(first["actions"], np.full((2, 8), 0.25, np.float32))
    np.testing.assert_array_equal(second["actions"], np.full((2, 8), 0.5, np.float32))
    assert reset == "reset successful" and "the observation has no" in refused
    np.testing.assert_array_equal(seen[0].images[views[0]], IMAGE)
    np.testing.assert_array_equal(seen[0].images[views[1]], IMAGE[::-1])
    assert [one.instruction for one in seen] == ["put the cup on the plate"] * 2


def test_starvla() -> None:
    with answers("starvla", facts("franka", ("image", "wrist_image"), 8, NAMES, 2)) as (told, found, seen):
        *answered, refused = found
    assert told["action_chunk_size"] == 2, "its interfaces execute so many actions of a chunk"
    for answer, number in zip(answered, (0.25, 0.5), strict=True):
        assert answer["ok"] is True and answer["status"] == "ok"
        np.testing.assert_array_equal(answer["data"]["actions"], np.full((1, 4, 7), number, np.float32))
    assert refused["ok"] is False and "a list of 2 images" in refused["error"]["message"]
    np.testing.assert_array_equal(seen[1].images["wrist_image"], IMAGE[::-1])
    assert seen[1].instruction == "lift the cup"


def test_xpolicylab() -> None:
    views = ("cam_high", "cam_left_wrist", "cam_right_wrist")
    with answers("xpolicylab", facts("aloha", views, 14, Layout("joint", 6).names, 3)) as (_, found, seen):
        kinds = [answer["message_type"] for answer in found]
    results = ["infer_result"] * 3
    assert kinds == ["hello_ack", "prepare_case_ack", "reset_result", *results, "error", "trial_end_ack"]
    assert {answer["evaluation_id"] for answer in found} == {"ev-1"}
    for answer, number in zip(found[3:6], (0.25, 0.5, 0.75), strict=True):
        actions = answer["payload"]["actions"]
        assert len(actions) == 3, "it executes what it gets"
        np.testing.assert_array_equal(actions[2]["left_arm_joint_state"], np.full(6, number, np.float32))
        assert actions[0]["right_ee_joint_state"].shape == (1,)
    assert found[6]["payload"]["code"] == "invalid_frame" and "'state'" in found[6]["payload"]["message"]
    np.testing.assert_array_equal(seen[0].images["cam_high"], IMAGE)
    assert [one.instruction for one in seen] == ["place the fan"] * 3


def test_an_older_client_of_ours() -> None:
    """It does not name episodes and steps, and has another word for the rest of its chunk."""
    with answers("older_client", facts("franka", ("image", "wrist_image"), 8, NAMES, 2)) as (
        told,
        found,
        seen,
    ):
        reset, one, two, about = found
    assert told["protocol"] == "wamkit/1" and reset["reset"] is True and about["about"] == "{}"
    np.testing.assert_array_equal(one["chunks"][0]["actions"], np.full((4, 7), 0.25, np.float32))
    assert [chunk["actions"][0, 0] for chunk in two["chunks"]] == [0.5, 0.75]
    assert [(one.noise_seed, one.delay, len(one.previous)) for one in seen] == [
        (7, 0, 0),
        (0, 0, 0),
        (0, 2, 2),
    ]
    assert [(one.episode, one.step) for one in seen] == [("", 0)] * 3 and seen[1].steps == 2
