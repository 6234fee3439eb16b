"""All dialects that one port speaks, and how it greets whoever connects."""

from __future__ import annotations

from collections.abc import Callable

from wamkit_client.codec import pack

from wamkit.serve.dialects.base import Dialect
from wamkit.serve.dialects.openpi import OpenPi, metadata
from wamkit.serve.dialects.roboarena import RoboArena
from wamkit.serve.dialects.starvla import StarVla
from wamkit.serve.dialects.xpolicylab import XPolicyLab
from wamkit.serve.served import Policies


def dialects() -> list[Dialect]:
    """openpi's, which any map may be, is the last."""
    return [XPolicyLab(), RoboArena(), StarVla(), OpenPi()]


def greeting(policies: Policies) -> Callable[[], bytes]:
    """What a client is sent when it connects: openpi's metadata, in which RoboArena's clients find theirs."""
    return lambda: pack(metadata(policies))
