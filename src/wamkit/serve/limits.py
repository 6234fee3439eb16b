"""How much clients may ask of a server."""

from __future__ import annotations

from dataclasses import dataclass

from wamkit.bounds import AT_LEAST_1, POSITIVE, check

LARGEST_MESSAGE = 64 * 2**20


@dataclass(frozen=True)
class Limits:
    """What is more is refused, and said so."""

    message_bytes: int = LARGEST_MESSAGE
    """Of one message."""
    waiting_bytes: int = 4 * LARGEST_MESSAGE
    """Of all messages that are read and not answered."""
    pending: int = 8
    """Unanswered messages of one connection."""
    observations: int = 64
    """Of one question."""
    queries: int = 256
    """That wait for the policy."""
    connections: int = 64
    """Of all clients."""
    connections_per_key: int = 64
    """Of one API key."""
    rate: float = 1000.0
    """Messages per second of one API key."""
    image_pixels: int = 4096 * 4096
    """Of one image."""
    instruction_length: int = 2000
    """Characters of an instruction."""
    episode_length: int = 200
    """Characters of an episode's name."""
    open_seconds: float = 10.0
    """Until a new connection has said what it wants."""
    message_seconds: float = 20.0
    """From a message's first byte to its last."""
    drain_seconds: float = 10.0
    """In which the server, when it ends, still answers what was asked."""

    def __post_init__(self) -> None:
        kinds = {int: AT_LEAST_1, float: POSITIVE}
        check("limits", self, {name: kinds[type(value)] for name, value in vars(self).items()})
