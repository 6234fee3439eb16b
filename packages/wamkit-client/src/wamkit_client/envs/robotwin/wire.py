"""XPolicyLab's websocket messages, each one binary msgpack frame (wamkit_client/codec.py).

An envelope says which evaluation, case and trial a message belongs to; an answer repeats them and the message_id.
Errors travel as {code, message, details}. Knows neither sockets nor policies.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from datetime import datetime, timezone
from typing import Any, Dict, Optional

from wamkit_client import codec

# Message type -> type of its answer.
ANSWERS = {
    "hello": "hello_ack",
    "prepare_case": "prepare_case_ack",
    "reset": "reset_result",
    "infer": "infer_result",
    "trial_end": "trial_end_ack",
    "heartbeat": "heartbeat_ack",
}
REQUIRED = ("message_type", "message_id", "evaluation_id")
OPTIONAL = {"payload": dict, "action_case_id": str, "trial_id": str, "repeat_index": int, "step": int}
LONGEST_NAME = 1000  # characters of a required field
LONGEST_ERROR = 2000  # characters; a refused value may be huge


class WireError(Exception):
    """What is wrong with a message, in the protocol's own words.

    code: "invalid_frame" (also an observation that cannot be used), "unknown_message_type", "busy", "reset_failed",
    "infer_failed" or "internal".
    message_id, evaluation_id: of the message, where they could be read; else empty.
    """

    def __init__(self, code: str, message: str, message_id: str = "", evaluation_id: str = "") -> None:
        super().__init__(message)
        self.code, self.message = code, message[:LONGEST_ERROR]
        self.message_id, self.evaluation_id = message_id, evaluation_id


@dataclass(frozen=True)
class Frame:
    """One message. action_case_id, trial_id and repeat_index are None (nil on the wire) where none was begun."""

    message_type: str
    message_id: str
    evaluation_id: str
    payload: Dict[str, Any] = field(default_factory=dict)
    action_case_id: Optional[str] = None
    trial_id: Optional[str] = None
    repeat_index: Optional[int] = None
    step: int = 0

    def answer(self, message_type: str, payload: Dict[str, Any]) -> Frame:
        """The reply to this message."""
        return replace(self, message_type=message_type, payload=payload)

    def refuse(self, error: WireError) -> Frame:
        """The reply to this message where it failed."""
        return self.answer("error", {"code": error.code, "message": error.message, "details": {}})


def error_frame(error: WireError) -> Frame:
    """The answer to a message that could not be read."""
    return Frame("error", error.message_id, error.evaluation_id).refuse(error)


def pack(frame: Frame) -> bytes:
    """A frame as bytes; TypeError for objects that are neither plain values nor plain arrays."""
    fields = {**vars(frame), "sent_at": datetime.now(timezone.utc).isoformat()}
    return codec.pack(fields, codec.msgpack_numpy)


def unpack(message: bytes) -> Frame:
    """The frame in these bytes. Raises WireError with "invalid_frame"."""
    try:
        fields = codec.unpack(message)
    except codec.Malformed as error:
        raise WireError("invalid_frame", str(error)) from None
    return read(fields)


def read(fields: Any) -> Frame:
    """The frame of a message that is unpacked already. Raises WireError with "invalid_frame"."""
    if type(fields) is not dict:
        raise WireError("invalid_frame", f"a message is a map, got {type(fields).__name__}")
    required = {key: fields[key] for key in REQUIRED if _is_name(fields.get(key))}
    known = {key: value for key, value in required.items() if key != "message_type"}
    for key in REQUIRED:
        if key not in required:
            wrong = f"{key!r} is missing, not a str or longer than {LONGEST_NAME} characters"
            raise WireError("invalid_frame", wrong, **known)
    optional = {key: fields[key] for key in OPTIONAL if fields.get(key) is not None}
    for key, value in optional.items():
        if not isinstance(value, OPTIONAL[key]):
            raise WireError("invalid_frame", f"{key!r} must be a {OPTIONAL[key].__name__} or nil", **known)
    return Frame(**required, **optional)


def _is_name(value: Any) -> bool:
    return isinstance(value, str) and len(value) <= LONGEST_NAME
