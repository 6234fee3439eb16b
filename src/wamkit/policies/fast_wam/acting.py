"""How Fast-WAM answers a query: noise is drawn, which needs the host, and made a chunk by a sampler, which does not."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import torch
from jaxtyping import Float
from torch import Tensor, nn

from wamkit.data.normalize import Normalizer
from wamkit.policies.fast_wam.sampling import DRAWS, Noise, NoiseProtocol, Sample
from wamkit.policies.wan_encoder import context
from wamkit.types import Query


@dataclass(frozen=True)
class Drawing:
    """Where sampling begins: of the chunk and, for variants that imagine, of the future.

    latents: how many are imagined. action: steps and dimensions of a chunk.
    """

    protocol: NoiseProtocol
    latents: int
    action: tuple[int, int]

    def __call__(self, present: Float[Tensor, "b c 1 h w"], generators: Sequence[torch.Generator]) -> Noise:
        _, c, _, h, w = present.shape
        return DRAWS[self.protocol](self.action, (c, self.latents, h, w), generators, present.device)


@dataclass(frozen=True)
class SampledActor:
    """`FastWAM.act` by a sampler of its own; it refers to no weights but the sampler's and the proprio token's."""

    sampler: Callable[[Tensor, Tensor, Noise], Sample]
    draw: Drawing
    normalizer: Normalizer
    proprio_encoder: nn.Module

    def __call__(self, query: Query) -> Float[Tensor, "b k a"]:
        return self.compute(self.prepare(query))

    def prepare(self, query: Query) -> Query:
        """With the noise of its rows, each from its own generator."""
        noise = self.draw(query.inputs["present"], query.generators)
        return replace(query, inputs=query.inputs | {"noise": {"action": noise.action, "video": noise.video}})

    @torch.no_grad()
    def compute(self, query: Query) -> Float[Tensor, "b k a"]:
        """The answer to a prepared query."""
        inputs, robots = query.inputs, query.embodiment
        seen = context(inputs, robots, self.normalizer, self.proprio_encoder)
        unit = self.sampler(inputs["present"], seen, Noise(**inputs["noise"])).action
        return self.normalizer.to_physical("action", unit, robots)
