"""Acting without computing anything twice: the chunks of policies/fast_wam/sampling.py, sooner (Fast-WAM spec 6.4).

Both networks are fused (wan/fused.py). Computed once per query, since it depends on the observation alone: keys and
values of the context in every block, and the present frame. Those of an instruction are kept from query to query
(wan/kept_text.py). The first step of the actions follows the present frame block by block (nn/wavefront.py).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from itertools import islice

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from wamkit.flow import Steering, unsteered
from wamkit.nn.wavefront import Together, Walk, in_span, in_turns, walked
from wamkit.policies.fast_wam.sampling import Networks, Noise, Sample
from wamkit.taking import SHARED, Take
from wamkit.wan.dit import PATCH, fold
from wamkit.wan.fused import FusedContext, FusedNetwork, Layout, QueryState, Seen, lay_out

CLEAN = -1  # the last of the sampler's times is 0

NEEDS: Mapping[str, tuple[str, ...]] = {
    "fused_blocks": (),
    "kept_text": ("fused_blocks",),
    "two_streams": ("fused_blocks",),
}
"""The passes in their order, and what each builds on."""

SeenBy = Mapping[str, tuple[Seen, ...]]
"""The context as either network sees it, by network ("video", "action") and block."""


class FusedSampler:
    """`sample` of policies/fast_wam/sampling.py, for weights that do not change any more.

    Weights that are multiplied together are copied side by side, block by block: a third of all; the others are used as
    they are. Nothing here refers to the originals of what was copied.
    To be made again when weights change, or move to another device or dtype.
    together: how the two networks take turns where actions look at frames that are just being computed.
    """

    @torch.no_grad()
    def __init__(
        self, policy: Networks, steps: int, together: Together = in_turns, take: Take = SHARED
    ) -> None:
        self.together = together
        self.sees, self.imagines = policy.acting.sees, policy.acting.imagines
        dit, action = policy.dit, policy.action
        self.size = dit.size
        self.patch_embedding, head = take.part(dit.patch_embedding), take.part(dit.head)
        self.action_encoder, self.action_head = take.part(action.action_encoder), take.part(action.head)
        self.dtype, self.video_head = self.action_head.weight.dtype, head.head
        self.rotaries = take.part(dit.rotary), take.part(action.rotary)
        video, chunk = (policy.times(network).grid(steps) for network in ("video", "action"))
        self.video_strides, self.action_strides = video.strides.tolist(), chunk.strides.tolist()
        self.skip, device = take.part(dit.skip), self.action_head.weight.device
        self.flow = {network: policy.times(network) for network in ("video", "action")}
        self.video_times, self.action_times = (
            each.times.to(device)[:, None].unbind() for each in (video, chunk)
        )
        self.video = FusedNetwork(dit, video.times, take)
        self.action = FusedNetwork(action, chunk.times, take)
        rows = head.modulation + self.video.time[:, None]  # r 2 d
        rows[:, 1] += 1  # scale
        self.head_rows = [row.unbind() for row in rows.to(self.dtype).unbind()]
        self._layouts: dict[tuple[int, int, int, int], Layout] = {}  # by shape of a query; one camera has one

    @property
    def contexts(self) -> Mapping[str, FusedContext]:
        """How either network sees text."""
        return {"video": self.video.context, "action": self.action.context}

    def sample(
        self,
        present: Float[Tensor, "b c 1 h w"],
        context: Float[Tensor, "b l text"],
        noise: Noise,
        steer: Steering = unsteered,
    ) -> Sample:
        """A chunk for every row, sampled as the policy's variant says. steer: of the chunk."""
        return self.answer(present, self.look(context), noise, steer)

    @torch.inference_mode()
    def look(self, context: Float[Tensor, "b l text"]) -> SeenBy:
        """All rows, by either network."""
        return {network: see(context) for network, see in self.contexts.items()}

    @torch.inference_mode()
    def answer(
        self, present: Float[Tensor, "b c 1 h w"], seen: SeenBy, noise: Noise, steer: Steering = unsteered
    ) -> Sample:
        """`sample` with what the networks see of the context."""
        return SAMPLERS[self.imagines](self, present, noise, self.begin(present, seen, noise), steer)

    @torch.inference_mode()
    def begin(self, present: Tensor, seen: SeenBy, noise: Noise) -> QueryState:
        """Everything of a query that is not tokens; the buffers are still empty."""
        layout, size = self.layout(noise.video.shape[2], *grid(present), noise.action.shape[1]), self.size
        rows = max(slot.end for slot in layout.values())
        each = (size.layers, len(present), 3, rows, size.heads, size.head_dim)
        buffers = torch.empty(each, dtype=self.dtype, device=present.device).unbind()
        places = {group: tuple(slot.of(buffer) for buffer in buffers) for group, slot in layout.items()}
        return QueryState(places, dict.fromkeys(layout, seen["video"]) | {"action": seen["action"]})

    def layout(self, frames: int, rows: int, columns: int, steps: int) -> Layout:
        """Of a query with so many imagined frames, of a grid, and actions."""
        shape = frames, rows, columns, steps
        if shape not in self._layouts:
            self._layouts[shape] = lay_out(self.sees, *shape, *self.rotaries)
        return self._layouts[shape]

    # Walks: they stop in every block where keys and values of the group lie in their slot.

    @in_span("blocks")
    def encode(self, group: str, tokens: Float[Tensor, "b s d"], state: QueryState) -> Walk[None]:
        """Clean frames, whose tokens are written over. The last block's output is not computed: nothing looks at it."""
        blocks = self.video.blockwise(tokens, group, CLEAN, state)
        yield from islice(blocks, self.size.layers)

    @in_span("blocks")
    def imagine(
        self, x: Float[Tensor, "b c f h w"], step: int, state: QueryState, now: Float[Tensor, "b s d"]
    ) -> Walk[Float[Tensor, "b c f h w"]]:
        """One step of the future. Its slot keeps the keys and values from before the step. now: see `later`."""
        tokens = self.later(x, now)
        yield from self.video.blockwise(tokens, "future", step, state)
        shift, scale = self.head_rows[step]
        patches = self.video_head(F.layer_norm(tokens, shift.shape, scale, shift, self.size.eps))
        predicted = fold(patches, (x.shape[2], *grid(x)))
        velocity = self.flow["video"].velocity(predicted, x, self.video_times[step])
        return torch.add(x, velocity, alpha=self.video_strides[step])

    @in_span("expert")
    def act(
        self, x: Float[Tensor, "b k a"], step: int, state: QueryState, steer: Steering = unsteered
    ) -> Walk[Float[Tensor, "b k a"]]:
        """One step of the chunk."""
        tokens = self.action_encoder(x.to(self.dtype))
        yield from self.action.blockwise(tokens, "action", step, state)
        velocity = self.velocity(tokens, x, self.action_times[step])
        return torch.add(x, steer(x, velocity, step), alpha=self.action_strides[step])

    def velocity(
        self, tokens: Float[Tensor, "b k d"], x: Float[Tensor, "b k a"], t: Float[Tensor, " 1"]
    ) -> Float[Tensor, "b k a"]:
        """Of the chunk x at time t, by the action model's last tokens."""
        return self.flow["action"].velocity(self.action_head(tokens).float(), x, t)

    def chunk(
        self, seen: Walk[None], x: Float[Tensor, "b k a"], state: QueryState, steer: Steering
    ) -> Float[Tensor, "b k a"]:
        """All steps of the chunk. The first looks at `seen`, which is still to be walked."""
        _, x = self.together(seen, self.act(x, 0, state, steer), self.size.layers)
        for step in range(1, len(self.action_strides)):
            x = walked(self.act(x, step, state, steer))
        return x

    def tokens(self, latents: Float[Tensor, "b c f h w"]) -> Float[Tensor, "b s d"]:
        """As the first block takes those of the present."""
        return self.patch_embedding(latents.to(self.dtype)).flatten(2).transpose(1, 2).contiguous()

    def later(
        self, latents: Float[Tensor, "b c f h w"], now: Float[Tensor, "b s d"]
    ) -> Float[Tensor, "b f*s d"]:
        """As the first block takes those of later frames. now: tokens of the present."""
        tokens: Tensor = self.skip(self.tokens(latents), now)
        return tokens


def _nothing(
    sampler: FusedSampler, present: Tensor, noise: Noise, state: QueryState, steer: Steering
) -> Sample:
    seen = sampler.encode("present", sampler.tokens(present), state)
    return Sample(sampler.chunk(seen, noise.action, state, steer), noise.video)


def _first(
    sampler: FusedSampler, present: Tensor, noise: Noise, state: QueryState, steer: Steering
) -> Sample:
    now, future = sampler.tokens(present), noise.video
    walked(sampler.encode("present", now.clone(), state))
    for step in range(len(sampler.video_strides)):
        future = walked(sampler.imagine(future, step, state, now))
    given = sampler.encode("given", sampler.later(future, now), state)
    return Sample(sampler.chunk(given, noise.action, state, steer), future)


def _alongside(
    sampler: FusedSampler, present: Tensor, noise: Noise, state: QueryState, steer: Steering
) -> Sample:
    now, x, future = sampler.tokens(present), noise.action, noise.video
    walked(sampler.encode("present", now.clone(), state))
    for step in range(len(sampler.video_strides)):
        # The actions of a step look at the future as it was before the step, which is what its slot still holds.
        walks = sampler.imagine(future, step, state, now), sampler.act(x, step, state, steer)
        future, x = sampler.together(*walks, sampler.size.layers)
    return Sample(x, future)


# by Variant.imagines
SAMPLERS: Mapping[str, Callable[[FusedSampler, Tensor, Noise, QueryState, Steering], Sample]] = {
    "nothing": _nothing,
    "alongside": _alongside,
    "first": _first,
}


def grid(latents: Float[Tensor, "b c f h w"]) -> tuple[int, int]:
    """Rows and columns of tokens of a frame."""
    return latents.shape[3] // PATCH, latents.shape[4] // PATCH
