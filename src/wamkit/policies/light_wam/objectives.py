"""What a Light-WAM is trained for: the chunk, and beside it what its video model says of the noised future (spec 2.2,
2.3).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from wamkit.draws import Draws
from wamkit.nn.attention import FIRST_FRAME_CAUSAL, Visibility
from wamkit.types import Batch
from wamkit.wan.block import beside
from wamkit.wan.dit import Frames

if TYPE_CHECKING:
    from wamkit.policies.light_wam.policy import LightWAM

# The present at full resolution, for the actions, beside the pooled clip.
SEEN = Frames("seen", 0, 1)
SEEN_BESIDE_CLIP: Visibility = (("seen", ("seen",)), *FIRST_FRAME_CAUSAL)

Objective = Callable[["LightWAM", Batch, Draws], dict[str, Tensor]]


def cotrain(policy: LightWAM, batch: Batch, draws: Draws) -> dict[str, Tensor]:
    """The published objective: a look at the present for the actions, and one at the noised pooled clip.

    Up to the last tap they are one pass, of tokens that do not see each other: half as many operations.
    """
    dit, present = policy.dit, batch.inputs["present"]
    context = policy.context(batch.inputs, batch.embodiment)
    clip = policy.draw_noise(batch.inputs, draws)
    imagined = dit.embed(clip.latents, clip.times, context, clip.groups)
    seen = dit.stream(present, torch.zeros(1, 1, device=present.device), imagined.context, (SEEN,))
    taps, tokens = policy.config.adapters.layers, seen.tokens.shape[1]
    depth = max(taps) + 1
    both = dit.run(beside(seen, imagined), SEEN_BESIDE_CLIP, range(depth), taps)
    rest = replace(imagined, tokens=both.tokens[:, tokens:])
    done = dit.run(rest, FIRST_FRAME_CAUSAL, range(depth, dit.size.layers))
    return {
        "video": policy.video_loss(dit.head(done.tokens, imagined)[:, :, 1:], clip, batch),
        "action": policy.action_loss(tuple(tap[:, :tokens] for tap in both.taps), batch, draws),
    }


def cotrain_one_pass(policy: LightWAM, batch: Batch, draws: Draws) -> dict[str, Tensor]:
    """`cotrain` without pooling: the clip's first-frame tokens are the action pass, token for token (spec 6.4)."""
    context = policy.context(batch.inputs, batch.embodiment)
    clip = policy.draw_noise(batch.inputs, draws)
    taps = policy.config.adapters.layers
    out = policy.dit(clip.latents, clip.times, context, clip.groups, FIRST_FRAME_CAUSAL, taps)
    tokens = out.taps[0].shape[1] // clip.latents.shape[2]
    return {
        "video": policy.video_loss(out.predicted[:, :, 1:], clip, batch),
        "action": policy.action_loss(tuple(tap[:, :tokens] for tap in out.taps), batch, draws),
    }


def action_only(policy: LightWAM, batch: Batch, draws: Draws) -> dict[str, Tensor]:
    """No video co-training: the controlled comparison's other arm."""
    taps = policy.look(batch.inputs["present"], policy.context(batch.inputs, batch.embodiment))
    return {"action": policy.action_loss(taps, batch, draws)}


OBJECTIVES: dict[str, Objective] = {
    "cotrain": cotrain,
    "cotrain_one_pass": cotrain_one_pass,
    "action_only": action_only,
}
