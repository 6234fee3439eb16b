"""A port for servers that come and go."""

from __future__ import annotations

import random
import socket


def lasting_port() -> int:
    """One of this machine that is free, and stays so while nobody listens: the kernel hands out higher ones only."""
    choices = random.SystemRandom()  # the other workers of the suite have the same seed
    while True:
        port = choices.randrange(20_000, 32_000)
        with socket.socket() as one:
            if one.connect_ex(("127.0.0.1", port)):
                return port
