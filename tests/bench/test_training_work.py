"""What training asks of the device at full size, beside the official work, without doing any of it."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor
from wamkit_client.types import BadInput

from tests.policies import tiny_fast_wam, tiny_lawam
from tests.policies.tiny_policy import batch_of, draws, tiny_config, tiny_policy
from wamkit.bench.reference import fast_wam_training, lawam_training, light_wam_training
from wamkit.bench.training_work import Losses, TrainingWork, training_work
from wamkit.policies.light_wam.policy import FullTuning, LoRATuning
from wamkit.recipes import recipe
from wamkit.types import Batch

SAMPLES, GIB, GF = 16, 2**30, 1e9
OFFICIAL_GF = 4885  # of a sample, forward and backward


@pytest.fixture(scope="module")
def works() -> dict[str, TrainingWork]:
    """Of a batch of sixteen on RoboTwin, as on one GPU of the published run."""
    run = recipe("robotwin")
    run = replace(run, train=replace(run.train, batch_size=SAMPLES, accumulation=1))
    return {"ours": training_work(run), "official": training_work(run, light_wam_training.losses)}


@pytest.mark.scale
def test_a_sample_costs_at_most_4600_gf(works):
    assert works["ours"].flops / SAMPLES <= 4600 * GF
    assert works["official"].flops / SAMPLES == pytest.approx(OFFICIAL_GF * GF, rel=0.02)


@pytest.mark.scale
def test_at_most_24_gib_are_kept(works):
    assert works["ours"].kept <= 24 * GIB
    assert works["official"].kept > 2 * works["ours"].kept


@pytest.mark.parametrize("tuning", [FullTuning(), LoRATuning(rank=2)], ids=["full", "lora"])
def test_losses_and_gradients_of_light_wam_are_those_of_the_official_work(tuning):
    policy = tiny_policy(tiny_config(tuning, video_pool=2)).double()
    expect_equal(policy, batch_of(policy), light_wam_training.losses)


@pytest.mark.parametrize("variant", fast_wam_training.SEQUENCES)
def test_losses_and_gradients_of_fast_wam_are_those_of_the_official_work(variant):
    policy = tiny_fast_wam.tiny_policy(tiny_fast_wam.tiny_config(variant=variant)).double()
    expect_equal(policy, batch_of(policy), fast_wam_training.losses)


@pytest.mark.parametrize("variant", ["no_video", "optional_idm"])
def test_a_variant_without_a_published_recipe_has_no_twin(variant):
    policy = tiny_fast_wam.tiny_policy(tiny_fast_wam.tiny_config(variant=variant))
    with pytest.raises(BadInput, match="there is no twin"):
        fast_wam_training.losses(policy, batch_of(policy), draws())


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"stop_subgoal_grad": False, "repeats": 3},
        {"stop_latent_context_grad": True, "subgoal": "shuffled"},
        {"subgoal": "none", "distill_weight": 0.0},
    ],
    ids=["published", "open subgoal", "shuffled", "none"],
)
def test_losses_and_gradients_of_lawam_are_those_of_the_official_work(changes: dict[str, Any]) -> None:
    """Prompts of different lengths; the expert may have more tokens than the chunk has actions."""
    policy = tiny_lawam.tiny_lawam(**changes)
    expect_equal(policy, tiny_lawam.batch(3), lawam_training.losses)


def expect_equal(policy: torch.nn.Module, batch: Batch, official: Losses) -> None:
    """Losses, and gradients of their sum."""
    rows = len(batch.ids)
    ours = gradients(policy, dict(policy(batch, draws(rows))))
    theirs = gradients(policy, dict(official(policy, batch, draws(rows))))
    assert ours.keys() == theirs.keys()
    for name, gradient in theirs.items():
        assert (ours[name] - gradient).norm() <= 1e-4 * gradient.norm() + 1e-9, name


def gradients(policy: torch.nn.Module, losses: dict[str, Tensor]) -> dict[str, Tensor]:
    """Of the sum of the losses, by parameter; the losses themselves by theirs."""
    policy.zero_grad()
    torch.stack(list(losses.values())).sum().backward()
    found = {name: p.grad.clone() for name, p in policy.named_parameters() if p.grad is not None}
    return found | {f"loss/{name}": loss.detach() for name, loss in losses.items()}
