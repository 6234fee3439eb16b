"""Messages with anything in any place: each is answered, nothing but the policy's own errors is our fault, the server
lives."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from wamkit_client.codec import pack, unpack
from websockets.exceptions import ConnectionClosedError, ConnectionClosedOK
from websockets.sync.client import connect

from tests.serve.robots import Echo, libero, service
from wamkit.serve.dialects.spoken import dialects
from wamkit.serve.limits import Limits
from wamkit.serve.server import Server

IMAGE = np.zeros((4, 4, 3), np.uint8)
OUR_FAULT = re.compile(
    r"\b(Type|Value|Key|Index|Attribute|Overflow|Assertion|Recursion|Memory|Unicode)\w*Error"
)
KEYS = st.sampled_from(
    [
        *libero(),
        *("images", "state", "proprio", "seed", "steps", "policy", "embodiment", "robot", "request_id"),
        *("deadline_ms", "prev_actions", "inference_delay", "reset", "about", "protocol", "observations"),
        *("endpoint", "session_id", "examples", "type", "payload", "lang", "image", "vision"),
        *(
            "message_type",
            "message_id",
            "evaluation_id",
            "action_type",
            "task_name",
            "observation",
            "episode",
        ),
    ]
)
NUMBERS = st.one_of(st.integers(-(2**63), 2**64 - 1), st.floats(), st.booleans(), st.none())
WORDS = st.one_of(
    st.sampled_from(["infer", "reset", "hello", "ping", "lift", "panda", "echo", "trial_end", "close", ""]),
    st.text(max_size=20),
    st.binary(max_size=20),
)
DTYPES = st.sampled_from([np.uint8, np.int64, np.float16, np.float32, np.float64, np.bool_])
ARRAYS = DTYPES.flatmap(
    lambda dtype: arrays.arrays(dtype, arrays.array_shapes(min_dims=0, max_dims=4, min_side=0, max_side=8))
)
VALUES = st.recursive(
    st.one_of(NUMBERS, WORDS, ARRAYS, st.just(IMAGE), st.just(np.full(8, np.nan))),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(KEYS, inner, max_size=4)),
    max_leaves=8,
)
STARVLA = {"examples": [{"image": [IMAGE] * 2, "lang": "lift", "state": np.zeros(8)}]}
XPOLICYLAB = {
    "message_type": "infer",
    "message_id": "1",
    "evaluation_id": "e",
    "payload": {"observation": {}},
}
WHOLE: list[dict[str, Any]] = [
    libero(),
    {"observations": [libero(), libero()]},
    libero(endpoint="infer"),
    STARVLA,
    XPOLICYLAB,
]
MESSAGES = st.builds(
    lambda whole, change, more: {**whole, **change, **more},
    st.sampled_from(WHOLE),
    st.dictionaries(KEYS, VALUES, max_size=3),
    st.sampled_from([{}, {"request_id": "1"}]),
)
HEALTH = [HealthCheck.too_slow, HealthCheck.function_scoped_fixture]


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    with Server(replace(service(Echo()), limits=Limits(rate=1e6)), dialects()) as running:
        yield running


@settings(max_examples=60, deadline=None, suppress_health_check=HEALTH)
@given(st.lists(MESSAGES, min_size=1, max_size=8))
def test_every_message_is_answered(server: Server, messages: list[dict[str, Any]]) -> None:
    with connect(server.url, compression=None) as one:
        for message in messages:
            one.send(pack(message))
            try:
                answer = one.recv(timeout=30)
            except ConnectionClosedOK:
                assert message.get("message_type") == "close"
                return
            said = answer if isinstance(answer, str) else str(unpack(answer))
            assert "Traceback" not in said and not OUR_FAULT.search(said), (message, said)
            if isinstance(answer, str) and answer != "reset successful":
                with pytest.raises(ConnectionClosedError, match="1011"):
                    one.recv(timeout=30)
                return
