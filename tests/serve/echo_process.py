"""A server of an Echo as a process: `python -m tests.serve.echo_process PORT`; it says when it serves."""

from __future__ import annotations

import sys

from tests.serve.robots import Echo, service
from wamkit.serve.dialects.spoken import dialects, greeting
from wamkit.serve.server import Server

if __name__ == "__main__":
    served = service(Echo())
    with Server(served, dialects(), port=int(sys.argv[1]), greeting=greeting(served.policies)) as server:
        print(server.port, flush=True)
        sys.stdin.read()
