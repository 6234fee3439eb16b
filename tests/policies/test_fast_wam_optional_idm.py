"""Optional-IDM: one set of weights, trained as IDM and as Fast-WAM by turns, acting as the one or the other."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from wamkit_client.types import BadInput

from tests.policies.test_fast_wam_fused import assert_same
from tests.policies.tiny_fast_wam import tiny_config, tiny_policy
from tests.policies.tiny_policy import batch_of, draws, query_of, seeded
from wamkit.config import inference_overrides
from wamkit.policies.fast_wam.fused import FusedSampler
from wamkit.policies.fast_wam.sampling import sample
from wamkit.recipes import recipe

MODES = {"idm": "idm", "first_frame": "fast", "": "idm"}
ROWS = 3


def policy_of(**changes):
    return tiny_policy(tiny_config(**changes))


def learned(policy, batch):
    """Losses and gradients of one step."""
    losses = policy(batch, draws(ROWS, seed=3))
    sum(losses.values()).backward()
    return losses, {name: p.grad for name, p in policy.named_parameters() if p.grad is not None}


@pytest.mark.parametrize(("mode", "row"), MODES.items())
def test_a_mode_acts_as_its_row(mode, row):
    optional, other = policy_of(variant="optional_idm", mode=mode), policy_of(variant=row)
    for passes in ((), optional.passes):
        a, b = (p.actor(passes)(query_of(other, ROWS, seeded(range(ROWS)))) for p in (optional, other))
        assert torch.equal(a, b), way


@pytest.mark.parametrize("mode", ["idm", "first_frame"])
def test_the_fused_sampler_gives_the_plain_ones_chunk(mode):
    policy = policy_of(variant="optional_idm", mode=mode)
    query = query_of(policy, ROWS, seeded(range(ROWS)))
    present = query.inputs["present"]
    with torch.no_grad():
        context = policy.context(query.inputs, query.embodiment)
        noise = policy.draw_noise(present, query.generators)
        plain = sample(policy, present, context, noise, 4)
        assert_same(FusedSampler(policy, 4).sample(present, context, noise), plain)


@pytest.mark.parametrize(("share", "row"), [(1.0, "idm"), (0.0, "fast")])
def test_a_share_of_all_or_none_trains_as_one_row(share, row):
    """Fails when the condition is seen by samples that must not see it, or kept from those that must."""
    optional, other = policy_of(variant="optional_idm", idm_share=share), policy_of(variant=row)
    batch = batch_of(other, ROWS)
    (losses, grads), (expected, expected_grads) = learned(optional, batch), learned(other, batch)
    for name, loss in expected.items():
        torch.testing.assert_close(losses[name], loss)
    assert grads.keys() == expected_grads.keys()
    for name, grad in expected_grads.items():
        torch.testing.assert_close(grads[name], grad, atol=1e-6, rtol=1e-5)


def test_half_of_the_samples_are_of_each_row():
    """The loss of a mixed batch is the mean over its samples, each as the row that was drawn for it."""
    policies = {name: policy_of(variant=name) for name in ("optional_idm", "idm", "fast")}
    batch = batch_of(policies["fast"], 8)
    drawn = draws(8, seed=5)
    noised = policies["optional_idm"].add_noise(batch, drawn)
    as_idm = drawn.uniform(torch.device("cpu")) < 0.5
    assert 0 < as_idm.sum() < 8
    expected = 0.0
    for i, whole in enumerate(as_idm):
        row = torch.tensor([i])
        policy, one = policies["idm" if whole else "fast"], batch.rows([i])
        context = policy.context(one.inputs, one.embodiment)
        losses = policy.losses({group: x.rows(row) for group, x in noised.items()}, context, one)
        expected += losses["action"] / 8
    found = policies["optional_idm"](batch, draws(8, seed=5))
    torch.testing.assert_close(found["action"], expected)


def test_a_mode_that_a_policy_has_not_is_refused():
    with pytest.raises(
        BadInput, match=r"Fast-WAM has no mode 'idm'; .*Fast-WAM-Optional-IDM has idm, first_frame"
    ):
        tiny_config(mode="idm")
    with pytest.raises(BadInput, match="Fast-WAM-Optional-IDM has no mode 'fast'; it has idm, first_frame"):
        tiny_config(variant="optional_idm", mode="fast")
    with pytest.raises(BadInput, match=r"idm_share: expected a number from 0 to 1, got 1\.5"):
        tiny_config(variant="optional_idm", idm_share=1.5)


def test_the_mode_is_asked_of_a_trained_policy_and_told_in_its_results():
    trained = recipe("metaworld3_fast_wam_optional_idm")
    asked = replace(trained, policy=replace(trained.policy, mode="first_frame"))
    assert inference_overrides(trained, asked) == ["policy.mode:  -> first_frame"]
    assert asked.policy.identity["mode"] == "first_frame"
    assert "mode" not in recipe("metaworld3_fast_wam").policy.identity
    blind = recipe("metaworld3_fast_wam_no_video")
    imagining = replace(blind, policy=replace(blind.policy, variant="optional_idm"))
    with pytest.raises(BadInput, match="trained without video"):
        inference_overrides(blind, imagining)
