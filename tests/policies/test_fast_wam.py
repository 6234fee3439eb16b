"""What must hold of a Fast-WAM of any variant and size. Numerics are the golden vectors' business (tests/golden)."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from wamkit_client.types import BadInput

from tests.policies.tiny_fast_wam import tiny_config, tiny_policy
from tests.policies.tiny_policy import SPEC, batch_of, clip, draws, encoder_of, query_of, seeded
from wamkit.draws import Draws
from wamkit.policies.fast_wam.losses import LOSSES
from wamkit.policies.fast_wam.noising import clean_or_noised
from wamkit.policies.fast_wam.sampling import sample
from wamkit.policies.fast_wam.variants import VARIANTS, variant
from wamkit.tree import tree_map
from wamkit.types import encode

every_variant = pytest.mark.parametrize("variant", VARIANTS)


def policy_of(variant, **changes):
    return tiny_policy(tiny_config(variant=variant, **changes))


def asked(policy, seeds=(0, 1, 2)):
    """A query of one row for each seed; generators are used up by an answer."""
    return query_of(policy, len(seeds), seeded(seeds))


def rows(query, order, seeds):
    """Some rows of a query, with generators of their own."""
    return replace(
        query,
        inputs=tree_map(lambda x: x[order], query.inputs),
        embodiment=query.embodiment[order],
        hz=query.hz[order],
        generators=seeded(seeds),
    )


def test_an_observation_is_a_clip_of_length_one():
    """Fails when the encoder of the present looks at later frames."""
    policy = policy_of("joint")
    whole, now = (encode(encoder_of(policy), clip(frames=frames)) for frames in (5, 1))
    assert all(torch.equal(whole[name], now[name]) for name in ("present", "context"))
    assert now["future"].shape[2] == 0 and whole["future"].shape[2] == 1
    chunks = [policy.act(replace(asked(policy), inputs=inputs)) for inputs in (whole, now)]
    assert chunks[0].shape == (3, SPEC.horizon, SPEC.action_dim)
    torch.testing.assert_close(*chunks, rtol=1e-5, atol=1e-5)


@every_variant
def test_acting_does_not_look_at_the_future_of_its_inputs(variant):
    """Fails when a variant acts on the recorded future in place of the imagined one."""
    policy = policy_of(variant)
    inputs = encode(encoder_of(policy), clip())
    chunk = policy.act(replace(asked(policy), inputs=inputs))
    changed = inputs | {"future": torch.randn_like(inputs["future"])}
    assert torch.equal(policy.act(replace(asked(policy), inputs=changed)), chunk)


@every_variant
@pytest.mark.parametrize("passes", [(), ("fused_blocks",)], ids=["plain", "fused"])
def test_a_row_of_a_batch_is_what_it_is_alone_and_in_any_order(variant, passes):
    """Fails when rows share noise, or a row's proprio, words or time reach another row."""
    policy = policy_of(variant)
    query, act = asked(policy, (5, 6, 7)), policy.actor(passes)
    chunks = act(query)
    for row, seed in enumerate((5, 6, 7)):
        alone = act(rows(query, [row], [seed]))
        torch.testing.assert_close(alone[0], chunks[row], rtol=1e-5, atol=1e-5)
    moved = act(rows(query, [2, 0, 1], [7, 5, 6]))
    torch.testing.assert_close(moved, chunks[[2, 0, 1]], rtol=1e-5, atol=1e-5)


@every_variant
def test_the_chunk_follows_from_the_generator(variant):
    """Fails when noise comes from a global generator, or from none."""
    policy = policy_of(variant)
    chunk = policy.act(asked(policy))
    torch.manual_seed(1)
    assert torch.equal(policy.act(asked(policy)), chunk)
    other = policy.act(asked(policy, (0, 1, 3)))
    assert torch.equal(other[:2], chunk[:2]) and not torch.allclose(other[2], chunk[2], atol=1e-2)


def test_the_losses_follow_from_the_generator():
    """Fails when training draws from a global generator."""
    policy = policy_of("idm")
    batch = batch_of(policy)
    one, again, other = (policy(batch, draws(seed=seed)) for seed in (1, 1, 2))
    assert all(torch.equal(one[name], again[name]) for name in one)
    assert not any(torch.equal(one[name], other[name]) for name in one)


def test_actions_leave_in_physical_units():
    """Fails when the chunk is returned as the network knows it."""
    policy = policy_of("fast")
    query = asked(policy)
    present, robots = query.inputs["present"], query.embodiment
    noise = policy.draw_noise(present, query.generators)
    with torch.no_grad():
        unit = sample(policy, present, policy.context(query.inputs, robots), noise, 3).action
    physical = policy.act(asked(policy))
    assert torch.allclose(policy.normalizer.to_physical("action", unit, robots), physical)
    assert not torch.allclose(unit, physical, atol=1e-2)


@every_variant
def test_the_losses_asked_for_are_the_losses_given(variant):
    """Fails when a variant computes a loss that it does not train, or the reverse."""
    policy = policy_of(variant)
    assert set(policy(batch_of(policy), draws())) == set(policy.loss_weights)
    assert ("video" in policy.loss_weights) == VARIANTS[variant].trains_video


def losses_with(policy, batch, group, row, where):
    """The loss of `group` when its target in `row` is another at the positions `where`."""
    noised = policy.add_noise(batch, draws())
    target = noised[group].target.clone()
    target[row][where] += 10
    states = policy.look(noised, policy.context(batch.inputs, batch.embodiment))
    noised[group] = replace(noised[group], target=target)
    return LOSSES["video" if group == "future" else "action"](policy, states, noised, batch)


def test_padded_actions_do_not_count():
    """Fails when the loss averages over invented steps. batch_of pads row 0 from step 4."""
    policy = policy_of("fast")
    batch = batch_of(policy)
    nowhere = losses_with(policy, batch, "action", 0, slice(0, 0))
    assert torch.equal(losses_with(policy, batch, "action", 0, slice(4, 6)), nowhere)
    assert not torch.equal(losses_with(policy, batch, "action", 0, slice(3, 4)), nowhere)
    assert not torch.equal(losses_with(policy, batch, "action", 1, slice(4, 6)), nowhere)


def test_dimensions_that_a_robot_has_not_do_not_count():
    """Row 1 is of a robot with one dimension. Fails when its second is a target, or its first is none."""
    policy = policy_of("fast")
    batch = batch_of(policy)
    whole = losses_with(policy, batch, "action", 1, slice(0, 0))
    batch.valid[1, :, 1] = False
    nowhere = losses_with(policy, batch, "action", 1, slice(0, 0))
    assert not torch.equal(nowhere, whole)
    assert torch.equal(losses_with(policy, batch, "action", 1, (slice(None), 1)), nowhere)
    assert not torch.equal(losses_with(policy, batch, "action", 1, (slice(None), 0)), nowhere)


def test_latents_count_while_one_of_their_frames_is_real():
    """Fails when a latent is dropped for one padded frame, or kept for none that is real. Row 0 is all padding."""
    policy = policy_of("idm")
    batch = batch_of(policy)
    everywhere, nowhere = slice(None), slice(0, 0)
    untouched = losses_with(policy, batch, "future", 0, nowhere)
    assert torch.equal(losses_with(policy, batch, "future", 0, everywhere), untouched)
    assert not torch.equal(losses_with(policy, batch, "future", 1, everywhere), untouched)
    batch.inputs["frame_is_pad"][0, 1] = False
    untouched = losses_with(policy, batch, "future", 0, nowhere)
    assert not torch.equal(losses_with(policy, batch, "future", 0, everywhere), untouched)


@pytest.mark.parametrize(("name", "untouched"), [("video", "action."), ("action", "dit.head.")])
def test_each_loss_leaves_the_other_networks_head_alone(name, untouched):
    """Fails when video looks at actions, or the action loss reads predicted pixels."""
    policy = policy_of("joint")
    policy(batch_of(policy), draws())[name].backward()
    reached = {n for n, p in policy.named_parameters() if p.grad is not None and p.grad.any()}
    assert reached and not any(n.startswith(untouched) for n in reached)


def test_the_condition_of_idm_is_clean_half_of_the_time():
    """Fails when time and noise of a sample disagree, or the probability is another."""
    x = torch.randn(2000, 1, 1, 1, 1)
    many = Draws.of_step(0, 0, x.device, 0, len(x), len(x))
    condition = clean_or_noised(x, many, tiny_config())
    clean = condition.t == 0
    assert 0.46 < float(clean.float().mean()) < 0.54
    assert torch.equal(condition.x[clean], x[clean])
    t = condition.t[~clean].view(-1, 1, 1, 1, 1)
    assert torch.allclose(condition.x[~clean], x[~clean] + t * condition.target[~clean], atol=1e-5)
    assert 0.70 < float(t.mean()) < 0.80  # shifted towards noise


def test_imagined_futures_are_pictures_and_follow_from_the_seed():
    policy = policy_of("fast")
    encoder = encoder_of(policy)
    latents = (policy.imagine(query_of(policy), 1, 3, *seeded([seed])) for seed in (0, 0, 1))
    video, again, other = map(encoder.decode, latents)
    assert video.shape == (3, 3, 5, 32, 64) and video.abs().max() <= 1
    assert torch.equal(video, again) and not torch.equal(video, other)
    assert torch.equal(video[:, :, 0], other[:, :, 0])  # the present is given, not imagined


def test_a_policy_trained_without_video_refuses_to_imagine():
    policy = policy_of("no_video")
    with pytest.raises(BadInput, match="without video"):
        policy.imagine(query_of(policy), 1, 3, *seeded([0]))


def test_it_learns_to_repeat_a_batch():
    policy = policy_of("idm")
    batch, optimizer = batch_of(policy), torch.optim.AdamW(policy.parameters(), lr=3e-3)
    history = []
    for step in range(80):
        losses = policy(batch, draws(seed=step % 4))
        optimizer.zero_grad()
        sum(losses.values()).backward()
        optimizer.step()
        history.append({name: value.item() for name, value in losses.items()})
    for name in ("video", "action"):
        first, last = (sum(row[name] for row in part) for part in (history[:4], history[-4:]))
        assert last < 0.6 * first, name


@pytest.mark.parametrize(("name", "meant"), [("fats", "fast"), ("Joint", "joint"), ("no-video", "no_video")])
def test_an_unknown_variant(name, meant):
    with pytest.raises(BadInput, match=f"unknown Fast-WAM variant '{name}'; did you mean '{meant}'"):
        variant(name)


def test_a_chunk_takes_steps():
    with pytest.raises(BadInput, match=r"policy\.sample_steps: expected at least 1, got 0"):
        tiny_config(sample_steps=0)
