"""What wamkit's client says to a server, and what it is told: openpi's protocol with further keys.

Messages are maps (codec.py), one binary frame each. The server greets with its metadata; then it is asked one question
after the other:

question  {"request_id": text, "policy": its name ("": the first), and one of
           "observations": [{"images", "proprio", "prompt", "embodiment", "seed", "prev_actions", "inference_delay",
               "steps", "episode", "step"}], answered by one call of the policy, and "deadline_ms": after that the
               answer is of no use
           "reset": True: an episode begins
           "about": True: what does a result say of the policy?}
answer    {"request_id": the question's, and
           "chunks": [{"actions", ..}], "server_timing": {what: milliseconds}
           "reset": True
           "about": JSON text
           or "error": {"reason", "message"}; the connection stays usable}
"""

from __future__ import annotations

from typing import Any, Dict, List, Mapping, Tuple

import numpy as np

from wamkit_client.types import WHOLE, ActionChunk, Observation

PROTOCOL = "wamkit/1"
"""Of a server's metadata; another number is another protocol."""
FAULTS = ("bad_request", "malformed")
"""Reasons of errors that are the client's fault."""
PASSING = ("busy", "rate", "superseded", "stopping")
"""Reasons of errors that the same question may be spared later."""
LATE = "late"
"""The reason where a deadline passed."""


class Unreadable(ValueError):
    """An answer that is none of this protocol's."""


def to_message(seen: Observation) -> Dict[str, Any]:
    """What a question says of an observation."""
    return {
        "images": seen.images,
        "proprio": seen.proprio,
        "prompt": seen.instruction,
        "embodiment": seen.embodiment,
        "seed": seen.noise_seed,
        "inference_delay": seen.delay,
        "episode": seen.episode,
        "step": seen.step,
        **({"prev_actions": seen.previous} if len(seen.previous) else {}),
        **({"steps": seen.steps} if seen.steps != WHOLE else {}),
    }


def to_chunks(answer: Mapping[str, Any], asked: int) -> List[ActionChunk]:
    """One chunk for each of the observations that were asked about; `info` has everything else. Raises Unreadable."""
    listed, timing = answer.get("chunks"), answer.get("server_timing", {})
    if type(listed) is not list or len(listed) != asked:
        raise Unreadable(f"expected {asked} chunks, got {_short(listed)}")
    return [_chunk(fields, {"server_timing": timing}) for fields in listed]


def _chunk(fields: Any, timing: Dict[str, Any]) -> ActionChunk:
    if type(fields) is not dict or "actions" not in fields:
        raise Unreadable(f"expected a chunk, a map with 'actions', got {_short(fields)}")
    actions = fields["actions"]
    if type(actions) is not np.ndarray or actions.ndim != 2:
        raise Unreadable(f"expected actions [k, a], got {_short(actions)}")
    info = {name: value for name, value in fields.items() if name not in ("actions", "info", "displacements")}
    return ActionChunk(actions, {**_info(fields), **info, **timing}, _displacements(fields, actions.shape[1]))


def _displacements(fields: Dict[str, Any], dims: int) -> Tuple[int, ...]:
    said = fields.get("displacements", [])
    if type(said) is not list or not all(type(dim) is int and 0 <= dim < dims for dim in said):
        raise Unreadable(f"expected displacements, numbers of the {dims} dimensions, got {_short(said)}")
    return tuple(said)


def _info(fields: Dict[str, Any]) -> Dict[str, Any]:
    """What the policy itself says of a chunk."""
    said = fields.get("info", {})
    if type(said) is not dict:
        raise Unreadable(f"expected what the policy says of a chunk, a map, got {_short(said)}")
    return said


def _short(value: Any) -> str:
    """A value in an error message, which may be huge."""
    if isinstance(value, np.ndarray):
        return f"{value.dtype} {list(value.shape)}"
    if isinstance(value, (list, dict)):
        return f"a {type(value).__name__} of {len(value)}"
    return f"{value!r:.100}"
