"""Flow times of Fast-WAM: shift and rounding are the policy's own, in training and in sampling."""

from __future__ import annotations

import json

import pytest
import torch
from wamkit_client.types import BadInput

from tests.policies.test_fast_wam_fused import assert_same
from tests.policies.tiny_fast_wam import tiny_config, tiny_policy
from tests.policies.tiny_policy import batch_of, draws, query_of, seeded
from wamkit.config import from_json, to_json
from wamkit.draws import Draws
from wamkit.flow import Shift
from wamkit.nn.losses import action_loss_per_sample, video_loss_per_sample
from wamkit.policies.fast_wam.fused import FusedSampler
from wamkit.policies.fast_wam.noising import NOISE
from wamkit.policies.fast_wam.sampling import sample
from wamkit.recipes import recipe

PUBLISHED = [1000, 980, 952, 920, 884, 832, 768, 680, 556, 358, 0]  # spec 3.1
SHIFTED = {"video_shift": Shift(train=3.0, sample=2.0), "action_shift": Shift(train=1.0, sample=0.5)}


def test_training_times_are_rounded_as_published_and_only_there():
    """The share of noise, the network's time and the weight of the loss all come from the rounded time."""
    exact, rounded = (
        tiny_policy(tiny_config(variant="idm", time_precision=p)) for p in ("float32", "bfloat16")
    )
    batch = batch_of(exact)
    a, b = (policy.add_noise(batch, draws(seed=1)) for policy in (exact, rounded))
    for group in ("action", "future", "given"):
        assert torch.equal(b[group].t, (1000 * a[group].t).bfloat16().float() / 1000)
        assert torch.equal(a[group].target, b[group].target)
        if group != "given":  # which may be clean
            assert not torch.equal(a[group].x, b[group].x)
        torch.testing.assert_close(a[group].x, b[group].x, atol=0.05, rtol=0)
    assert torch.equal(a["present"].x, b["present"].x) and not b["present"].t.any()


def test_sampling_has_the_published_ten_times_where_it_is_asked_to():
    published, exact = (tiny_policy(tiny_config(time_precision=p)) for p in ("bfloat16", "float32"))
    for network in ("video", "action"):
        grid = published.times(network).grid(10)
        assert (1000 * grid.times).round(decimals=3).tolist() == PUBLISHED
        assert torch.equal(grid.strides, grid.strides.bfloat16().float())
        assert float((1000 * exact.times(network).grid(10).times)[1]) == pytest.approx(978.26, abs=5e-3)
    chunks = [p.actor(p.passes)(query_of(exact, 3, seeded(range(3)))) for p in (published, exact)]
    distance = float((chunks[0] - chunks[1]).abs().max() / chunks[1].abs().max())
    assert 0 < distance < 0.02  # of these random weights: 0.012


@pytest.mark.parametrize("variant", ["fast", "joint", "idm"])
def test_each_network_samples_on_its_own_grid(variant):
    """Fails when one grid serves both networks, or the fused sampler has other times than the plain one."""
    policy = tiny_policy(tiny_config(variant=variant, **SHIFTED))
    assert float(policy.times("video").grid(2).times[1]) == pytest.approx(2 / 3)
    assert float(policy.times("action").grid(2).times[1]) == pytest.approx(1 / 3)
    query = query_of(policy, 3, seeded(range(3)))
    present = query.inputs["present"]
    with torch.no_grad():
        context = policy.context(query.inputs, query.embodiment)
        noise = policy.draw_noise(present, query.generators)
        plain = sample(policy, present, context, noise, 4)
    assert_same(FusedSampler(policy, 4).sample(present, context, noise), plain)


def test_each_loss_has_the_shift_of_its_own_times():
    """Times of shift 1 are uniform; the weight has mean 1 under the times it belongs to."""
    policy = tiny_policy(tiny_config(**SHIFTED))
    batch, many = batch_of(policy, 3), torch.zeros(100_000, 1)
    rows = len(many)
    action, video = (
        NOISE[group](many, Draws.of_step(0, 0, many.device, 0, rows, rows), policy.config)
        for group in ("action", "future")
    )
    assert float(action.t.mean()) == pytest.approx(0.5, abs=5e-3)
    assert float(video.t.mean()) == pytest.approx(0.676, abs=5e-3)  # of shift 3

    noised = policy.add_noise(batch, draws(seed=4))
    states = policy.look(noised, policy.context(batch.inputs, batch.embodiment))
    losses = policy(batch, draws(seed=4))
    errors = {
        "video": video_loss_per_sample(
            policy.dit.head(states.video, states.stream)[:, :, 1:],
            noised["future"].target,
            batch.inputs["frame_is_pad"][:, 1:].all(1, keepdim=True),
        ),
        "action": action_loss_per_sample(
            policy.action.head(states.action), noised["action"].target, batch.valid, torch.ones(6)
        ),
    }
    for name, group, mean in (("action", "action", 0.2490935), ("video", "future", 0.2188570)):
        bump = torch.exp(-2 * (noised[group].t - 0.5) ** 2) - 0.6065306597
        torch.testing.assert_close(losses[name], (bump / mean * errors[name]).mean(), rtol=1e-4, atol=1e-6)


def test_a_run_from_before_means_what_it_did():
    """Shift 5, exact times, one way of acting. Fails when an old run.json is refused or means something else."""
    run = recipe("libero_fast_wam_ours")
    saved = json.loads(to_json(run))
    for name in ("video_shift", "action_shift", "time_precision", "given_noise", "idm_share", "mode"):
        del saved["policy"][name]
    assert from_json(json.dumps(saved), "run.json") == run
    assert run.policy.action_shift == run.policy.video_shift == Shift(train=5.0, sample=5.0)
    assert run.policy.time_precision == "float32"
    light = json.loads(to_json(recipe("metaworld3")))
    del light["policy"]["video_shift"]
    assert from_json(json.dumps(light), "run.json").policy.video_shift == Shift(5.0, 5.0)


def test_a_shift_is_a_number_above_zero():
    with pytest.raises(BadInput, match=r"shift\.sample: flow times shift by a number above 0, got 0"):
        Shift(train=5.0, sample=0.0)
