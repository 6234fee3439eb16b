"""The real openpi client 0.1.2, unmodified, against our server (`make test-openpi`; builds its environment first)."""

from __future__ import annotations

import json

import numpy as np
import pytest
from wamkit_client.codec import pack

from tests.serve.real_clients import build
from tests.serve.robots import Echo, service
from wamkit.serve.dialects.spoken import dialects, greeting
from wamkit.serve.doors import Doors
from wamkit.serve.server import Server

pytestmark = pytest.mark.openpi
KEY = "a_key_0123456789abcdef"


def test_it_is_answered_and_refused_as_it_expects() -> None:
    build.build()
    echo = Echo()
    asked = service(echo)
    with Server(asked, dialects(), Doors({"robot": KEY}), greeting=greeting(asked.policies)) as running:
        found = json.loads(build.run("ask_openpi.py", running.address, KEY))
    assert found["protocol"] == "wamkit/1"
    assert (found["shape"], found["dtype"]) == ([4, 7], "float32")
    assert found["first"] == [1] * 7 and found["second"] == [2] * 7
    assert {"infer_ms", "prev_total_ms"} <= set(found["timing"])
    assert found["steps"] == [[3] * 7, [3] * 7, [5] * 7], "two actions of every chunk"
    assert found["refused"].startswith("Error in inference server:\n")
    assert "the observation has no" in found["refused"] and "1011" in found["closed"]
    image = echo.calls[0][0].images["image"]
    np.testing.assert_array_equal(image, np.arange(32 * 32 * 3, dtype=np.uint8).reshape(32, 32, 3))
    values = {
        "a": np.float32(0.5),
        "b": np.zeros((0, 2)),
        "c": np.arange(6).reshape(2, 3).T,
        "d": [1, None, "x"],
    }
    assert pack(values).hex() == found["packed"], "byte for byte"
