"""A Fast-WAM small enough for tests: two heads, an action model of another width, nothing left at zero."""

from __future__ import annotations

import torch

from tests.policies.tiny_policy import SPEC, shaken, tiny_normalizer
from wamkit.policies.fast_wam.policy import FastWAM, FastWAMConfig, FromScratch
from wamkit.wan.dit import WanSize
from wamkit.wan.encoders import BlockCodecConfig, HashedTextConfig


def tiny_config(**changes: object) -> FastWAMConfig:
    """Video width 32, action width 24, attention width 40, three blocks; three Euler steps."""
    values = {
        "codec": BlockCodecConfig(),
        "text": HashedTextConfig(width=16, length=4),
        "size": WanSize(
            width=32, ffn=48, heads=2, head_dim=20, layers=3, channels=27, text_dim=16, time_dim=16
        ),
        "action_width": 24,
        "action_ffn": 32,
        "start": FromScratch(),
        "sample_steps": 3,
    }
    return FastWAMConfig(**(values | changes))


def tiny_policy(config: FastWAMConfig) -> FastWAM:
    """The same random weights for every variant."""
    torch.manual_seed(0)
    return shaken(FastWAM(config, SPEC, tiny_normalizer()))
