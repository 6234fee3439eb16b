"""Attention maps: the colour is where the weight is, on one honest scale."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from wamkit_client.envs.base import Task

from tests.policies.tiny_policy import engine_of, tiny_config, tiny_policy
from tests.report.slider import record
from wamkit.report.attention import attention, overlay
from wamkit.report.recordings import read_recording
from wamkit.report.watched import Watched


def colourfulness(picture: np.ndarray) -> np.ndarray:
    return np.ptp(picture.astype(int), axis=2)


def test_even_attention_is_grey() -> None:
    seen = np.random.default_rng(0).integers(0, 256, (64, 128, 3), dtype=np.uint8)
    assert colourfulness(overlay(seen, torch.ones(2, 4), 2.0)).max() == 0


def test_colour_is_where_the_weight_is() -> None:
    weights = torch.full((2, 4), 0.5)
    weights[1, 2] = 4.5
    colours = colourfulness(overlay(np.full((64, 128, 3), 128, np.uint8), weights, 4.5))
    row, column = np.unravel_index(colours.argmax(), colours.shape)
    assert 32 <= row < 64 and 64 <= column < 96
    assert colours[:16].max() == 0 and colours[:, :32].max() == 0


def test_the_section_has_a_map_per_depth_and_says_how_views_share(tmp_path: Path) -> None:
    path = tmp_path / record(tmp_path, Task("slide", "slide it"), 3)["recording"]
    recording = read_recording(path, "slide", 3, "slide it", "robot")
    policy = tiny_policy(tiny_config())
    body = attention(engine_of(policy), Watched([recording, recording], "Two of one.")).body
    assert body.count("<img") == 2 * (1 + len(policy.config.adapters.layers))
    assert "block 0" in body and "block 1" in body and "2×4 tokens" in body and "step 8" in body
    shares = [text.split("</span>")[0] for text in body.split('class="number">')[1:] if "%" in text[:12]]
    assert len(shares) == 4
    for text in shares:
        parts = [int(part.removesuffix(" %")) for part in text.split(", ")]
        assert len(parts) == 2 and abs(sum(parts) - 100) <= 1
