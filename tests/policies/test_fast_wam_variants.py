"""What the four variants share and where they differ, and that every short cut gives what the long way gives."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from tests.policies.plain_fast_wam import masked_attend, predictions, sample_by_looking
from tests.policies.tiny_fast_wam import tiny_config, tiny_policy
from tests.policies.tiny_policy import batch_of, draws
from wamkit.flow import Noised
from wamkit.policies.fast_wam import mixture
from wamkit.policies.fast_wam.mixture import empty_cache, run_together
from wamkit.policies.fast_wam.noising import clean
from wamkit.policies.fast_wam.sampling import Noise, imagine, sample
from wamkit.policies.fast_wam.variants import VARIANTS
from wamkit.wan.dit import Frames

CO_TRAINED = ("fast", "joint", "idm")
FRAMES = 2  # latent frames of the future: more than one, so that they could see each other wrongly


def policy_of(variant, **changes):
    return tiny_policy(tiny_config(variant=variant, **changes))


def scene(policy, rows=2):
    """(noised groups of every variant, context, noise), the same for every policy of these weights."""
    batch, generator = batch_of(policy, rows), torch.Generator().manual_seed(7)
    context = policy.context(batch.inputs, batch.embodiment)
    present = batch.inputs["present"]
    shapes = {"action": batch.actions.shape, "video": present.expand(-1, -1, FRAMES, -1, -1).shape}
    noise = Noise(**{name: torch.randn(shape, generator=generator) for name, shape in shapes.items()})
    drawn = {"future": shapes["video"], "given": shapes["video"], "action": shapes["action"]}
    noised = {"present": clean(present)}
    for group, shape in drawn.items():
        x, t = torch.randn(shape, generator=generator), torch.rand(rows, generator=generator)
        noised[group] = Noised(x, t, torch.zeros_like(x))
    return noised, context, noise


@torch.no_grad()
def predict(policy, noised, context):
    return predictions(policy, policy.look(noised, context), noised)


def close(a, b, tolerance=1e-5):
    return float((a - b).abs().max()) <= tolerance * float(b.abs().max())


def test_video_is_predicted_alike_in_all_variants_and_actions_are_not():
    """Fails when video looks at actions, or at the second copy of the future."""
    found = {}
    for variant in CO_TRAINED:
        policy = policy_of(variant)
        found[variant] = predict(policy, *scene(policy)[:2])
    for variant in ("joint", "idm"):
        assert close(found[variant]["future"], found["fast"]["future"])
        assert not close(found[variant]["action"], found["fast"]["action"], 1e-3)
    assert not close(found["joint"]["action"], found["idm"]["action"], 1e-3)


def test_one_generator_gives_all_variants_the_same_video_loss():
    """Fails when a variant draws something of its own before the noise that all share."""
    batch = batch_of(policy_of("fast"))
    losses = {v: policy_of(v)(batch, draws(seed=3)) for v in VARIANTS}
    for variant in ("joint", "idm"):
        torch.testing.assert_close(losses[variant]["video"], losses["fast"]["video"])
    torch.testing.assert_close(losses["no_video"]["action"], losses["fast"]["action"])


@pytest.mark.parametrize("group", ["future", "given", "action"])
@pytest.mark.parametrize("variant", VARIANTS)
def test_actions_see_what_the_table_says(variant, group):
    """Fails when a group is left out of the keys, or let in."""
    policy = policy_of(variant)
    noised, context, _ = scene(policy)
    before = predict(policy, noised, context)["action"]
    noised[group] = replace(noised[group], x=noised[group].x + 1)
    after = predict(policy, noised, context)["action"]
    seen = group in dict(policy.variant.sees)["action"]
    assert not torch.equal(before, after) if seen else torch.equal(before, after)


@pytest.mark.parametrize("variant", VARIANTS)
def test_groups_are_one_masked_attention(variant, monkeypatch):
    """Fails when `attend` leaves out a key that the visibility has, in training or with a memory."""
    policy = policy_of(variant)
    noised, context, noise = scene(policy)
    present = noised["present"].x
    with torch.no_grad():
        grouped = predict(policy, noised, context), sample(policy, present, context, noise, 2)
        monkeypatch.setattr(mixture, "attend", masked_attend)
        masked = predict(policy, noised, context), sample(policy, present, context, noise, 2)
    for group, velocity in masked[0].items():
        assert close(grouped[0][group], velocity), group
    assert close(grouped[1].action, masked[1].action)
    assert close(grouped[1].future, masked[1].future)


@pytest.mark.parametrize("variant", VARIANTS)
def test_a_chunk_sampled_with_a_memory_is_the_one_sampled_without(variant):
    """Fails when a remembered key depends on the step, or a variant moves the wrong groups."""
    policy = policy_of(variant)
    noised, context, noise = scene(policy)
    with torch.no_grad():
        remembered = sample(policy, noised["present"].x, context, noise, 4)
    looked = sample_by_looking(policy, noised["present"].x, context, noise, 4)
    assert close(remembered.action, looked.action)
    assert close(remembered.future, looked.future)
    assert not close(remembered.action, noise.action, 1e-2)


def test_a_second_copy_of_the_present_changes_nothing():
    """The published IDM sequence has one. Fails when the copies come apart in any layer."""
    policy = policy_of("idm")
    noised, context, _ = scene(policy)
    groups = ("present", "future", "copy", "given")
    noised["copy"] = noised["present"]
    sees = (
        ("present", ("present",)),
        ("future", ("present", "future")),
        ("copy", ("copy",)),
        ("given", ("copy", "given")),
        ("action", ("copy", "given", "action")),
    )
    with torch.no_grad():
        video = policy.dit.embed(
            torch.cat([noised[group].x for group in groups], dim=2),
            torch.stack([noised[group].t for group in groups], dim=1),
            context,
            tuple(
                Frames(group, int(group in ("future", "given")), noised[group].x.shape[2]) for group in groups
            ),
        )
        action = policy.action.embed(noised["action"].x, noised["action"].t, context)
        parts = [(policy.dit.blocks, video), (policy.action.blocks, action)]
        tokens = run_together(parts, sees, empty_cache(policy.dit.blocks))
        dropped = policy.look(noised, context)
    kept = dict(zip(groups, tokens[0].split(list(video.sizes.values()), dim=1), strict=True))
    assert close(kept["copy"], kept["present"])
    assert close(
        torch.cat([kept[group] for group in policy.variant.groups if group != "action"], dim=1), dropped.video
    )
    assert close(tokens[1], dropped.action)


def test_without_co_training_the_future_need_not_be_computed():
    """F A against F V A with weight 0. Fails when the action loss reaches the future's tokens."""
    batch, found = batch_of(policy_of("fast")), {}
    for variant, weight in (("no_video", 1.0), ("fast", 0.0)):
        policy = policy_of(variant, video_weight=weight)
        losses = policy(batch, draws())
        total = sum(policy.loss_weights[name] * loss for name, loss in losses.items())
        total.backward()
        found[variant] = total.detach(), {n: p.grad for n, p in policy.named_parameters()}
    (short, short_grads), (long, long_grads) = found["no_video"], found["fast"]
    torch.testing.assert_close(short, long)
    reached = [name for name, grad in short_grads.items() if grad is not None]
    assert not any(name.startswith("dit.head.") for name in reached)
    for name, grad in long_grads.items():
        ours = short_grads[name] if name in reached else torch.zeros_like(grad)
        torch.testing.assert_close(ours, grad, rtol=1e-4, atol=1e-6)


def test_joint_imagines_what_idm_imagines_first():
    """Fails when the future looks at the actions beside it, or is given another time."""
    policies = {variant: policy_of(variant) for variant in CO_TRAINED}
    noised, context, noise = scene(policies["fast"])
    present = noised["present"].x
    with torch.no_grad():
        futures = [sample(policies[v], present, context, noise, 3).future for v in ("joint", "idm")]
        futures.append(imagine(policies["fast"], present, context, noise.video, 3))
    assert close(futures[0], futures[1]) and close(futures[2], futures[1])
