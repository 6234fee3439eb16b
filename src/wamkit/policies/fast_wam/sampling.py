"""Acting: the chunk is sampled, with or without an imagined future (Fast-WAM spec 3.3).

There is one sampler per kind of variant; all of them encode the present once. This is the plain form, with the
networks as they are trained. The fast form, policies/fast_wam/fused.py, must give the same chunks; it leaves out what
this one recomputes.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal, Protocol

import torch
from jaxtyping import Float
from torch import Tensor

from wamkit.flow import FlowTimes, Steering, integrate, noise_rows, unsteered
from wamkit.policies.fast_wam.action_dit import ActionDiT
from wamkit.policies.fast_wam.mixture import KVCache, empty_cache, prefill, run_together
from wamkit.policies.fast_wam.variants import Variant
from wamkit.spans import Span
from wamkit.wan.block import Stream
from wamkit.wan.dit import PRESENT, Frames, WanDiT

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

    def times(self, network: Literal["video", "action"]) -> FlowTimes:
        """Flow times of a network."""


@dataclass(frozen=True)
class Known:
    """What every step of a query looks at.

    context [b l text]. present [b s d]: tokens of the present frame, which later ones may begin with. cache: keys and
    values of clean frames.
    """

    context: Tensor
    present: Tensor
    cache: KVCache


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
        known = look(policy, present, context)
    return SAMPLERS[policy.acting.imagines](policy, known, noise, steps, steer)


def imagine(
    policy: Networks,
    present: Float[Tensor, "b c 1 h w"],
    context: Float[Tensor, "b l text"],
    noise: Float[Tensor, "b c f h w"],
    steps: int,
) -> Float[Tensor, "b c f h w"]:
    """Only the future, without a chunk."""
    return _future(policy, look(policy, present, context), noise, steps)


def look(policy: Networks, present: Float[Tensor, "b c 1 h w"], context: Float[Tensor, "b l text"]) -> Known:
    """What the present frame gives."""
    dit, now = policy.dit, torch.zeros(1, 1, device=present.device)
    stream = dit.embed(present, now, context, (PRESENT,))
    return Known(context, dit.tokens(present), _prefilled(policy, stream, empty_cache(dit.blocks)))


def _given(policy: Networks, future: Float[Tensor, "b c f h w"], known: Known) -> Known:
    """With a clean copy of the future."""
    stream = _embed(policy, "given", future, torch.zeros(1, device=future.device), known)
    return replace(known, cache=_prefilled(policy, stream, known.cache))


def _prefilled(policy: Networks, stream: Stream, cache: KVCache) -> KVCache:
    return prefill(policy.dit.blocks, stream, policy.acting.sees, cache)


def _embed(policy: Networks, group: str, latents: Tensor, t: Float[Tensor, " _"], known: Known) -> Stream:
    return policy.dit.embed(
        latents, t[:, None], known.context, (frames(group, latents),), present=known.present
    )


def frames(group: str, latents: Float[Tensor, "b c f h w"]) -> Frames:
    """The positions in time of a group of latents; `given` has those of the future, of which it is a copy."""
    return Frames(group, 0 if group == "present" else 1, latents.shape[2])


def _nothing(policy: Networks, known: Known, noise: Noise, steps: int, steer: Steering) -> Sample:
    with Span("expert"):
        return Sample(_chunk(policy, known, noise.action, steps, steer), noise.video)


def _first(policy: Networks, known: Known, noise: Noise, steps: int, steer: Steering) -> Sample:
    future = _future(policy, known, noise.video, steps)
    known = _given(policy, future, known)
    return Sample(_chunk(policy, known, noise.action, steps, steer), future)


def _alongside(policy: Networks, known: Known, noise: Noise, steps: int, steer: Steering) -> Sample:
    x, future = noise.action, noise.video
    both = policy.times("video"), policy.times("action")
    grids = [times.grid(steps).to(x.device) for times in both]
    for step in range(steps):
        (t, stride), (t_action, stride_action) = ((grid.times[[step]], grid.strides[step]) for grid in grids)
        video = _embed(policy, "future", future, t, known)
        action = policy.action.embed(x, t_action, known.context)
        parts = [(policy.dit.blocks, video), (policy.action.blocks, action)]
        # one pass for both: the actions look at the future at its current noise level
        video_tokens, action_tokens = run_together(parts, policy.acting.sees, known.cache)
        velocity = both[0].velocity(policy.dit.head(video_tokens, video), future, t)
        x_velocity = both[1].velocity(policy.action.head(action_tokens), x, t_action)
        future = future + stride * velocity
        x = x + stride_action * steer(x, x_velocity, step)
    return Sample(x, future)


def _chunk(policy: Networks, known: Known, noise: Tensor, steps: int, steer: Steering) -> Tensor:
    times = policy.times("action")

    def velocity(x: Tensor, t: Tensor) -> Tensor:
        stream = policy.action.embed(x, t[:1], known.context)  # all rows are at the same time
        (tokens,) = run_together([(policy.action.blocks, stream)], policy.acting.sees, known.cache)
        return times.velocity(policy.action.head(tokens), x, t)

    return integrate(noise, velocity, times.grid(steps), steer)


def _future(policy: Networks, known: Known, noise: Tensor, steps: int) -> Tensor:
    times = policy.times("video")

    def velocity(x: Tensor, t: Tensor) -> Tensor:
        stream = _embed(policy, "future", x, t[:1], known)
        (tokens,) = run_together([(policy.dit.blocks, stream)], policy.acting.sees, known.cache)
        return times.velocity(policy.dit.head(tokens, stream), x, t)

    return integrate(noise, velocity, times.grid(steps))


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
SAMPLERS: Mapping[str, Callable[[Networks, Known, Noise, int, Steering], Sample]] = {
    "nothing": _nothing,
    "alongside": _alongside,
    "first": _first,
}
