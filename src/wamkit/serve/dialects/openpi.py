"""openpi's protocol, with more keys that its clients need not know (docs/server.md).

A request is a map: an observation, several as `observations` (one call of the policy for all), `reset`, or `about`
(what do results say of the policy). The answer has `actions`, or `chunks`. An error is a text frame, after which the
connection ends; whoever sends a `request_id` gets a map with `error` instead, and goes on.
"""

from __future__ import annotations

from collections.abc import Mapping
from math import inf
from typing import Any

import numpy as np
from wamkit_client.codec import pack
from wamkit_client.protocol import PROTOCOL
from wamkit_client.types import ActionChunk, BadInput, Observation

from wamkit.serve.dialects.base import Client, Message, Reply
from wamkit.serve.refusals import Refused
from wamkit.serve.scheduler import Answer
from wamkit.serve.served import Facts, Policies


class OpenPi:
    """A Dialect, for all messages that no other knows."""

    name = "openpi"

    def speaks(self, fields: Mapping[Any, Any]) -> bool:
        return True

    async def answer(self, message: Message, client: Client) -> Reply:
        fields = message.fields
        if message.name("protocol") not in ("", PROTOCOL):
            raise BadInput(
                f"protocol {message.name('protocol')!r}: this server speaks {PROTOCOL}; update the older one"
            )
        _expect_id(fields)
        served = client.service.policies.find(message.name("policy"))
        known = {"request_id": fields["request_id"]} if "request_id" in fields else {}
        if fields.get("reset") is True:
            await client.reset(served)
            return Reply(pack({"reset": True, **known}))
        if fields.get("about") is True:
            return Reply(pack({"about": served.facts.about, **known}))
        several = "observations" in fields
        observed = [client.observation(served, one) for one in _observations(fields)]
        answer = await client.ask(served, observed, message.name("robot"), _seconds(fields))
        chunks = [_chunk(*both) for both in zip(answer.chunks, observed, strict=True)]
        result = {"chunks": chunks} if several else {**chunks[0], "action_chunk": chunks[0]["actions"]}
        timing = _timing(answer, message.decode_ms, client.total_ms)
        return Reply(pack({**result, **known, "policy": served.name, "server_timing": timing}))

    def refuse(self, message: Message, error: Refused) -> Reply:
        if _is_id(message.fields.get("request_id")):
            wrong = {"reason": error.reason, "message": error.told}
            return Reply(pack({"error": wrong, "request_id": message.fields["request_id"]}))
        return Reply(error.told, ends="Internal server error. The previous frame says which.")


def metadata(policies: Policies) -> dict[str, Any]:
    """What clients are sent when they connect: of the first policy, and of each by name."""
    each = {one.name: _told(one.facts) for one in policies.all}
    first = policies.find()
    return {
        "protocol": PROTOCOL,
        "policy": first.name,
        **each[first.name],
        **_robo_arena(first.facts),
        "action_chunk_size": first.facts.replan_steps,  # how many actions starVLA's clients execute
        "policies": each,
    }


def _told(facts: Facts) -> dict[str, Any]:
    robots = {
        robot.name: {
            "cameras": [
                {"name": view, "height": facts.view_height, "width": facts.view_width} for view in robot.views
            ],
            "state_dim": robot.proprio_dim,
            "action_dim": robot.action_dim,
            "action_horizon": robot.horizon,
            "control_hz": robot.hz,
        }
        for robot in facts.robots
    }
    return {
        "kind": facts.kind,
        **robots[facts.robots[0].name],
        "robots": robots,
        "action_names": list(facts.action_names),
        "replan_steps": facts.replan_steps,
        "identity": dict(facts.identity),
    }


def _robo_arena(facts: Facts) -> dict[str, Any]:
    """The keys of RoboArena's PolicyServerConfig."""
    views = facts.robots[0].views
    wrists = [view for view in views if "wrist" in view]
    space = "joint" if any("joint" in name for name in facts.action_names) else "cartesian"
    return {
        "image_resolution": [facts.view_height, facts.view_width],
        "needs_wrist_camera": bool(wrists),
        "n_external_cameras": len(views) - len(wrists),
        "needs_stereo_camera": False,
        "needs_session_id": False,
        "action_space": f"{space}_{'position' if facts.absolute else 'velocity'}",
    }


def _observations(fields: Mapping[Any, Any]) -> list[Mapping[Any, Any]]:
    several = fields.get("observations", [fields])
    if not isinstance(several, list) or not several or not all(isinstance(one, dict) for one in several):
        raise BadInput("'observations': expected a list of maps, at least one")
    return several


def _chunk(chunk: ActionChunk, observation: Observation) -> dict[str, Any]:
    actions = np.ascontiguousarray(chunk.actions, np.float32)
    return {
        "actions": actions,
        "seed": observation.noise_seed,
        **({"info": chunk.info} if chunk.info else {}),
        **({"displacements": list(chunk.displacements)} if chunk.displacements else {}),
    }


def _timing(answer: Answer, decode_ms: float, previous_ms: float) -> dict[str, float]:
    timing = answer.timing
    known = {
        "infer_ms": 1000 * timing.called,
        "queue_ms": 1000 * timing.queued,
        "decode_ms": decode_ms,
        "batch": timing.batch,
        **{f"{part}_ms": 1000 * seconds for part, seconds in timing.parts.items()},
    }
    return known | ({"prev_total_ms": previous_ms} if previous_ms else {})


def _seconds(fields: Mapping[Any, Any]) -> float:
    value = fields.get("deadline_ms", inf)
    if type(value) not in (int, float) or not value > 0:
        raise BadInput(f"'deadline_ms': expected milliseconds above 0, got {value!r:.100}")
    return float(value) / 1000


def _is_id(value: Any) -> bool:
    return type(value) is int or (isinstance(value, str) and len(value) <= 200)


def _expect_id(fields: Mapping[Any, Any]) -> None:
    if "request_id" in fields and not _is_id(fields["request_id"]):
        raise BadInput("'request_id': expected an integer or at most 200 characters")
