"""Why a query is not answered: one kind of exception, with the words that metrics and clients know."""

from __future__ import annotations

import logging
import traceback
from typing import Literal, get_args

from wamkit_client.types import BadInput

log = logging.getLogger(__name__)

Reason = Literal[
    "malformed",  # not a message
    "bad_request",  # a message that cannot be answered: the client's fault
    "slow",  # a message that took too long to arrive; its connection is ended
    "rate",  # more requests than the limits allow
    "busy",  # too much is waiting
    "superseded",  # a newer observation of the same robot came
    "late",  # its deadline passed while it waited
    "stopping",  # the server ends
    "failed",  # the policy's fault
]
REASONS: tuple[Reason, ...] = get_args(Reason)
LONGEST = 2000  # characters; a refused value may be huge


class Refused(Exception):
    """A query that is not answered. reason: why.  details: a traceback, for whoever debugs the policy."""

    def __init__(self, reason: Reason, message: str, details: str = "") -> None:
        super().__init__(message)
        self.reason, self.message, self.details = reason, message[:LONGEST], details

    @property
    def told(self) -> str:
        """The message with its details, where there are any."""
        return self.message + (f"\n{self.details}" if self.details else "")


def refusal(error: Exception, debug: bool = False) -> Refused:
    """What a client is told about an error; one that is nobody's fault but ours is logged with its traceback.

    debug: the client is told that, too.
    """
    if isinstance(error, Refused):
        return error
    if isinstance(error, BadInput):
        return Refused("bad_request", str(error))
    log.error("the policy failed", exc_info=error)
    trace = "".join(traceback.format_exception(error)) if debug else ""
    return Refused("failed", f"{type(error).__name__}: {error}", trace)
