"""A stand-in for XPolicyLab's client: its messages over a real websocket, with a codec of its own."""

from __future__ import annotations

import uuid
from contextlib import ExitStack

import msgpack
import numpy as np
from websockets.sync.client import connect

ANSWERS = {
    "hello": "hello_ack",
    "prepare_case": "prepare_case_ack",
    "reset": "reset_result",
    "infer": "infer_result",
    "trial_end": "trial_end_ack",
    "heartbeat": "heartbeat_ack",
}


def encode(value):
    if isinstance(value, np.ndarray):
        return {
            b"nd": True,
            b"type": value.dtype.str,
            b"kind": b"",
            b"shape": value.shape,
            b"data": value.data.tobytes(),
        }
    if isinstance(value, np.generic):
        return {b"nd": False, b"type": value.dtype.str, b"data": value.data.tobytes()}
    raise TypeError(type(value))


def decode(value):
    if value.get(b"nd") is True:
        return np.ndarray(buffer=value[b"data"], dtype=np.dtype(value[b"type"]), shape=value[b"shape"])
    return value


class Refused(Exception):
    """The server answered with an error."""


class Client:
    def __init__(self, url, evaluation_id, trial_id="trial", action_case_id="case"):
        self.names = {"evaluation_id": evaluation_id, "trial_id": trial_id, "action_case_id": action_case_id}
        self.open = ExitStack()
        self.socket = self.open.enter_context(connect(url, max_size=None))
        self.step = 0
        self.ask("hello", {})

    def send(self, message_type, payload):
        """Returns the message's id."""
        own = {"message_type": message_type, "message_id": str(uuid.uuid4()), "repeat_index": None}
        frame = {
            **own,
            **self.names,
            "step": self.step,
            "sent_at": "2026-01-01T00:00:00+00:00",
            "payload": payload,
        }
        self.socket.send(msgpack.packb(frame, default=encode, use_bin_type=True))
        return own["message_id"]

    def receive(self):
        return msgpack.unpackb(self.socket.recv(timeout=60), raw=False, object_hook=decode)

    def ask(self, message_type, payload):
        asked = self.send(message_type, payload)
        answer = self.receive()
        while "message_id" not in answer:  # a greeting for others is passed over
            answer = self.receive()
        assert answer["message_id"] == asked, answer
        assert answer["evaluation_id"] == self.names["evaluation_id"], answer
        if answer["message_type"] == "error":
            assert set(answer["payload"]) == {"code", "message", "details"}, answer
            raise Refused(f"{answer['payload']['code']}: {answer['payload']['message']}")
        assert answer["message_type"] == ANSWERS[message_type], answer
        return answer["payload"]

    def infer(self, observation):
        actions = self.ask("infer", {"observation": observation})["actions"]
        self.step += 1
        return actions

    def close(self):
        self.open.close()
