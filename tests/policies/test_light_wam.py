"""What must hold of the policy whatever its size. Numerics are the golden vectors' business (tests/golden)."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from tests.policies.tiny_policy import (
    SPEC,
    batch_of,
    clip,
    draws,
    encoder_of,
    query_of,
    seeded,
    tiny_config,
    tiny_policy,
)
from wamkit.flow import bfloat16_times
from wamkit.nn.attention import FIRST_FRAME_CAUSAL
from wamkit.nn.lora import LoRALinear
from wamkit.policies.light_wam.policy import LoRATuning, StepWeights
from wamkit.types import encode
from wamkit.wan.dit import PRESENT


def losses(policy, seed=0):
    return policy(batch_of(policy), draws(seed=seed))


def test_an_observation_is_a_clip_of_length_one():
    policy = tiny_policy(tiny_config(video_pool=2))
    whole, now = (encode(encoder_of(policy), clip(frames=frames)) for frames in (5, 1))
    assert torch.equal(whole["present"], now["present"])
    assert torch.equal(whole["context"], now["context"])
    assert now["future"].shape[2] == 0
    assert whole["present"].shape[-2:] == (4, 8) and whole["future"].shape[-2:] == (2, 4)  # pooled already


def test_stopping_after_the_last_tap_is_exact():
    policy = tiny_policy(tiny_config())
    query = query_of(policy)
    present, context = query.inputs["present"], policy.context(query.inputs, query.embodiment)
    stopped = policy.look(present, context)
    taps = policy.config.adapters.layers
    whole = policy.dit(present, torch.zeros(1, 1), context, (PRESENT,), FIRST_FRAME_CAUSAL, taps)
    assert all(torch.equal(a, b) for a, b in zip(stopped, whole.taps, strict=True))


def test_without_pooling_one_pass_gives_the_losses_and_gradients_of_two():
    grads = {}
    for objective in ("cotrain", "cotrain_one_pass"):
        policy = tiny_policy(tiny_config(objective=objective))
        found = losses(policy)
        sum(found.values()).backward()
        grads[objective] = found, {n: p.grad for n, p in policy.named_parameters() if p.grad is not None}
    (two, grad_two), (one, grad_one) = grads["cotrain"], grads["cotrain_one_pass"]
    for name, loss in two.items():
        assert loss.item() == pytest.approx(one[name].item(), rel=1e-6)
    assert grad_two.keys() == grad_one.keys()
    for name, grad in grad_two.items():
        assert torch.allclose(grad, grad_one[name], atol=1e-5 * float(grad.abs().max() + 1e-3)), name


def test_one_pass_needs_unpooled_video():
    with pytest.raises(ValueError, match=r"video_pool: objective .* needs 1, got 2"):
        tiny_config(objective="cotrain_one_pass", video_pool=2)


def test_acting_does_not_depend_on_the_future_nor_on_co_training():
    policy = tiny_policy(tiny_config())
    query, inputs = query_of(policy), encode(encoder_of(policy), clip())
    chunk = policy.act(replace(query, inputs=inputs))
    assert chunk.shape == (3, 6, 2)
    changed = inputs | {"future": torch.randn_like(inputs["future"])}
    assert torch.equal(policy.act(replace(query, inputs=changed)), chunk)
    first = {name: tensor[:1] for name, tensor in inputs.items()}
    assert torch.allclose(policy.act(replace(query_of(policy, 1), inputs=first)), chunk[:1], atol=1e-5)


def test_actions_leave_in_physical_units():
    policy = tiny_policy(tiny_config())
    query = query_of(policy)
    context = policy.context(query.inputs, query.embodiment)
    unit = policy.expert(policy.look(query.inputs["present"], context), SPEC.horizon)
    physical = policy.act(query)
    assert torch.allclose(policy.normalizer.to_physical("action", unit, query.embodiment), physical)
    assert not torch.allclose(unit, physical, atol=1e-2)


def test_a_shorter_chunk_is_a_prefix():
    policy = tiny_policy(tiny_config())
    query = query_of(policy)
    states = policy.look(query.inputs["present"], policy.context(query.inputs, query.embodiment))
    assert torch.allclose(policy.expert(states, 6)[:, :2], policy.expert(states, 2), atol=1e-6)


def test_the_losses_asked_for_are_the_losses_given():
    for objective, names in (("cotrain", {"video", "action"}), ("action_only", {"action"})):
        policy = tiny_policy(tiny_config(objective=objective))
        assert set(losses(policy)) == set(policy.loss_weights) == names


def test_video_loss_leaves_the_expert_alone_and_action_loss_the_head():
    for name, untouched in (("video", "expert."), ("action", "dit.head.")):
        policy = tiny_policy(tiny_config())
        losses(policy)[name].backward()
        assert all(p.grad is None for n, p in policy.named_parameters() if n.startswith(untouched))


def test_actions_past_the_prefix_do_not_count():
    policy = tiny_policy(tiny_config(step_weights=StepWeights(prefix=2)))
    batch = batch_of(policy)
    before = policy(batch, draws())["action"]
    batch.actions[:, 2:] += 100
    after = policy(batch, draws())["action"]
    assert torch.equal(before, after)


def test_dimensions_that_a_robot_has_not_do_not_count():
    """Row 1 is of a robot with one dimension. Fails when its second is a target, or its first is none."""
    policy = tiny_policy(tiny_config())
    batch = batch_of(policy)
    whole = policy(batch, draws())["action"]
    batch.valid[1, :, 1] = False
    before = policy(batch, draws())["action"]
    batch.actions[1, :, 1] += 100
    assert torch.equal(policy(batch, draws())["action"], before) and not torch.equal(before, whole)
    batch.actions[1, :, 0] += 100
    assert not torch.equal(policy(batch, draws())["action"], before)


def test_the_noise_follows_from_the_generator():
    policy = tiny_policy(tiny_config())
    assert torch.equal(losses(policy, 1)["video"], losses(policy, 1)["video"])
    assert not torch.equal(losses(policy, 1)["video"], losses(policy, 2)["video"])


def test_lora_trains_what_the_paper_trains():
    policy = tiny_policy(tiny_config(LoRATuning(rank=2, alpha=4.0)))
    trained = {n for n, p in policy.named_parameters() if p.requires_grad}
    starts = ("dit.head.", "dit.adapters.", "expert.", "proprio_encoder.")
    assert all(n.startswith(starts) or ".lora_" in n for n in trained)
    assert sum(isinstance(m, LoRALinear) for m in policy.modules()) == 3 * 10
    assert not policy.dit.patch_embedding.weight.requires_grad


def test_it_learns_to_repeat_a_batch():
    policy = tiny_policy(tiny_config())
    batch, optimizer = batch_of(policy), torch.optim.AdamW(policy.parameters(), lr=3e-3)
    history = []
    for step in range(60):
        found = policy(batch, draws(seed=step % 4))
        optimizer.zero_grad()
        sum(found.values()).backward()
        optimizer.step()
        history.append({name: float(value) for name, value in found.items()})
    for name in ("video", "action"):
        first, last = (sum(row[name] for row in rows) for rows in (history[:4], history[-4:]))
        assert last < 0.5 * first, name


@pytest.mark.parametrize("pool", [1, 2])
def test_imagined_futures_are_pictures_and_follow_from_the_seed(pool):
    policy = tiny_policy(tiny_config(video_pool=pool))
    latents = (policy.imagine(query_of(policy), 1, 3, *seeded([seed])) for seed in (0, 0, 1))
    video, again, other = map(encoder_of(policy).decode, latents)
    assert video.shape == (3, 3, 5, 32 // pool, 64 // pool)
    assert video.abs().max() <= 1
    assert torch.equal(video, again) and not torch.equal(video, other)
    assert torch.equal(video[:, :, 0], other[:, :, 0])  # the present is given, not imagined


def test_attention_maps_are_distributions_on_the_token_grid():
    policy = tiny_policy(tiny_config())
    maps = policy.attention_maps(query_of(policy))
    assert list(maps) == [0, 1]
    for grid in maps.values():
        assert grid.shape == (3, 2, 4)
        assert torch.allclose(grid.sum(dim=(1, 2)), torch.ones(3), atol=1e-5)


def test_published_times_are_rounded_as_published():
    """Spec 2.1: 1000 sigma in bfloat16, a multiple of 4 above 512; sigma = t / 1000 is rounded once more."""
    sigma = torch.linspace(0, 1, 100_001)
    t, share = bfloat16_times(sigma)
    steps = 1000 * t
    late, middle = steps[sigma > 0.513], steps[(sigma > 0.257) & (sigma < 0.511)]
    assert torch.allclose(late, 4 * (late / 4).round()) and len(late.unique()) == 123
    assert torch.allclose(middle, 2 * (middle / 2).round())
    assert (t - sigma).abs().max() <= 0.002 + 1e-6
    official = (1000 * sigma).to(torch.bfloat16)
    assert torch.equal(share, (official / 1000).float())
    assert (1000 * t - official.float()).abs().max() < 1e-4
    assert not torch.equal(share, t)


def test_published_times_drive_noise_embedding_and_weight():
    t, noise = torch.tensor([0.9013, 0.3001, 0.0517]), torch.randn(3, 27, 1, 4, 8)
    clips = {}
    for precision in ("float32", "bfloat16"):
        policy = tiny_policy(tiny_config(time_precision=precision))
        inputs = encode(encoder_of(policy), clip())
        clips[precision] = policy.add_noise(inputs, t, noise)
    assert torch.equal(clips["float32"].t, t)
    rounded, share = bfloat16_times(t)
    assert 1000 * rounded[0] == 900 and torch.equal(clips["bfloat16"].t, rounded)
    mixed = share.reshape(3, 1, 1, 1, 1)
    expected = (1 - mixed) * inputs["future"] + mixed * noise
    assert torch.equal(clips["bfloat16"].latents[:, :, 1:], expected)
    assert torch.equal(clips["bfloat16"].target, clips["float32"].target)
