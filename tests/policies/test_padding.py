"""Padding is judged by the codec's own grouping of frames."""

from __future__ import annotations

import pytest
import torch

from tests.policies import tiny_fast_wam as fast
from tests.policies import tiny_policy as light
from tests.policies.tiny_policy import SPEC, Pairs, batch_of, draws
from wamkit.policies.wan_encoder import WanEncoder
from wamkit.wan.encoders import build_text


@pytest.mark.parametrize("tiny", [light, fast])
def test_a_codec_of_another_group_size_trains(tiny):
    """Fails when the video loss assumes four frames to a latent. Row 1 is padded from its fourth frame on."""
    policy = tiny.tiny_policy(tiny.tiny_config())
    batch = batch_of(WanEncoder(Pairs(), build_text(policy.config.text), SPEC))
    assert batch.inputs["future"].shape[2] == 2

    def video() -> torch.Tensor:
        return policy(batch, draws())["video"]

    whole = video()
    batch.inputs["frame_is_pad"][1, 3:] = True  # the second of its two latents
    assert not torch.equal(video(), whole)
    batch.inputs["frame_is_pad"][1, 3] = False
    assert torch.equal(video(), whole)
