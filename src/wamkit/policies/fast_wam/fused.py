"""Acting without computing anything twice: the chunks of policies/fast_wam/sampling.py, sooner (Fast-WAM spec 6.4).

Known from the weights alone, so computed once: what every block makes of the sampler's times. All samples of a batch
share them, so a modulation row is one vector, and norm and modulation are one layer norm whose weights are that row.
Known from the observation, so computed once per query: embedded context, its keys and values in every block, and the
present frame. What is left of a step is 24 operations a block: one product makes queries, keys and values, which are
normed, rotated and laid down together behind those of the groups they look at. So whatever a group sees is one stretch
of one buffer: nothing is concatenated or masked.

It knows nothing about units, observations or where noise comes from.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass
from functools import lru_cache
from itertools import islice
from typing import cast

import torch
import torch.nn.functional as F
from jaxtyping import Complex, Float
from torch import Tensor, nn

from wamkit.nn.attention import KV, Visibility
from wamkit.nn.rope import grid_table, line_table
from wamkit.policies.fast_wam.action_dit import ActionDiT
from wamkit.policies.fast_wam.sampling import Networks, Noise, Sample
from wamkit.wan.block import Block, Rows, embed_times
from wamkit.wan.dit import PATCH, WanDiT, fold

CLEAN = -1  # the last of the sampler's times is 0


@dataclass(frozen=True)
class Place:
    """Where a group lies in the buffers (it sees all up to its own end), and how its q, k and v are rotated."""

    start: int
    end: int
    rotary: Complex[Tensor, "s 3 1 half"]


@dataclass(frozen=True)
class Query:
    """What a query keeps. buffers: per block q, k, v [b 3 rows n e] of all groups, each in its place.

    context: per group and block, keys and values of the text as that group's network sees it.
    """

    places: Mapping[str, Place]
    buffers: tuple[Tensor, ...]
    context: Mapping[str, tuple[KV, ...]]


class FusedBlock:
    """A block and what acting makes of its weights. modulation: what the network adds to its rows, by time.

    rows: by time (shift, 1 + scale, gate) of self-attention and of the MLP, [d] each.
    """

    def __init__(self, block: Block, modulation: Float[Tensor, "r 6 d"]) -> None:
        attention = block.self_attn
        self.block, self.eps = block, block.norm1.eps
        self.weight, self.bias = stack((attention.q, attention.k, attention.v))
        q, k = (norm.weight.to(modulation.dtype) for norm in (attention.norm_q, attention.norm_k))
        self.norm = torch.stack([len(q) ** 0.5 * q, len(k) ** 0.5 * k, torch.ones_like(q)])
        self.floor = modulation.new_tensor((len(q) * attention.norm_q.eps) ** 0.5)
        rows = block.modulation + modulation
        rows[:, [1, 4]] += 1  # scales
        self.rows: tuple[Rows, ...] = tuple(row.unbind() for row in rows.to(self.weight.dtype).unbind())

    def project(self, x: Float[Tensor, "b s d"], time: int, place: Place, buffer: Tensor) -> None:
        """Queries, keys and values of self-attention, put in their place."""
        shift, scale, *_ = self.rows[time]
        u = F.layer_norm(x, shift.shape, scale, shift, self.eps)
        qkv = F.linear(u, self.weight, self.bias).unflatten(-1, (3, -1))
        normalize_(qkv[..., :2, :], self.floor)
        pairs = (qkv * self.norm).unflatten(-1, (self.block.self_attn.heads, -1, 2))
        torch.view_as_complex(pairs).mul_(place.rotary)
        buffer[:, :, place.start : place.end].copy_(pairs.flatten(-2).transpose(1, 2))

    def finish(
        self, x: Float[Tensor, "b s d"], time: int, place: Place, buffer: Tensor, context: KV
    ) -> Float[Tensor, "b s d"]:
        """Self-attention over all up to the group's end, and everything after it."""
        _, _, gate1, shift2, scale2, gate2 = self.rows[time]
        block, (q, k, v) = self.block, buffer[:, :, : place.end].transpose(2, 3).unbind(1)
        attended = F.scaled_dot_product_attention(q[:, :, place.start :], k, v)
        x = torch.addcmul(x, gate1, block.self_attn.join(attended))

        q = normalize_(block.cross_attn.q(block.norm3(x)), self.floor)
        q = q.unflatten(-1, (block.cross_attn.heads, -1)).transpose(1, 2)
        x.add_(block.cross_attn.join(F.scaled_dot_product_attention(q, context.k, context.v)))

        u = F.layer_norm(x, shift2.shape, scale2, shift2, self.eps)
        return torch.addcmul(x, gate2, block.ffn(u))


class FusedNetwork:
    """The blocks of one network at flow times `times`."""

    def __init__(self, network: WanDiT | ActionDiT, times: Float[Tensor, " r"]) -> None:
        self.text_embedding = network.text_embedding
        dtype = torch.promote_types(next(network.parameters()).dtype, torch.float32)
        embedding, projection = (
            deepcopy(mlp).to(dtype) for mlp in (network.time_embedding, network.time_projection)
        )
        self.time = embed_times(embedding, times[None], network.size.time_dim, dtype)[0]  # r d
        modulation = projection(self.time).unflatten(-1, (6, -1))
        blocks = list(cast(Iterable[Block], network.blocks))
        self.blocks = [FusedBlock(block, modulation) for block in blocks]
        self.cross = [block.cross_attn for block in blocks]
        self.weight, self.bias = stack([layer for each in self.cross for layer in (each.k, each.v)])
        # queries stay without their norm's weight: the keys carry it for them
        norms = [each.norm_q.weight.to(dtype) * each.norm_k.weight.to(dtype) for each in self.cross]
        self.norm = norms[0].numel() * torch.stack(norms)

    def context(self, context: Float[Tensor, "b l text"]) -> tuple[KV, ...]:
        """Keys and values of cross-attention in every block, all by one product."""
        embedded = self.text_embedding(context.to(self.weight.dtype))
        kv = F.linear(embedded, self.weight, self.bias).unflatten(-1, (len(self.blocks), 2, -1))
        normalize_(kv[..., 0, :], self.blocks[0].floor).mul_(self.norm)
        heads = kv.unflatten(-1, (self.cross[0].heads, -1)).permute(2, 3, 0, 4, 1, 5)  # block kv b n l e
        return tuple(KV(*each.unbind()) for each in heads.contiguous().unbind())

    def run(
        self, x: Float[Tensor, "b s d"], group: str, time: int, query: Query, stop: int
    ) -> Float[Tensor, "b s d"]:
        """Blocks 0..stop-1 on the tokens of a group at the flow time of that number."""
        layers = zip(self.blocks, query.buffers, query.context[group], strict=True)
        for block, buffer, context in islice(layers, stop):
            block.project(x, time, query.places[group], buffer)
            x = block.finish(x, time, query.places[group], buffer, context)
        return x

    def prefill(self, x: Float[Tensor, "b s d"], group: str, time: int, query: Query) -> None:
        """Put keys and values of a group in their place. The last block's output is not computed."""
        *_, last = self.blocks
        x = self.run(x, group, time, query, len(self.blocks) - 1)
        last.project(x, time, query.places[group], query.buffers[-1])


class FusedSampler:
    """`sample` of policies/fast_wam/sampling.py for a policy whose weights do not change any more.

    It has to be made again when they do, or when the policy moves to another device or dtype. Weights that are
    multiplied together are laid side by side, and the policy's own parameters then point there: nothing is held twice.
    """

    @torch.no_grad()
    def __init__(self, policy: Networks, steps: int) -> None:
        self.acting, self.dit, self.actions = policy.acting, policy.dit, policy.action
        self.dtype = policy.action.head.weight.dtype
        video, action = (policy.grid(network, steps) for network in ("video", "action"))
        self.video_strides, self.action_strides = video.strides.tolist(), action.strides.tolist()
        device = policy.action.head.weight.device
        self.video = FusedNetwork(policy.dit, video.times.to(device))
        self.action = FusedNetwork(policy.action, action.times.to(device))
        head = policy.dit.head.modulation + self.video.time[:, None]  # r 2 d
        head[:, 1] += 1
        self.head_rows = [row.unbind() for row in head.to(self.dtype).unbind()]

    @torch.inference_mode()
    def sample(
        self, present: Float[Tensor, "b c 1 h w"], context: Float[Tensor, "b l text"], noise: Noise
    ) -> Sample:
        """A chunk for every row, in the way the policy acts."""
        query = self.query(present, context, noise)
        self.encode("present", present, query)
        return SAMPLERS[self.acting.imagines](self, noise, query)

    @torch.inference_mode()
    def query(self, present: Tensor, context: Tensor, noise: Noise) -> Query:
        """Everything of a query that is not tokens; the buffers are still empty."""
        size, frames, steps = self.dit.size, noise.video.shape[2], noise.action.shape[1]
        where = places(self.acting.sees, frames, grid(present), steps, size.head_dim, present.device)
        rows = max(place.end for place in where.values())
        shape = (size.layers, len(present), 3, rows, size.heads, size.head_dim)
        buffers = torch.empty(shape, dtype=self.dtype, device=present.device).unbind()
        seen = dict.fromkeys(where, self.video.context(context)) | {"action": self.action.context(context)}
        return Query(where, buffers, seen)

    def encode(self, group: str, latents: Float[Tensor, "b c f h w"], query: Query) -> None:
        """Put keys and values of clean frames in their place."""
        self.video.prefill(self._tokens(latents), group, CLEAN, query)

    def imagine(self, x: Float[Tensor, "b c f h w"], step: int, query: Query) -> Float[Tensor, "b c f h w"]:
        """One step of the future. Its keys and values before the step stay in their place."""
        tokens = self.video.run(self._tokens(x), "future", step, query, self.dit.size.layers)
        shift, scale = self.head_rows[step]
        patches = self.dit.head.head(F.layer_norm(tokens, shift.shape, scale, shift, self.dit.size.eps))
        velocity = fold(patches, (x.shape[2], *grid(x)))
        return torch.add(x, velocity.float(), alpha=self.video_strides[step])

    def act(self, x: Float[Tensor, "b k a"], step: int, query: Query) -> Float[Tensor, "b k a"]:
        """One step of the chunk."""
        tokens = self.actions.action_encoder(x.to(self.dtype))
        tokens = self.action.run(tokens, "action", step, query, self.dit.size.layers)
        return torch.add(x, self.actions.head(tokens).float(), alpha=self.action_strides[step])

    def _tokens(self, latents: Tensor) -> Tensor:
        return self.dit.patch_embedding(latents.to(self.dtype)).flatten(2).transpose(1, 2).contiguous()

    def chunk(self, x: Float[Tensor, "b k a"], query: Query) -> Float[Tensor, "b k a"]:
        """All steps of the chunk."""
        for step in range(len(self.action_strides)):
            x = self.act(x, step, query)
        return x


def _nothing(sampler: FusedSampler, noise: Noise, query: Query) -> Sample:
    return Sample(sampler.chunk(noise.action, query), noise.video)


def _first(sampler: FusedSampler, noise: Noise, query: Query) -> Sample:
    future = noise.video
    for step in range(len(sampler.video_strides)):
        future = sampler.imagine(future, step, query)
    sampler.encode("given", future, query)
    return Sample(sampler.chunk(noise.action, query), future)


def _alongside(sampler: FusedSampler, noise: Noise, query: Query) -> Sample:
    x, future = noise.action, noise.video
    for step in range(len(sampler.video_strides)):
        future = sampler.imagine(future, step, query)  # leaves keys and values of the future before this step
        x = sampler.act(x, step, query)
    return Sample(x, future)


# by Variant.imagines
SAMPLERS: Mapping[str, Callable[[FusedSampler, Noise, Query], Sample]] = {
    "nothing": _nothing,
    "alongside": _alongside,
    "first": _first,
}


@lru_cache(maxsize=8)
def places(
    sees: Visibility, frames: int, patches: tuple[int, int], steps: int, head_dim: int, device: torch.device
) -> Mapping[str, Place]:
    """Every group directly behind those it looks at. frames: how many latent frames are imagined, 0 for none.

    A clean copy of the imagined future takes the place of the noisy one, which is not needed any more by then.
    """
    tables = {
        "present": grid_table([0], *patches, head_dim, device),
        "future": (imagined := grid_table(range(1, 1 + frames), *patches, head_dim, device)),
        "given": imagined,
        "action": line_table(steps, head_dim, device),
    }
    found: dict[str, Place] = {}
    for group, (*seen, itself) in sees:
        start = 0
        for other in seen:
            assert found[other].start == start, f"{group} sees {seen}, which do not lie side by side"
            start = found[other].end
        assert itself == group, f"{group} sees {itself} last"
        rotary = torch.view_as_complex(tables[group])
        rotaries = torch.stack([rotary, rotary, torch.ones_like(rotary)], dim=1)[:, :, None]  # s 3 1 e/2
        found[group] = Place(start, start + len(rotary), rotaries)
    return found


def grid(latents: Float[Tensor, "b c f h w"]) -> tuple[int, int]:
    """Rows and columns of tokens of a frame."""
    return latents.shape[3] // PATCH, latents.shape[4] // PATCH


def stack(layers: Sequence[nn.Linear]) -> tuple[Float[Tensor, "out d"], Float[Tensor, " out"]]:
    """Weights and biases one below the other. The layers' own become views of them: nothing is held twice."""
    return _stack([layer.weight for layer in layers]), _stack([layer.bias for layer in layers])


def _stack(parameters: Sequence[Tensor]) -> Tensor:
    whole = torch.cat([parameter.data for parameter in parameters])
    for parameter, part in zip(parameters, whole.split([len(p) for p in parameters]), strict=True):
        parameter.data = part
    return whole


def normalize_(x: Float[Tensor, "..."], floor: Float[Tensor, ""]) -> Float[Tensor, "..."]:
    """x / hypot(|x|, floor) along the last axis, in place; the length is taken in floor's dtype.

    A root-mean-square norm is sqrt(width) times this with floor sqrt(width eps), times its weight.
    """
    length = torch.linalg.vector_norm(x, dim=-1, keepdim=True, dtype=floor.dtype)
    return x.div_(torch.hypot(length, floor))
