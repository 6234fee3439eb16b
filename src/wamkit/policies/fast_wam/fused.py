"""Acting without computing anything twice: the chunks of policies/fast_wam/sampling.py, sooner (Fast-WAM spec 6.4).

Both networks are fused (wan/fused.py). Computed once per query, since it depends on the observation alone: embedded
context, its keys and values in every block, and the present frame.

It knows nothing about units, observations or where noise comes from.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from wamkit.policies.fast_wam.sampling import Networks, Noise, Sample
from wamkit.spans import Span
from wamkit.wan.dit import PATCH, fold
from wamkit.wan.fused import FusedNetwork, Layout, QueryState, lay_out

CLEAN = -1  # the last of the sampler's times is 0


class FusedSampler:
    """`sample` of policies/fast_wam/sampling.py, for weights that do not change any more.

    The policy is left as it is: weights that are multiplied together are copied side by side, block by block, and all
    others are shared with it. While both exist, the copies are a third of the weights (Fast-WAM in bfloat16: 12 GB and
    4 GB beside them). Nothing here refers to the originals of what was copied, so they go with the policy.
    To be made again when weights change, or move to another device or dtype.
    """

    @torch.no_grad()
    def __init__(self, policy: Networks, steps: int) -> None:
        self.sees, self.imagines = policy.acting.sees, policy.acting.imagines
        dit, action = policy.dit, policy.action
        self.size, self.dtype = dit.size, action.head.weight.dtype
        self.patch_embedding, self.video_head = dit.patch_embedding, dit.head.head
        self.action_encoder, self.action_head = action.action_encoder, action.head
        self.rotaries = dit.rotary, action.rotary
        video, chunk = (policy.grid(network, steps) for network in ("video", "action"))
        self.video_strides, self.action_strides = video.strides.tolist(), chunk.strides.tolist()
        self.video = FusedNetwork(dit, video.times.to(action.head.weight.device))
        self.action = FusedNetwork(action, chunk.times.to(action.head.weight.device))
        head = dit.head.modulation + self.video.time[:, None]  # r 2 d
        head[:, 1] += 1  # scale
        self.head_rows = [row.unbind() for row in head.to(self.dtype).unbind()]
        self._layouts: dict[tuple[int, ...], Layout] = {}  # by shape of a query; one camera has one

    @torch.inference_mode()
    def sample(
        self, present: Float[Tensor, "b c 1 h w"], context: Float[Tensor, "b l text"], noise: Noise
    ) -> Sample:
        """A chunk for every row, sampled as the policy's variant says."""
        with Span("text"):
            state = self.begin(present, context, noise)
        with Span("blocks"):
            self.encode("present", present, state)
        return SAMPLERS[self.imagines](self, noise, state)

    @torch.inference_mode()
    def begin(self, present: Tensor, context: Tensor, noise: Noise) -> QueryState:
        """Everything of a query that is not tokens; the buffers are still empty."""
        shape = (noise.video.shape[2], *grid(present), noise.action.shape[1])
        if shape not in self._layouts:
            self._layouts[shape] = lay_out(self.sees, *shape, *self.rotaries)
        layout, size = self._layouts[shape], self.size
        rows = max(slot.end for slot in layout.values())
        each = (size.layers, len(present), 3, rows, size.heads, size.head_dim)
        buffers = torch.empty(each, dtype=self.dtype, device=present.device).unbind()
        seen = dict.fromkeys(layout, self.video.context(context)) | {"action": self.action.context(context)}
        return QueryState(layout, buffers, seen)

    def encode(self, group: str, latents: Float[Tensor, "b c f h w"], state: QueryState) -> None:
        """Write keys and values of clean frames to their slot."""
        self.video.prefill(self._tokens(latents), group, CLEAN, state)

    def imagine(
        self, x: Float[Tensor, "b c f h w"], step: int, state: QueryState
    ) -> Float[Tensor, "b c f h w"]:
        """One step of the future. Its slot keeps the keys and values from before the step."""
        tokens = self.video.run(self._tokens(x), "future", step, state)
        shift, scale = self.head_rows[step]
        patches = self.video_head(F.layer_norm(tokens, shift.shape, scale, shift, self.size.eps))
        velocity = fold(patches, (x.shape[2], *grid(x)))
        return torch.add(x, velocity.float(), alpha=self.video_strides[step])

    def act(self, x: Float[Tensor, "b k a"], step: int, state: QueryState) -> Float[Tensor, "b k a"]:
        """One step of the chunk."""
        tokens = self.action.run(self.action_encoder(x.to(self.dtype)), "action", step, state)
        return torch.add(x, self.action_head(tokens).float(), alpha=self.action_strides[step])

    def chunk(self, x: Float[Tensor, "b k a"], state: QueryState) -> Float[Tensor, "b k a"]:
        """All steps of the chunk."""
        for step in range(len(self.action_strides)):
            x = self.act(x, step, state)
        return x

    def _tokens(self, latents: Tensor) -> Tensor:
        return self.patch_embedding(latents.to(self.dtype)).flatten(2).transpose(1, 2).contiguous()


def _nothing(sampler: FusedSampler, noise: Noise, state: QueryState) -> Sample:
    with Span("expert"):
        return Sample(sampler.chunk(noise.action, state), noise.video)


def _first(sampler: FusedSampler, noise: Noise, state: QueryState) -> Sample:
    future = noise.video
    for step in range(len(sampler.video_strides)):
        future = sampler.imagine(future, step, state)
    sampler.encode("given", future, state)
    return Sample(sampler.chunk(noise.action, state), future)


def _alongside(sampler: FusedSampler, noise: Noise, state: QueryState) -> Sample:
    x, future = noise.action, noise.video
    for step in range(len(sampler.video_strides)):
        # The actions of this step look at the future as it was before this step, which is what its slot still holds.
        future = sampler.imagine(future, step, state)
        x = sampler.act(x, step, state)
    return Sample(x, future)


# by Variant.imagines
SAMPLERS: Mapping[str, Callable[[FusedSampler, Noise, QueryState], Sample]] = {
    "nothing": _nothing,
    "alongside": _alongside,
    "first": _first,
}


def grid(latents: Float[Tensor, "b c f h w"]) -> tuple[int, int]:
    """Rows and columns of tokens of a frame."""
    return latents.shape[3] // PATCH, latents.shape[4] // PATCH
