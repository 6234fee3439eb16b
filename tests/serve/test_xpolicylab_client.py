"""XPolicyLab's real client, unmodified, against our server (`make test-xpolicylab XPOLICYLAB=/checkout`).

It passed on 2026-11-22 with commit 7198143 of XPolicyLab/XPolicyLab; recorded/xpolicylab.json has what it sends.
"""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
from wamkit_client.envs.robotwin.conventions import Layout

from tests.serve.real_clients import build
from tests.serve.robots import service
from tests.serve.test_recorded import Same, facts
from wamkit.serve.dialects.spoken import dialects, greeting
from wamkit.serve.dialects.xpolicylab import XPolicyLab
from wamkit.serve.server import Server

pytestmark = pytest.mark.xpolicylab
CHECKOUT = os.environ.get("WAMKIT_XPOLICYLAB", "")
VIEWS = ("cam_high", "cam_left_wrist", "cam_right_wrist")


def test_two_episodes() -> None:
    if not (Path(CHECKOUT) / "client_server").is_dir() or not CHECKOUT:
        pytest.skip("WAMKIT_XPOLICYLAB names no checkout of XPolicyLab's repository")
    build.build()
    asked = service(Same(14), facts("aloha", VIEWS, 14, Layout("joint", 6).names, steps=3))
    spoken = dialects()
    with Server(asked, spoken, greeting=greeting(asked.policies)) as server:
        found = json.loads(build.run("ask_xpolicylab.py", server.url, checkout=CHECKOUT))
    assert found["steps"] == [[[number] * 6] * 3 for number in (0.25, 0.5)] * 2
    assert found["batch"] == [[0.75], [1.0]] * 2
    assert [code for code, _ in found["refused"]] == ["invalid_frame"] * 2
    (dialect,) = (one for one in spoken if isinstance(one, XPolicyLab))
    (attempts,) = dialect.attempts.values()
    assert [(one.outcome, one.steps, len(one.calls)) for one in attempts] == [
        ("success", 12, 4),
        ("failure", 12, 4),
    ]
