"""Acting: the chunk is sampled, with or without an imagined future (Fast-WAM spec 3.3).

There is one sampler per kind of variant; all of them encode the present once. This is the plain form, with the
networks as they are trained. The fast form, policies/fast_wam/fused.py, must give the same chunks; it leaves out what
this one recomputes.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

import torch
from jaxtyping import Float
from torch import Tensor

from wamkit.flow import Grid, Steering, integrate, noise_rows, unsteered
from wamkit.policies.fast_wam.action_dit import ActionDiT
from wamkit.policies.fast_wam.mixture import KVCache, empty_cache, prefill, run_together
from wamkit.policies.fast_wam.variants import Variant
from wamkit.spans import Span
from wamkit.wan.block import Stream
from wamkit.wan.dit import Frames, WanDiT

NoiseProtocol = Literal["per_query", "published"]


@dataclass(frozen=True)
class Noise:
    """What sampling starts from: action [b k a] and future latents video [b c f h w]; f = 0 where none are imagined."""

    action: Tensor
    video: Tensor


@dataclass(frozen=True)
class Sample:
    """action: the chunk in unit range [b k a]. future: what was imagined with it [b c f h w]."""

    action: Tensor
    future: Tensor


class Networks(Protocol):
    """The part of a policy that sampling needs."""

    dit: WanDiT
    action: ActionDiT

    @property
    def acting(self) -> Variant:
        """What the actions see and what is imagined."""

    def grid(self, network: Literal["video", "action"], steps: int) -> Grid:
        """The sampler's times of a network."""


def sample(
    policy: Networks,
    present: Float[Tensor, "b c 1 h w"],
    context: Float[Tensor, "b l text"],
    noise: Noise,
    steps: int,
    steer: Steering = unsteered,
) -> Sample:
    """A chunk for every row, sampled as the policy's variant says. steer: of the chunk."""
    with Span("blocks"):
        cache = encode_frames(policy, "present", present, context, empty_cache(policy.dit.blocks))
    return SAMPLERS[policy.acting.imagines](policy, cache, context, noise, steps, steer)


def imagine(
    policy: Networks,
    present: Float[Tensor, "b c 1 h w"],
    context: Float[Tensor, "b l text"],
    noise: Float[Tensor, "b c f h w"],
    steps: int,
) -> Float[Tensor, "b c f h w"]:
    """Only the future, without a chunk."""
    cache = encode_frames(policy, "present", present, context, empty_cache(policy.dit.blocks))
    return _future(policy, cache, context, noise, steps)


def encode_frames(
    policy: Networks, group: str, latents: Float[Tensor, "b c f h w"], context: Tensor, cache: KVCache
) -> KVCache:
    """The cache with keys and values of clean frames (flow time 0) added."""
    stream = _embed(policy, group, latents, torch.zeros(1, device=latents.device), context)
    return prefill(policy.dit.blocks, stream, policy.acting.sees, cache)


def _embed(policy: Networks, group: str, latents: Tensor, t: Float[Tensor, " _"], context: Tensor) -> Stream:
    return policy.dit.embed(latents, t[:, None], context, (frames(group, latents),))


def frames(group: str, latents: Float[Tensor, "b c f h w"]) -> Frames:
    """The positions in time of a group of latents; `given` has those of the future, of which it is a copy."""
    return Frames(group, 0 if group == "present" else 1, latents.shape[2])


def _nothing(
    policy: Networks, cache: KVCache, context: Tensor, noise: Noise, steps: int, steer: Steering
) -> Sample:
    with Span("expert"):
        return Sample(_chunk(policy, cache, context, noise.action, steps, steer), noise.video)


def _first(
    policy: Networks, cache: KVCache, context: Tensor, noise: Noise, steps: int, steer: Steering
) -> Sample:
    future = _future(policy, cache, context, noise.video, steps)
    cache = encode_frames(policy, "given", future, context, cache)
    return Sample(_chunk(policy, cache, context, noise.action, steps, steer), future)


def _alongside(
    policy: Networks, cache: KVCache, context: Tensor, noise: Noise, steps: int, steer: Steering
) -> Sample:
    x, future = noise.action, noise.video
    grids = [policy.grid(network, steps).to(x.device) for network in ("video", "action")]
    for step in range(steps):
        (t, stride), (t_action, stride_action) = ((grid.times[[step]], grid.strides[step]) for grid in grids)
        video = _embed(policy, "future", future, t, context)
        action = policy.action.embed(x, t_action, context)
        parts = [(policy.dit.blocks, video), (policy.action.blocks, action)]
        # one pass for both: the actions look at the future at its current noise level
        video_tokens, action_tokens = run_together(parts, policy.acting.sees, cache)
        future = future + stride * policy.dit.head(video_tokens, video).float()
        x = x + stride_action * steer(x, policy.action.head(action_tokens).float(), step)
    return Sample(x, future)


def _chunk(
    policy: Networks, cache: KVCache, context: Tensor, noise: Tensor, steps: int, steer: Steering
) -> Tensor:
    def velocity(x: Tensor, t: Tensor) -> Tensor:
        stream = policy.action.embed(x, t[:1], context)  # all rows are at the same time
        (tokens,) = run_together([(policy.action.blocks, stream)], policy.acting.sees, cache)
        return policy.action.head(tokens).float()

    return integrate(noise, velocity, policy.grid("action", steps), steer)


def _future(policy: Networks, cache: KVCache, context: Tensor, noise: Tensor, steps: int) -> Tensor:
    def velocity(x: Tensor, t: Tensor) -> Tensor:
        stream = _embed(policy, "future", x, t[:1], context)
        (tokens,) = run_together([(policy.dit.blocks, stream)], policy.acting.sees, cache)
        return policy.dit.head(tokens, stream).float()

    return integrate(noise, velocity, policy.grid("video", steps))


PUBLISHED_SEED = 42


def drawn_per_query(
    action: tuple[int, ...],
    video: tuple[int, ...],
    generators: Sequence[torch.Generator],
    device: torch.device,
) -> Noise:
    """Each row from its own generator: the chunk's [k a], then the future's [c f h w]."""
    return Noise(noise_rows(action, generators, device), noise_rows(video, generators, device))


def drawn_as_published(
    action: tuple[int, ...],
    video: tuple[int, ...],
    generators: Sequence[torch.Generator],
    device: torch.device,
) -> Noise:
    """The same noise for every query and row, as in the published evaluations (Fast-WAM spec 3.3).

    The chunk's is drawn from a generator of seed 42, the clip's, with its present frame, from another of the same seed;
    on the CPU, in float32. The generators of the rows are not used.
    """
    channels, frames, *grid = video
    rows, clip = len(generators), (channels, 1 + frames, *grid)
    chunk, imagined = (
        torch.randn(1, *shape, generator=torch.Generator().manual_seed(PUBLISHED_SEED)).to(device)
        for shape in (action, clip)
    )
    return Noise(
        chunk.expand(rows, -1, -1).contiguous(), imagined[:, :, 1:].expand(rows, -1, -1, -1, -1).contiguous()
    )


Draw = Callable[[tuple[int, ...], tuple[int, ...], Sequence[torch.Generator], torch.device], Noise]
DRAWS: Mapping[NoiseProtocol, Draw] = {"per_query": drawn_per_query, "published": drawn_as_published}


# by Variant.imagines
SAMPLERS: Mapping[str, Callable[[Networks, KVCache, Tensor, Noise, int, Steering], Sample]] = {
    "nothing": _nothing,
    "alongside": _alongside,
    "first": _first,
}
