"""A Light-WAM small enough for tests, with everything switched on; batches for any tiny policy."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor, nn

from wamkit.data.normalize import Normalizer, Stats
from wamkit.draws import Draws
from wamkit.infer.engine import Engine
from wamkit.policies.light_wam.policy import FullTuning, LightWAM, LightWAMConfig, LoRATuning, StepWeights
from wamkit.policies.light_wam.state_fusion import StateFusionConfig
from wamkit.policies.wan_encoder import WanEncoder
from wamkit.types import Batch, Clip, DataSpec, Encoder, Query, encode
from wamkit.wan.codec import BlockCodec
from wamkit.wan.dit import Adapters, WanSize
from wamkit.wan.encoders import BlockCodecConfig, HashedTextConfig

W = TypeVar("W", bound=nn.Module)

SPEC = DataSpec(
    views=("front", "wrist"),
    canvas="horizontal",
    view_height=32,
    view_width=32,
    hz=10.0,
    frame_times=(0.0, 0.4, 0.8, 1.2, 1.6),
    chunk_seconds=0.6,
    proprio_dim=3,
    action_dim=2,
)


def tiny_config(tuning: FullTuning | LoRATuning = FullTuning(), **changes: object) -> LightWAMConfig:  # noqa: B008
    """Width 32, three blocks, adapters after the first two (so that one block follows the last tap)."""
    values = {
        "codec": BlockCodecConfig(),
        "text": HashedTextConfig(width=16, length=4),
        "size": WanSize(
            width=32, ffn=48, heads=1, head_dim=32, layers=3, channels=27, text_dim=16, time_dim=16
        ),
        "tuning": tuning,
        "adapters": Adapters(layers=(0, 1), dim=8),
        "expert": StateFusionConfig(
            queries=3, heads=2, level_dim=24, trunk_dim=32, trunk_blocks=1, step_dim=8
        ),
        "video_pool": 1,
        "objective": "cotrain",
        "step_weights": StepWeights(prefix=6),
    }
    return LightWAMConfig(**(values | changes))


def tiny_policy(config: LightWAMConfig) -> LightWAM:
    """Random weights, so that every path is visible in the output."""
    torch.manual_seed(0)
    return shaken(LightWAM(config, SPEC, tiny_normalizer()))


def tiny_normalizer() -> Normalizer:
    """Of one robot whose units are far from the unit range."""
    rng = np.random.default_rng(0)
    fields = {"action": SPEC.action_dim, "proprio": SPEC.proprio_dim}
    stats = {"robot": {name: Stats.of(rng.normal(size=(50, dim)) * 3 + 1) for name, dim in fields.items()}}
    return Normalizer.fit(stats, {"action": "min_max", "proprio": "z_score"})


def shaken(policy: W) -> W:
    """The policy with something added to every weight, so that none is left at zero."""
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in policy.parameters():
            parameter.add_(0.05 * torch.randn(parameter.shape, generator=generator))
    return policy


class Pairs(BlockCodec):
    """A codec with two frames to a latent, as no released one has: the first of each pair."""

    temporal = 2

    def encode(self, video: Tensor) -> Tensor:
        first = [super(Pairs, self).encode(video[:, :, [i]]) for i in (0, *range(1, video.shape[2], 2))]
        return torch.cat(first, dim=2)


def clip(batch: int = 3, frames: int = 5) -> Clip:
    """Random pixels, proprio and different instructions."""
    generator = torch.Generator().manual_seed(2)
    pixels = torch.randint(0, 256, (2, batch, 5, 32, 32, 3), dtype=torch.uint8, generator=generator)
    return Clip(
        views={"front": pixels[0, :, :frames], "wrist": pixels[1, :, :frames]},
        proprio=torch.randn(batch, 3, generator=generator),
        instructions=tuple(f"do thing {i}" for i in range(batch)),
        embodiments=("robot",) * batch,
    )


def encoder_of(policy: nn.Module) -> WanEncoder:
    """The encoder of a tiny policy."""
    return policy.config.encoder(policy.data)


def engine_of(policy: nn.Module) -> Engine[Any]:
    """A tiny policy and its encoder, on the CPU."""
    continues = policy.config.continues
    return Engine(encoder_of(policy), policy.eval(), torch.device("cpu"), continues=continues)


def query_of(policy: nn.Module, batch: int = 3, generators: Sequence[torch.Generator] = ()) -> Query:
    """What a tiny policy is asked about `batch` observations."""
    inputs = encode(encoder_of(policy), clip(batch, frames=1))
    embodiment, hz = torch.zeros(batch, dtype=torch.int64), torch.full((batch,), SPEC.hz)
    return Query(inputs, embodiment, hz, generators, instructions=clip(batch).instructions)


def seeded(seeds: Sequence[int]) -> list[torch.Generator]:
    """A generator for each row."""
    return [torch.Generator().manual_seed(seed) for seed in seeds]


def draws(size: int = 3, seed: int = 0) -> Draws:
    """Of a batch."""
    return Draws.of(torch.Generator().manual_seed(seed), size)


def batch_of(policy: nn.Module | Encoder, size: int = 3) -> Batch:
    """A training batch with some padding at the end, for a policy or its encoder."""
    encoder = encoder_of(policy) if isinstance(policy, nn.Module) else policy
    valid = torch.ones(size, 6, 2, dtype=torch.bool)
    valid[0, 4:] = False
    frame_is_pad = torch.zeros(size, 5, dtype=torch.bool)
    frame_is_pad[0, 1:] = True
    generator = torch.Generator().manual_seed(3)
    return Batch(
        inputs=encode(encoder, clip(size)) | {"frame_is_pad": frame_is_pad},
        actions=torch.randn(size, 6, 2, generator=generator),
        valid=valid,
        embodiment=torch.zeros(size, dtype=torch.int64),
        hz=torch.full((size,), SPEC.hz),
        ids=tuple(f"0:{i}" for i in range(size)),
    )
