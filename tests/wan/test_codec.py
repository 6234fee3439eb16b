"""The weight-free codec: geometry, causality, inverse, and quality on real pictures of the simulator."""

from __future__ import annotations

import numpy as np
import torch
from wamkit_client.suites import suite

from wamkit.wan.codec import FUTURE, PRESENT, BlockCodec


def test_geometry_is_the_wan_vaes():
    codec = BlockCodec()
    assert codec.encode(torch.zeros(2, 3, 9, 32, 48)).shape == (2, 27, 3, 4, 6)
    assert codec.decode(torch.zeros(2, 27, 3, 4, 6)).shape == (2, 3, 9, 32, 48)
    assert len(PRESENT) == len(FUTURE) == len(set(PRESENT)) == len(set(FUTURE)) == 27


def test_the_first_latent_of_a_clip_is_the_latent_of_its_first_frame():
    codec, video = BlockCodec(), torch.rand(1, 3, 5, 16, 16) * 2 - 1
    assert torch.equal(codec.encode(video)[:, :, :1], codec.encode(video[:, :, :1]))


def test_a_still_frame_is_one_convolution():
    codec, frames = BlockCodec(), torch.rand(2, 3, 16, 24) * 2 - 1
    torch.testing.assert_close(
        codec.still()(frames), codec.encode(frames[:, :, None])[:, :, 0], rtol=1e-5, atol=1e-5
    )


def test_latents_depend_on_no_later_frame():
    codec, video = BlockCodec(), torch.rand(1, 3, 9, 16, 16) * 2 - 1
    before = codec.encode(video)
    video[:, :, 5:] = 0
    assert torch.equal(codec.encode(video)[:, :, :2], before[:, :, :2])


def test_decoding_is_the_least_squares_inverse():
    codec, latents = BlockCodec(), torch.randn(2, 27, 3, 2, 3)
    assert torch.allclose(codec.encode(codec.decode(latents)), latents, atol=1e-4)


def test_a_still_scene_has_a_future_of_zero():
    codec, frame = BlockCodec(), torch.rand(1, 3, 1, 16, 8) * 2 - 1
    latents = codec.encode(frame.expand(-1, -1, 5, -1, -1))
    assert latents[:, :, 0].abs().max() > 0.1
    assert latents[:, :, 1].abs().max() < 1e-4
    decoded = codec.decode(latents)
    assert torch.allclose(decoded, decoded[:, :, :1].expand_as(decoded), atol=1e-4)


def test_pictures_of_the_simulator_survive():
    """The rate and quality that docs/numerics.md states, on an expert's episode in Meta-World."""
    env = suite("metaworld3").env.make(suite("metaworld3").tasks[0])
    env.reset(seed=5)
    frames = []
    for _ in range(33):
        frames.append(np.concatenate(list(env.observe().images.values()), axis=1))
        env.step(env.expert_action())
    env.close()
    video = torch.from_numpy(np.stack(frames[::8])).permute(3, 0, 1, 2)[None] / 127.5 - 1
    codec = BlockCodec()
    latents = codec.encode(video)
    assert latents[:, :, 0].numel() / video[:, :, 0].numel() == 27 / 192
    assert latents[:, :, 1].numel() / video[:, :, 1:].numel() == 27 / 768
    error = (codec.decode(latents).clamp(-1, 1) - video).square()
    assert 10 * torch.log10(4 / error[:, :, 0].mean()) > 25
    assert 10 * torch.log10(4 / error[:, :, 1:].mean()) > 21
