"""A server of the toy's Reacher in a process of its own, to be killed: python -m tests.serve.reacher_process PORT."""

from __future__ import annotations

import sys
import threading

from tests.client.toy import HORIZON, Reacher
from wamkit.serve.dialects.base import Service
from wamkit.serve.dialects.spoken import dialects, greeting
from wamkit.serve.scheduler import Scheduler
from wamkit.serve.served import Facts, Policies, Robot, Served
from wamkit.serve.server import Server

ROBOT = Robot("toy_hand", ("eye",), proprio_dim=1, action_dim=1, horizon=HORIZON, hz=10.0)
FACTS = Facts("reacher", (ROBOT,), ("x",), 16, 16, replan_steps=3, absolute=False)


def server(port: int = 0) -> Server:
    policies = Policies(Served("reacher", Reacher(), FACTS))
    return Server(Service(policies, Scheduler()), dialects(), port=port, greeting=greeting(policies))


if __name__ == "__main__":
    with server(int(sys.argv[1])) as running:
        print(running.port, flush=True)
        threading.Event().wait()
