"""Options of small Fast-WAMs, what either network predicts and the skip: every short cut gives what the long way gives,
and a future's copy is embedded as the future is."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from tests.policies.plain_fast_wam import sample_by_looking
from tests.policies.tiny_fast_wam import tiny_config, tiny_policy
from tests.policies.tiny_policy import batch_of, draws, encoder_of, query_of, seeded
from wamkit.bench.reference import fast_wam_training
from wamkit.policies.fast_wam.fused import NEEDS, FusedSampler
from wamkit.policies.fast_wam.policy import FastWAM
from wamkit.policies.fast_wam.sampling import Noise, Sample, imagine, sample

SKIPPING = replace(tiny_config().size, present_skip=True)
OPTIONS = {
    "clean": {"video_predicts": "clean"},
    "clean_actions": {"action_predicts": "clean"},
    "skip": {"size": SKIPPING},
}
TOGETHER = {name: value for options in OPTIONS.values() for name, value in options.items()}
PUBLISHED = {
    "video_predicts": "velocity",
    "action_predicts": "velocity",
    "size": replace(SKIPPING, present_skip=False),
}
IMAGINING = ("joint", "idm", "optional_idm")
CO_TRAINED = ("fast", *IMAGINING)


def policy_of(variant: str, **changes: object) -> FastWAM:
    return tiny_policy(tiny_config(variant=variant, **changes))


def asked(policy: FastWAM, frames: int = 2) -> tuple[torch.Tensor, torch.Tensor, Noise]:
    """Present, context, noise; more than one latent frame, so that each could take over another's tokens."""
    query = query_of(policy, 2, seeded(range(2)))
    present, context = query.inputs["present"], policy.context(query.inputs, query.embodiment).detach()
    noise = policy.draw_noise(present, query.generators)
    video = torch.randn(*present.shape[:2], frames, *present.shape[3:], generator=seeded([7])[0])
    return present, context, replace(noise, video=video)


def assert_close(ours: Sample, other: Sample) -> None:
    for mine, twin in ((ours.action, other.action), (ours.future, other.future)):
        assert (mine - twin).abs().max() <= 1e-5 * twin.abs().max()


@pytest.mark.parametrize("option", OPTIONS)
@pytest.mark.parametrize("variant", IMAGINING)
def test_short_cuts_imagine_and_act_as_the_whole_sequence_does(variant: str, option: str) -> None:
    """Fails where a sampler forgets the present's tokens, or takes clean latents for a velocity."""
    policy = policy_of(variant, **OPTIONS[option])
    present, context, noise = asked(policy)
    with torch.no_grad():
        plain = sample(policy, present, context, noise, 3)
    assert_close(plain, sample_by_looking(policy, present, context, noise, 3))
    assert_close(FusedSampler(policy, 3).sample(present, context, noise), plain)
    without = tiny_policy(replace(policy.config, **PUBLISHED))
    without.load_state_dict(policy.state_dict(), strict=False)
    with torch.no_grad():
        before = sample(without, present, context, noise, 3)
    assert (before.action - plain.action).abs().max() > 1e-3


@pytest.mark.parametrize("variant", CO_TRAINED)
def test_every_pass_acts_as_the_plain_policy(variant: str) -> None:
    policy = policy_of(variant, **TOGETHER).eval()
    plain = policy.act(query_of(policy, 2, seeded(range(2))))
    query = replace(query_of(policy, 2, seeded(range(2))), instructions=("push", "pull"))
    found = policy.actor(tuple(NEEDS))(query)
    assert torch.allclose(found, plain, rtol=0, atol=1e-5 * plain.abs().max().item())


def test_a_chunk_that_looks_at_no_future_is_that_of_a_policy_without() -> None:
    plain, other = policy_of("fast"), policy_of("fast", **{**TOGETHER, "action_predicts": "velocity"})
    other.load_state_dict(plain.state_dict(), strict=False)
    chunks = [policy.act(query_of(policy, 2, seeded(range(2)))) for policy in (plain, other)]
    assert torch.equal(*chunks)


@pytest.mark.parametrize("variant", CO_TRAINED)
def test_all_of_it_is_trained(variant: str) -> None:
    policy = policy_of(variant, **TOGETHER)
    batch = batch_of(policy)
    noised = policy.add_noise(batch, draws())
    assert torch.equal(noised["future"].target, batch.inputs["future"])
    unit = policy.normalizer.to_unit("action", batch.actions, batch.embodiment)
    assert torch.equal(noised["action"].target, unit)
    losses = policy(batch, draws())
    losses["video"].backward()
    assert policy.dit.skip.linear.weight.grad.abs().max() > 0
    assert all(loss.isfinite() for loss in losses.values())


@pytest.mark.parametrize("variant", ["fast", "joint", "idm"])
def test_the_official_work_gives_its_losses(variant: str) -> None:
    """Fails where the second copy of the present, of which only the twin has one, takes over the first."""
    policy = policy_of(variant, **TOGETHER)
    batch = batch_of(policy)
    ours = policy(batch, draws())
    for name, twin in fast_wam_training.losses(policy, batch, draws()).items():
        torch.testing.assert_close(twin, ours[name], rtol=1e-5, atol=1e-6)


def test_one_step_from_noise_is_what_the_network_says() -> None:
    """Of a world model that predicts clean latents: nothing of the noise is left."""
    policy = policy_of("idm", video_predicts="clean")
    torch.nn.init.zeros_(policy.dit.head.head.weight)
    torch.nn.init.ones_(policy.dit.head.head.bias)
    present, context, noise = asked(policy)
    with torch.no_grad():
        future = imagine(policy, present, context, noise.video, 1)
    torch.testing.assert_close(future, torch.ones_like(future), atol=1e-5, rtol=0)
    query = replace(query_of(policy, 2), generators=seeded(range(2)))
    assert policy.foresee(query, encoder_of(policy)).later.isfinite().all()


@pytest.mark.parametrize("passes", [(), tuple(NEEDS)])
def test_one_step_of_clean_actions_is_what_the_network_says(passes: tuple[str, ...]) -> None:
    """Nothing of the noise is left, with every pass."""
    policy = policy_of("fast", action_predicts="clean", sample_steps=1)
    torch.nn.init.zeros_(policy.action.head.weight)
    torch.nn.init.constant_(policy.action.head.bias, 0.25)
    query = replace(query_of(policy, 2, seeded(range(2))), instructions=("push", "pull"))
    found = policy.actor(passes)(query)
    said = policy.normalizer.to_physical("action", torch.full_like(found, 0.25), query.embodiment)
    torch.testing.assert_close(found, said, atol=1e-5, rtol=0)
