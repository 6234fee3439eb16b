"""XPolicyLab's websocket messages: one binary msgpack frame each, arrays in msgpack-numpy's form. Never pickle.

An envelope says which evaluation, case and trial a message belongs to; an answer repeats them and the message_id.
Errors travel as {code, message, details}. Knows neither sockets nor policies.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass, field, replace
from datetime import datetime, timezone
from typing import Any, Dict, Optional

import msgpack
import numpy as np

from wamkit_client.codec import more_values_than

ANSWERS = {
    "hello": "hello_ack",
    "prepare_case": "prepare_case_ack",
    "reset": "reset_result",
    "infer": "infer_result",
    "trial_end": "trial_end_ack",
    "heartbeat": "heartbeat_ack",
}
LARGEST_FRAME = 64 * 2**20
MOST_VALUES = (
    100_000  # of a message; an observation has a hundred, a chunk of a thousand actions fifty thousand
)
MOST_DIMENSIONS = 32  # of an array
LONGEST_NAME = 1000  # characters
NEEDED = ("message_type", "message_id", "evaluation_id")
OPTIONAL = {"action_case_id": str, "trial_id": str, "repeat_index": int}
PLAIN_KINDS = "biuf"
PLAIN_DTYPE = re.compile(r"[<>|=]?[biuf][0-9]{1,2}")


class WireError(Exception):
    """What is wrong with a message, in the protocol's own words.

    code: "invalid_frame" (also an observation that cannot be used), "unknown_message_type", "busy", "reset_failed",
    "infer_failed" or "internal".
    message_id, evaluation_id: of the message, where they could be read; else empty.
    """

    def __init__(self, code: str, message: str, message_id: str = "", evaluation_id: str = "") -> None:
        super().__init__(message)
        self.code, self.message = code, message
        self.message_id, self.evaluation_id = message_id, evaluation_id


@dataclass(frozen=True)
class Frame:
    """One message. action_case_id, trial_id and repeat_index are absent (None on the wire) where none was begun."""

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


def error_frame(error: WireError) -> Frame:
    """The answer to a message that could not be read."""
    payload = {"code": error.code, "message": error.message, "details": {}}
    return Frame("error", error.message_id, error.evaluation_id, payload)


def pack(frame: Frame) -> bytes:
    """A frame as bytes; TypeError for objects that are neither plain values nor plain arrays."""
    fields = {**vars(frame), "sent_at": datetime.now(timezone.utc).isoformat()}
    packed: bytes = msgpack.packb(fields, default=_to_wire, use_bin_type=True)
    return packed


def unpack(data: bytes) -> Frame:
    """The frame in these bytes. Raises WireError with "invalid_frame", at once where decoding would take long."""
    if more_values_than(MOST_VALUES, data):
        raise WireError(
            "invalid_frame", f"a message of more than {MOST_VALUES} values; send numbers as arrays"
        )
    try:
        fields = msgpack.unpackb(data, raw=False, object_hook=_from_wire)
    except WireError:
        raise
    except (ValueError, TypeError, RecursionError, msgpack.UnpackException) as error:
        raise WireError("invalid_frame", f"this is not a msgpack message ({error})") from None
    if type(fields) is not dict:
        raise WireError("invalid_frame", f"a message is a map, got {type(fields).__name__}")
    known = {key: fields[key] for key in ("message_id", "evaluation_id") if _is_name(fields.get(key))}
    for key in NEEDED:
        if not _is_name(fields.get(key)):
            raise WireError(
                "invalid_frame",
                f"{key!r} is missing, not a str or of more than {LONGEST_NAME} characters",
                **known,
            )
    rest = {key: fields.get(key) for key in OPTIONAL}
    for key, kind in OPTIONAL.items():
        if rest[key] is not None and not isinstance(rest[key], kind):
            raise WireError("invalid_frame", f"{key!r} must be a {kind.__name__} or nil", **known)
    payload, step = fields.get("payload"), fields.get("step", 0)
    payload = {} if payload is None else payload
    if not isinstance(payload, dict) or not isinstance(step, int):
        raise WireError("invalid_frame", "'payload' must be a map and 'step' an integer", **known)
    return Frame(
        fields["message_type"], known["message_id"], known["evaluation_id"], payload, step=step, **rest
    )


def _is_name(value: Any) -> bool:
    return isinstance(value, str) and len(value) <= LONGEST_NAME


def _to_wire(value: Any) -> Any:
    if isinstance(value, (np.ndarray, np.generic)) and value.dtype.kind in PLAIN_KINDS:
        one = {b"nd": isinstance(value, np.ndarray), b"type": value.dtype.str, b"data": value.tobytes()}
        return {**one, b"kind": b"", b"shape": value.shape} if one[b"nd"] else one
    raise TypeError(f"{type(value).__name__} cannot be sent; expected plain values and arrays of numbers")


def _from_wire(value: Dict[Any, Any]) -> Any:
    """Arrays are views of the frame: read-only."""
    if b"complex" in value:
        raise WireError("invalid_frame", "complex numbers are not part of this protocol")
    if b"nd" not in value:
        return value
    try:
        if not PLAIN_DTYPE.fullmatch(value[b"type"]):
            raise ValueError(f"type {value[b'type']!r}")
        dtype = np.dtype(value[b"type"])
        shape = tuple(value[b"shape"]) if value[b"nd"] else ()
        if len(shape) > MOST_DIMENSIONS:
            raise ValueError(f"{len(shape)} dimensions")
        data = value[b"data"]
        if min(shape, default=0) < 0 or len(data) != dtype.itemsize * math.prod(shape):
            raise ValueError(f"{len(data)} bytes for {dtype} {shape}")
        array = np.frombuffer(data, dtype).reshape(shape)
    except (KeyError, TypeError, ValueError) as error:
        raise WireError("invalid_frame", f"an array of the message is malformed ({error})") from None
    return array if value[b"nd"] else array[()]
