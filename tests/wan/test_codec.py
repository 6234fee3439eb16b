"""The weight-free codec: geometry, causality, inverse, and quality on real pictures of the simulator."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from wamkit_client.suites import suite

from wamkit.wan.codec import (
    CHANGE_SPREAD,
    FUTURE,
    FUTURE_STD,
    KEPT,
    LEAST_SPREAD,
    PRESENT,
    PRESENT_STD,
    BlockCodec,
    Keeps,
    spread,
)

EVERY = pytest.mark.parametrize("keeps", KEPT)


def test_geometry_is_the_wan_vaes():
    codec = BlockCodec()
    assert codec.encode(torch.zeros(2, 3, 9, 32, 48)).shape == (2, 27, 3, 4, 6)
    assert codec.decode(torch.zeros(2, 27, 3, 4, 6)).shape == (2, 3, 9, 32, 48)
    assert len(PRESENT) == len(FUTURE) == len(set(PRESENT)) == len(set(FUTURE)) == 27


@EVERY
def test_as_much_is_kept_of_the_present_as_of_a_group_and_nothing_twice(keeps: Keeps):
    kept = KEPT[keeps]
    assert len({*kept.present}) == len({*kept.future}) == BlockCodec(keeps).channels
    assert {len(column) for column in vars(kept).values()} == {len(kept.present)}


def test_the_codec_of_todays_runs_is_the_one_that_they_were_trained_with():
    assert BlockCodec().fingerprint == "block-cosine-a9bb3bd94308"
    assert BlockCodec("whole").fingerprint != BlockCodec().fingerprint


def test_the_whole_present_comes_back():
    codec, frame = BlockCodec("whole"), torch.rand(1, 3, 1, 16, 24) * 2 - 1
    latents = codec.encode(frame)
    assert latents.shape == (1, 192, 1, 2, 3)
    assert torch.allclose(codec.decode(latents), frame, atol=1e-4)


def test_spectra_fit_what_was_measured():
    """Within a factor of two, where the measured one is no mean of a block, which depends on the lights."""
    own = [spread(colour, row + column) for _, colour, row, column in PRESENT]
    change = [CHANGE_SPREAD[t] * spread(colour, row + column) for t, colour, row, column in FUTURE]
    for expected, measured in ((own, PRESENT_STD), (change, FUTURE_STD)):
        ratio = torch.tensor(expected) / torch.tensor(measured)
        assert 0.5 < ratio.median() < 1.5 and (ratio - 1).abs().mean() < 0.4
    assert min(KEPT["whole"].future_std) == LEAST_SPREAD


@EVERY
def test_the_first_latent_of_a_clip_is_the_latent_of_its_first_frame(keeps: Keeps):
    codec, video = BlockCodec(keeps), torch.rand(1, 3, 5, 16, 16) * 2 - 1
    assert torch.equal(codec.encode(video)[:, :, :1], codec.encode(video[:, :, :1]))


@EVERY
def test_a_still_frame_is_one_convolution(keeps: Keeps):
    codec, frames = BlockCodec(keeps), torch.rand(2, 3, 16, 24) * 2 - 1
    torch.testing.assert_close(
        codec.still()(frames), codec.encode(frames[:, :, None])[:, :, 0], rtol=1e-5, atol=1e-5
    )


def test_latents_depend_on_no_later_frame():
    codec, video = BlockCodec(), torch.rand(1, 3, 9, 16, 16) * 2 - 1
    before = codec.encode(video)
    video[:, :, 5:] = 0
    assert torch.equal(codec.encode(video)[:, :, :2], before[:, :, :2])


@EVERY
def test_decoding_is_the_least_squares_inverse(keeps: Keeps):
    codec = BlockCodec(keeps)
    latents = torch.randn(2, codec.channels, 3, 2, 3)
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
    assert psnr(codec, video[:, :, :1]) > 25 and psnr(codec, video) > 21
    whole = BlockCodec("whole")
    assert whole.encode(video)[:, :, 1].numel() / video[:, :, 1:].numel() == 192 / 768
    assert psnr(whole, video[:, :, :1]) > 90 and psnr(whole, video) > psnr(codec, video) + 3


def psnr(codec: BlockCodec, video: torch.Tensor) -> float:
    """In decibels, of the frames that are not shown to the codec alone, or of the only one."""
    error = (codec.decode(codec.encode(video)).clamp(-1, 1) - video).square()[:, :, video.shape[2] > 1 :]
    return float(10 * torch.log10(4 / error.mean()))
