"""A LaWAM small enough for tests, and batches for it."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import torch

from tests.policies.tiny_policy import shaken
from wamkit.data.normalize import Normalizer, Stats
from wamkit.policies.lawam.action_expert import ExpertSize
from wamkit.policies.lawam.features import BlockFeaturesConfig
from wamkit.policies.lawam.latent_action import LatentSize
from wamkit.policies.lawam.policy import LaWAM, LaWAMConfig
from wamkit.policies.lawam.prior import FromScratch, PriorSize
from wamkit.policies.lawam.prompt import HashedPromptConfig
from wamkit.tree import Tree
from wamkit.types import Batch, DataSpec, Query

SPEC = DataSpec(
    views=("front", "wrist"),
    canvas="separate",
    view_height=32,
    view_width=32,
    hz=10.0,
    frame_times=(0.0, 0.5),
    chunk_seconds=0.6,
    proprio_dim=0,
    action_dim=3,
    past_end="supervised",
)
FEATURES = BlockFeaturesConfig(6, merge=2)
LATENT = LatentSize(
    width=16, heads=2, ffn=24, inverse_layers=1, world_layers=2, code=8, positions="concatenated"
)
PRIOR = PriorSize(
    width=16,
    layers=3,
    heads=2,
    kv_heads=1,
    head_dim=8,
    ffn=24,
    vocabulary=64,
    rope_base=1e4,
    vision_width=16,
    vision_blocks=2,
    vision_heads=2,
    vision_ffn=24,
    vision_taps=(0,),
    position_side=4,
    patch=8,
)
CONFIG = LaWAMConfig(
    world="no/world",
    features=FEATURES,
    latent=LATENT,
    prompt=HashedPromptConfig(length=40, pixels=16, vocabulary=64),
    prior=PRIOR,
    start=FromScratch(),
    expert=ExpertSize(width=16, heads=2, ffn=24, layers=4, tokens=8, action_dim=4, time_dim=8, dropout=0.0),
    sample_steps=3,
)


def normalizer(*robots: str) -> Normalizer:
    """Of robots whose units are far from the unit range."""
    rng = np.random.default_rng(0)
    stats = {
        name: {"action": Stats.of(rng.normal(size=(50, 3)) * 3 + 1), "proprio": Stats.of(np.zeros((1, 0)))}
        for name in robots or ("robot",)
    }
    return Normalizer.fit(stats, {"action": "min_max", "proprio": "min_max"})


def tiny_lawam(**changes: Any) -> LaWAM:
    """Random weights, none of them zero, so that every path shows in the output."""
    torch.manual_seed(0)
    return shaken(LaWAM(replace(CONFIG, **changes), SPEC, normalizer()))


def inputs(rows: int, frames: int = 2, seed: int = 0) -> Tree:
    """What the encoder returns, made up but for the prompt."""
    generator = torch.Generator().manual_seed(seed)
    texts = [("push the button", "open it")[row % 2] for row in range(rows)]
    code = {"code": torch.randn(rows, LATENT.code, generator=generator)} if frames == 2 else {}
    return {
        "features": torch.randn(rows, frames, 4, FEATURES.dim, generator=generator),
        "images": torch.randint(256, (rows, 2, 32, 32, 3), dtype=torch.uint8, generator=generator),
        **CONFIG.prompt.load(SPEC).encode(texts),
        **code,
    }


def batch(rows: int, seed: int = 0) -> Batch:
    """A training batch at 10 Hz."""
    generator = torch.Generator().manual_seed(seed + 1)
    return Batch(
        inputs=inputs(rows, seed=seed) | {"frame_is_pad": torch.zeros(rows, 2, dtype=torch.bool)},
        actions=torch.randn(rows, SPEC.horizon, SPEC.action_dim, generator=generator),
        valid=torch.ones(rows, SPEC.horizon, SPEC.action_dim, dtype=torch.bool),
        embodiment=torch.zeros(rows, dtype=torch.int64),
        hz=torch.full((rows,), SPEC.hz),
        ids=tuple(f"0:{row}" for row in range(rows)),
    )


def query(rows: int, first_seed: int = 0) -> Query:
    """Observations with a generator each."""
    return Query(
        inputs=inputs(rows, frames=1),
        embodiment=torch.zeros(rows, dtype=torch.int64),
        hz=torch.full((rows,), SPEC.hz),
        generators=[torch.Generator().manual_seed(first_seed + row) for row in range(rows)],
    )
