"""How Fast-WAM answers a query: noise is drawn, which needs the host, and made a chunk by a sampler, which does not."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Generic, TypeVar

import torch
from jaxtyping import Float
from torch import Tensor

from wamkit.data.normalize import Normalizer
from wamkit.flow import Steering
from wamkit.policies.continuing import Continuing
from wamkit.policies.fast_wam.sampling import DRAWS, Noise, NoiseProtocol, Sample
from wamkit.policies.fused_context import Context, KeptRows
from wamkit.spans import Span
from wamkit.types import Query
from wamkit.wan.fused import Seen

S = TypeVar("S")


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
class SampledActor(Generic[S]):
    """`FastWAM.act` by a sampler of its own (a StagedActor of policies/base.py); it refers to no weights but the
    sampler's and the context's.

    context: what the sampler takes of the instruction and of the robot's state.
    """

    sampler: Callable[[Tensor, S, Noise, Steering], Sample]
    context: Context[S]
    draw: Drawing
    normalizer: Normalizer
    continuing: Continuing

    def __call__(self, query: Query) -> Float[Tensor, "b k a"]:
        return self.compute(self.prepare(query))

    def prepare(self, query: Query) -> Query:
        """With the noise of its rows, each from its own generator, and its context prepared."""
        noise = self.draw(query.inputs["present"], query.generators)
        query = self.context.prepare(query)
        return replace(query, inputs=query.inputs | {"noise": {"action": noise.action, "video": noise.video}})

    @torch.no_grad()
    def compute(self, query: Query) -> Float[Tensor, "b k a"]:
        """The answer to a prepared query."""
        with Span("text"):
            seen = self.context.seen(query)
        noise = Noise(**query.inputs["noise"])
        steer = self.continuing(query, self.draw.action)
        unit = self.sampler(query.inputs["present"], seen, noise, steer).action
        return self.normalizer.to_physical("action", unit, query.embodiment)


@dataclass(frozen=True)
class ByNetwork:
    """What both networks, "video" and "action", see of the text that they keep."""

    networks: Mapping[str, KeptRows]

    @torch.inference_mode()
    def prepare(self, query: Query) -> Query:
        """With the text as either network takes it."""
        text = {network: rows.prepare(query).inputs["context"] for network, rows in self.networks.items()}
        return replace(query, inputs=query.inputs | {"context": text})

    @torch.inference_mode()
    def seen(self, query: Query) -> Mapping[str, tuple[Seen, ...]]:
        """By network and block."""
        text = query.inputs["context"]
        return {
            network: rows.seen(replace(query, inputs=query.inputs | {"context": text[network]}))
            for network, rows in self.networks.items()
        }
