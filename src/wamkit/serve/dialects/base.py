"""What a dialect is, and what it sees of a connection. Knows no protocol."""

from __future__ import annotations

import itertools
import logging
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from math import inf
from typing import Any, Literal, Protocol

from wamkit_client.chunk import checked
from wamkit_client.codec import Malformed, unpack
from wamkit_client.types import BadInput, Observation

from wamkit.data.colours import Colours
from wamkit.serve.layouts import LAYOUTS, Layout, observe
from wamkit.serve.limits import Limits
from wamkit.serve.refusals import Reason, Refused
from wamkit.serve.scheduler import Answer, Scheduler
from wamkit.serve.served import Policies, Robot, Served
from wamkit.serve.watch import NOBODY, Watch

log = logging.getLogger(__name__)
LONGEST_NAME = 200  # characters of a name that a client chooses
LOOKS, ENOUGH = 10, 8
"""Images of a connection whose colours are looked at, and how many of them must look exchanged."""
QUERY_BITS = 32  # of a seed, that count the queries of a connection


@dataclass(frozen=True)
class Message:
    """fields: of the map that came.  decode_ms: what reading it took."""

    fields: Mapping[Any, Any]
    decode_ms: float = 0.0

    def name(self, key: str) -> str:
        """A short text; "" where there is none. BadInput for anything else."""
        value = self.fields.get(key, "")
        if not isinstance(value, str) or len(value) > LONGEST_NAME:
            raise BadInput(f"{key!r}: expected at most {LONGEST_NAME} characters, got {value!r:.100}")
        return value


NOTHING = Message({})
"""In place of one that could not be read."""


def read_message(data: bytes) -> Message:
    """A message as it came. Raises Refused where it is none."""
    begin = time.perf_counter()
    try:
        fields = unpack(data)
    except Malformed as error:
        raise Refused("malformed", str(error)) from None
    if not isinstance(fields, dict):
        raise Refused("malformed", f"a message is a map, got {type(fields).__name__}")
    return Message(fields, 1000 * (time.perf_counter() - begin))


@dataclass(frozen=True)
class Reply:
    """What is sent. ends: why the connection is closed after it, as an error (1011); "": it goes on.

    refused: why this is no answer, where a dialect words its own errors; "": it is one.
    """

    frame: bytes | str
    ends: str = ""
    refused: Reason | Literal[""] = ""


class Dialect(Protocol):
    """One protocol. It runs in the server's event loop, so it must be quick between two awaits.

    answer: None where the client says goodbye. Whatever it raises is given to `refuse`.
    """

    @property
    def name(self) -> str:
        """Its word in metrics."""

    def speaks(self, fields: Mapping[Any, Any]) -> bool:
        """Whether a message is of this protocol."""

    async def answer(self, message: Message, client: Client) -> Reply | None:
        """See above."""

    def refuse(self, message: Message, error: Refused) -> Reply:
        """How a client is told that its message is not answered; without fields, where it could not be read."""


@dataclass(frozen=True)
class Service:
    """What all connections share.

    proprio_factor: how far a proprio may be from the middle of its training range, in halves of the range, before it is
    warned of. debug: whether clients are sent tracebacks.
    """

    policies: Policies
    scheduler: Scheduler
    layouts: Sequence[Layout] = LAYOUTS
    limits: Limits = Limits()
    watch: Watch = NOBODY
    proprio_factor: float = 1.5
    debug: bool = False
    warned: set[tuple[str, ...]] = field(default_factory=set)


class Client:
    """A connection, by its number. dialect: what it spoke last.

    total_ms: from its last message until that was answered; 0: there was none.
    """

    def __init__(self, service: Service, number: int, dialect: Dialect) -> None:
        self.service, self.number, self.dialect = service, number, dialect
        self.total_ms = 0.0
        self._queries = itertools.count()
        self._looks: dict[tuple[str, str, str], list[bool]] = {}

    def observation(self, served: Served, fields: Mapping[Any, Any]) -> Observation:
        """What the robot saw. BadInput as of layouts.observe."""
        robot = served.facts.robot(Message(fields).name("embodiment"))
        seed = (self.number << QUERY_BITS) + next(self._queries)
        seen = observe(fields, self.service.layouts, robot, seed, self.service.limits)
        self.compare(served, seen)
        return seen

    def compare(self, served: Served, seen: Observation) -> None:
        """Count what is unlike the training data, and warn of it once."""
        robot = served.facts.robot(seen.embodiment)
        self._compare_proprio(served.name, robot, seen)
        for view, colours in robot.colours.items():
            self._compare_colours(served.name, robot, view, colours, seen)

    def _compare_colours(
        self, policy: str, robot: Robot, view: str, colours: Colours, seen: Observation
    ) -> None:
        """A connection's first images of a camera decide, of which most must agree."""
        looks = self._looks.setdefault((policy, robot.name, view), [])
        if len(looks) == LOOKS:
            return
        looks.append(colours.exchanged(seen.images[view]))
        if len(looks) < LOOKS or sum(looks) < ENOUGH:
            return
        self.service.watch.exchanged(policy, robot.name, view)
        if (policy, robot.name, view) not in self.service.warned:
            self.service.warned.add((policy, robot.name, view))
            log.warning(
                "policy %s, robot %s, camera %s: the images are like those of the training with red and blue "
                "exchanged; does the client send BGR?",
                policy,
                robot.name,
                view,
            )

    def _compare_proprio(self, policy: str, robot: Robot, seen: Observation) -> None:
        service = self.service
        outside = robot.outside(seen.proprio, service.proprio_factor)
        if not outside:
            return
        service.watch.outside(policy, robot.name)
        if (policy, robot.name) not in service.warned:
            service.warned.add((policy, robot.name))
            log.warning(
                "policy %s, robot %s: proprio dimensions %s are far outside of what it was trained on (%s); are units, "
                "order and robot the same?",
                policy,
                robot.name,
                ", ".join(map(str, outside)),
                ", ".join(
                    f"[{robot.low[d]:.3g}, {robot.high[d]:.3g}], got {seen.proprio[d]:.3g}" for d in outside
                ),
            )

    async def ask(
        self, served: Served, observations: Sequence[Observation], robot: str = "", seconds: float = inf
    ) -> Answer:
        """One chunk for each, by one call of the policy. Raises Refused, and what the policy raises.

        robot: one of several that this connection serves. seconds: after which nobody needs the answer.
        """
        most = self.service.limits.observations
        if len(observations) > most:
            raise BadInput(f"{len(observations)} observations in one message, expected at most {most}")
        deadline = time.monotonic() + seconds
        answer = await self.service.scheduler.ask(served, observations, (self.number, robot), deadline)
        try:
            for chunk in answer.chunks:
                checked(chunk, 1)
        except BadInput as error:
            raise Refused("failed", str(error)) from None
        for said in (said for chunk in answer.chunks for said in chunk.warnings):
            self.service.watch.compared(served.name, said["score"], said["alarm"])
        return answer

    async def reset(self, served: Served) -> None:
        """An episode begins."""
        await self.service.scheduler.in_turn(served.policy.reset)
