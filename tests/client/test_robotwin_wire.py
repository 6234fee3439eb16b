"""Messages in their envelopes; test_codec.py has what is inside."""

from __future__ import annotations

import random

import msgpack
import numpy as np
import pytest
from wamkit_client.envs.robotwin.wire import Frame, WireError, pack, unpack


def test_what_cannot_be_decoded_is_an_invalid_frame() -> None:
    with pytest.raises(WireError, match="malformed") as caught:
        unpack(msgpack.packb({b"nd": True, b"type": "<f4", b"data": b"", b"shape": [2]}))
    assert caught.value.code == "invalid_frame"


def test_names_are_short_and_of_their_type() -> None:
    fields = {"message_type": "infer", "message_id": "7", "evaluation_id": "e"}
    for wrong in (
        {"message_id": "7" * 1001},
        {"evaluation_id": b"e"},
        {"trial_id": 5},
        {"repeat_index": "0"},
        {"action_case_id": {"a": "map"}},
        {"payload": 0},
        {"payload": {b"nd": True, b"type": "<f4", b"data": bytes(8), b"shape": [2]}},
        {"step": 0.5},
    ):
        with pytest.raises(WireError) as caught:
            unpack(msgpack.packb({**fields, **wrong}))
        assert caught.value.code == "invalid_frame"
        assert caught.value.message_id == ("" if "message_id" in wrong else "7")


def test_three_thousand_damaged_messages() -> None:
    """Each is a frame or a WireError, never anything else."""
    rng = random.Random(0)
    color = np.zeros((8, 8, 3), np.uint8)
    seen = {"vision": {"cam_head": {"color": color}}, "state": {"arm": np.ones(6)}, "instruction": "lift"}
    whole = pack(Frame("infer", "1", "e", {"observation": seen}, trial_id="t", repeat_index=2, step=3))
    read = 0
    for _ in range(3000):
        data = bytearray(whole)
        for _ in range(rng.randrange(1, 6)):
            data[rng.randrange(len(data))] = rng.randrange(256)
        start = rng.randrange(len(data)) if rng.random() < 0.1 else 0
        try:
            read += isinstance(
                unpack(bytes(data[start : rng.choice([len(data), rng.randrange(len(data) + 1)])])), Frame
            )
        except WireError as error:
            assert error.message
    assert 0 < read < 3000
