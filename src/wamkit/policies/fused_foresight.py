"""What a video model expects of an observation, sooner: the mean of what it can imagine, one Euler step from noise
alone, by fused blocks (wan/denoiser.py) and of an instruction with what is kept of it (wan/kept_text.py)."""

from __future__ import annotations

from collections.abc import Collection
from typing import Protocol

import torch
from jaxtyping import Float
from torch import Tensor

from wamkit.data.normalize import Normalizer
from wamkit.flow import FlowTimes, integrate
from wamkit.foresight import Foreseer, Foresight
from wamkit.policies.fused_context import EveryRow, KeptRows
from wamkit.policies.wan_encoder import Proprio, WanEncoder, foresight
from wamkit.types import Query
from wamkit.wan.denoiser import FusedDenoiser
from wamkit.wan.dit import WanDiT


class Imagining(Protocol):
    """What policies with a video model share."""

    dit: WanDiT
    proprio_encoder: Proprio
    normalizer: Normalizer

    def pool(self, latents: Float[Tensor, "b c f h w"]) -> Float[Tensor, "b c f hp wp"]:
        """Latents at the resolution of the video loss."""


def fused_foreseer(policy: Imagining, times: FlowTimes, passes: Collection[str]) -> Foreseer:
    """The policy's `foresee`. times: of sampling. passes: "kept_text" or not."""
    grid = times.grid(1)
    denoise = FusedDenoiser(policy.dit, grid.times[:1])
    rows = KeptRows if "kept_text" in passes else EveryRow
    text = rows(denoise.context, policy.proprio_encoder, policy.normalizer)

    @torch.inference_mode()
    def foresee(query: Query, encoder: WanEncoder) -> Foresight:
        present, seen = policy.pool(query.inputs["present"]), text.seen(text.prepare(query))

        def velocity(future: Tensor, t: Tensor) -> Tensor:
            return times.velocity(denoise(present, future, 0, seen), future, t)

        def imagine(noise: Tensor) -> Tensor:
            return torch.cat([present, integrate(noise, velocity, grid)], dim=2)

        return foresight(present, query, encoder, imagine)

    return foresee
