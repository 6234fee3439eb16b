"""RoboArena's protocol, which DreamZero's clients speak too: openpi's transport, with `endpoint` in every request.

What the policy is, they read from the first frame (openpi.metadata). RoboArena's evaluator executes all actions that it
gets, so it gets the first `replan_steps`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
from wamkit_client.codec import pack
from wamkit_client.types import BadInput

from wamkit.serve.dialects.base import Client, Message, Reply
from wamkit.serve.refusals import Refused


class RoboArena:
    """A Dialect."""

    name = "roboarena"

    def speaks(self, fields: Mapping[Any, Any]) -> bool:
        return "endpoint" in fields

    async def answer(self, message: Message, client: Client) -> Reply:
        served = client.service.policies.find(message.name("policy"))
        match message.fields["endpoint"]:
            case "infer":
                steps = served.facts.replan_steps
                observation = replace(client.observation(served, message.fields), steps=steps)
                answer = await client.ask(served, [observation], message.name("session_id"))
                actions = np.ascontiguousarray(answer.chunks[0].actions[:steps], np.float32)
                return Reply(pack({"actions": actions}))
            case "reset":
                await client.reset(served)
                return Reply("reset successful")
            case other:
                raise BadInput(f"'endpoint': expected infer or reset, got {other!r:.100}")

    def refuse(self, message: Message, error: Refused) -> Reply:
        return Reply(error.told, ends="Internal server error. The previous frame says which.")
