"""starVLA's protocol: openpi's transport; a request has `examples`, or a `type` and a `payload`; errors are answers.

An example is {"image": the images in the order of the policy's cameras, "lang": the instruction, "state"}. Actions are
in physical units, whatever `unnorm_key` says, for all examples: [examples, horizon, action].
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from wamkit_client.codec import pack
from wamkit_client.types import BadInput, Observation

from wamkit.serve.dialects.base import Client, Message, Reply
from wamkit.serve.refusals import Refused
from wamkit.serve.served import Served

INFER = ("infer", "predict_action")
TYPES = ("ping", "init", "reset", *INFER)
RESULT = "inference_result"


class StarVla:
    """A Dialect."""

    name = "starvla"

    def speaks(self, fields: Mapping[Any, Any]) -> bool:
        return "examples" in fields or (isinstance(fields.get("type"), str) and fields["type"] in TYPES)

    async def answer(self, message: Message, client: Client) -> Reply:
        kind = message.fields.get("type", INFER[0])
        if not isinstance(kind, str) or kind not in TYPES:
            raise BadInput(f"'type': expected one of {', '.join(TYPES)}, got {kind!r:.100}")
        served = client.service.policies.find(message.name("policy"))
        if kind in INFER:
            observed = _observations(message, client, served)
            answer = await client.ask(served, observed, message.name("robot"))
            actions = np.stack([chunk.actions for chunk in answer.chunks]).astype(np.float32)
            return _answered(message, RESULT, data={"actions": actions})
        if kind == "reset":
            await client.reset(served)
        return _answered(message, kind)

    def refuse(self, message: Message, error: Refused) -> Reply:
        wrong = {"status": "error", "ok": False, "type": RESULT, "request_id": _id(message)}
        return Reply(pack({**wrong, "error": {"message": error.told, "reason": error.reason}}))


def _answered(message: Message, kind: str, **more: Any) -> Reply:
    return Reply(pack({"status": "ok", "ok": True, "type": kind, "request_id": _id(message), **more}))


def _id(message: Message) -> str:
    given = message.fields.get("request_id", "default")
    return given if isinstance(given, str) else "default"


def _observations(message: Message, client: Client, served: Served) -> list[Observation]:
    payload = message.fields.get("payload", message.fields)
    examples = payload.get("examples") if isinstance(payload, dict) else None
    if not isinstance(examples, list) or not examples or not all(isinstance(one, dict) for one in examples):
        raise BadInput("'examples': expected a list of maps with image, lang and state, at least one")
    views = served.facts.robot(message.name("embodiment")).views
    return [client.observation(served, _named(example, views)) for example in examples]


def _named(example: Mapping[Any, Any], views: tuple[str, ...]) -> dict[str, Any]:
    """An example with the keys of openpi's ALOHA layout."""
    images = example.get("image")
    if not isinstance(images, list) or len(images) != len(views):
        got = len(images) if isinstance(images, list) else type(images).__name__
        raise BadInput(f"'image': expected a list of {len(views)} images ({', '.join(views)}), got {got}")
    named = {"images": dict(zip(views, images, strict=True)), "prompt": example.get("lang", "")}
    state = example.get("state")
    if isinstance(state, np.ndarray):
        named["state"] = state.reshape(-1) if state.shape[:-1] in ((), (1,)) else state
    return named
