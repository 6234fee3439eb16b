"""Where sampling begins: the noise of every query by its seed, or the published one noise for all."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from wamkit_client.types import Observation

from tests.policies.tiny_fast_wam import tiny_config, tiny_policy
from tests.policies.tiny_policy import SPEC, encoder_of, query_of, seeded
from wamkit.infer.engine import Engine
from wamkit.policies.fast_wam.sampling import sample

SEED = 42  # of the official launch files


def observed(*seeds: int) -> list[Observation]:
    rng = np.random.default_rng(0)
    images = {view: rng.integers(0, 256, (32, 32, 3), dtype=np.uint8) for view in SPEC.views}
    return [Observation(images, np.ones(3, np.float32), "do it", "robot", noise_seed=s) for s in seeds]


def drawn_officially(policy, frames: int) -> tuple[torch.Tensor, torch.Tensor]:
    """As the released code does: two CPU generators of one seed, float32, the clip with its present frame."""
    c, h, w = encoder_of(policy).codec.channels, 4, 8
    action = torch.randn(
        (1, SPEC.horizon, SPEC.action_dim),
        generator=torch.Generator("cpu").manual_seed(SEED),
        dtype=torch.float32,
    )
    video = torch.randn(
        (1, c, 1 + frames, h, w), generator=torch.Generator("cpu").manual_seed(SEED), dtype=torch.float32
    )
    return action, video[:, :, 1:]


@pytest.mark.parametrize(("variant", "frames"), [("fast", 0), ("joint", 1), ("idm", 1)])
def test_published_noise_is_the_official_draw_bit_for_bit(variant, frames):
    """Fails when the video's noise continues the chunk's generator, or leaves out the present frame."""
    policy = tiny_policy(tiny_config(variant=variant, noise="published"))
    query = query_of(policy, 3, seeded(range(3)))
    present, robots = query.inputs["present"], query.embodiment
    noise = policy.draw_noise(present, query.generators)
    action, video = drawn_officially(policy, frames)
    assert torch.equal(noise.action, action.expand(3, -1, -1))
    assert torch.equal(noise.video, video.expand(3, -1, -1, -1, -1)[:, :, :frames])
    with torch.no_grad():
        context = policy.context(query.inputs, robots)
        expected = sample(policy, present, context, noise, 3).action
    found = policy.act(query)
    assert torch.equal(found, policy.normalizer.to_physical("action", expected, robots))


def test_every_query_begins_alike_only_where_it_is_asked():
    own, published = (tiny_policy(tiny_config(noise=noise)).eval() for noise in ("per_query", "published"))
    engine = Engine(encoder_of(published), published, torch.device("cpu"))
    first, second = (chunk.actions for chunk in engine.act(observed(1, 2)))
    np.testing.assert_allclose(first, second, rtol=1e-5, atol=1e-5)
    assert np.array_equal(engine.act(observed(3))[0].actions, engine.act(observed(4))[0].actions)
    engine = Engine(encoder_of(own), own, torch.device("cpu"))
    first, second = (chunk.actions for chunk in engine.act(observed(1, 2)))
    assert np.abs(first - second).max() > 0.1
