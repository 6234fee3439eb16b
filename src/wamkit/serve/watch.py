"""What a server tells about its work to whoever measures it (metrics.py); measures nothing itself."""

from __future__ import annotations

from dataclasses import dataclass

from wamkit.serve.refusals import Reason


@dataclass(frozen=True)
class Timing:
    """Where the time of a query went, in seconds. queued: until the policy was called.  called: the call.

    batch: observations that the call answered.  parts: of the call, by span (wamkit/spans.py), as far as the policy has
    them; work of a GPU is counted where the host waits for it.
    """

    queued: float
    called: float
    batch: int
    parts: dict[str, float]


class Watch:
    """Is told what happens, in the server's thread; this one forgets it."""

    def connected(self, change: int) -> None:
        """So many more connections are open."""

    def answered(self, dialect: str, seconds: float) -> None:
        """A message was answered, so long after it came."""

    def refused(self, dialect: str, reason: Reason) -> None:
        """A message was refused."""

    def called(self, policy: str, timing: Timing, waiting: int) -> None:
        """A policy was called once; so many queries are still waiting."""

    def outside(self, policy: str, robot: str) -> None:
        """A proprio came that is far from all that the policy was trained on."""

    def compared(self, policy: str, score: float, alarm: bool) -> None:
        """A policy's world model was held against what happened."""

    def exchanged(self, policy: str, robot: str, view: str) -> None:
        """The images that a connection sends of a camera look as if red and blue were exchanged."""

    def reloaded(self, policy: str, done: bool) -> None:
        """Another run directory has taken a policy's place, or could not."""


NOBODY = Watch()
