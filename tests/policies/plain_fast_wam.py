"""Plain twins of Fast-WAM's short cuts: nothing cached, nothing dropped, one masked attention call."""

from __future__ import annotations

from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import Tensor

from wamkit.flow import Noised
from wamkit.nn.attention import KV, Visibility, cut, visibility_matrix
from wamkit.policies.fast_wam.losses import States
from wamkit.policies.fast_wam.policy import FastWAM
from wamkit.policies.fast_wam.sampling import Noise, Sample

# what moves from noise to data in each round of sampling, by Variant.imagines
ROUNDS = {
    "nothing": (("action",),),
    "alongside": (("action", "future"),),
    "first": (("future",), ("action",)),
}


def masked_attend(q: Mapping[str, Tensor], kv: Mapping[str, KV], visibility: Visibility) -> dict[str, Tensor]:
    """`wamkit.nn.attention.attend` as one call over all groups under a boolean mask."""
    sizes = {name: part.k.shape[2] for name, part in kv.items()}
    rows = dict(zip(sizes, visibility_matrix(visibility, sizes).split(list(sizes.values())), strict=True))
    k, v = (torch.cat(parts, dim=2) for parts in zip(*kv.values(), strict=True))
    mask = torch.cat([rows[name] for name in q])
    attended = F.scaled_dot_product_attention(torch.cat(list(q.values()), dim=2), k, v, attn_mask=mask)
    return cut(attended, {name: part.shape[2] for name, part in q.items()})


def predictions(policy: FastWAM, states: States, noised: Mapping[str, Noised]) -> dict[str, Tensor]:
    """What both networks predict, by group; the clip's frames are cut at the groups."""
    predicted = policy.dit.head(states.video, states.stream)
    groups = tuple(group for group in policy.variant.groups if group != "action")
    parts = predicted.split([noised[group].x.shape[2] for group in groups], dim=2)
    return dict(zip(groups, parts, strict=True)) | {"action": policy.action.head(states.action)}


@torch.no_grad()
def sample_by_looking(policy: FastWAM, present: Tensor, context: Tensor, noise: Noise, steps: int) -> Sample:
    """`sample` where every step runs the whole training sequence and nothing is remembered."""
    x = {
        "present": present,
        "future": noise.video,
        "given": torch.zeros_like(noise.video),
        "action": noise.action,
    }
    flows = {"action": policy.times("action"), "future": policy.times("video")}
    grids = {group: flow.grid(steps) for group, flow in flows.items()}
    for moving in ROUNDS[policy.acting.imagines]:
        for step in range(steps):
            times = dict.fromkeys(x, torch.zeros(len(present)))
            times |= {group: grids[group].times[step].expand(len(present)) for group in moving}
            noised = {group: Noised(x[group], times[group], torch.zeros_like(x[group])) for group in x}
            found = predictions(policy, policy.look(noised, context), noised)
            for group in moving:
                velocity = flows[group].velocity(found[group], x[group], times[group])
                x[group] = x[group] + grids[group].strides[step] * velocity
        x["given"] = x["future"]
    return Sample(x["action"], x["future"])
