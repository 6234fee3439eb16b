"""What training asks of the device at full size, beside the official work, without doing any of it."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from tests.policies.tiny_policy import batch_of, draws, tiny_config, tiny_policy
from wamkit.bench.reference import light_wam_training
from wamkit.bench.training_work import TrainingWork, training_work
from wamkit.policies.light_wam.policy import FullTuning, LoRATuning
from wamkit.recipes import recipe

SAMPLES, GIB, GF = 16, 2**30, 1e9
OFFICIAL_GF = 4885  # of a sample, forward and backward


@pytest.fixture(scope="module")
def works() -> dict[str, TrainingWork]:
    """Of a batch of sixteen on RoboTwin, as on one GPU of the published run."""
    run = recipe("robotwin")
    run = replace(run, train=replace(run.train, batch_size=SAMPLES, accumulation=1))
    return {"ours": training_work(run), "official": training_work(run, light_wam_training.losses)}


def test_a_sample_costs_at_most_4600_gf(works):
    assert works["ours"].flops / SAMPLES <= 4600 * GF
    assert works["official"].flops / SAMPLES == pytest.approx(OFFICIAL_GF * GF, rel=0.02)


def test_at_most_24_gib_are_kept(works):
    assert works["ours"].kept <= 24 * GIB
    assert works["official"].kept > 2 * works["ours"].kept


@pytest.mark.parametrize("tuning", [FullTuning(), LoRATuning(rank=2)], ids=["full", "lora"])
def test_losses_and_gradients_are_those_of_the_official_work(tuning):
    policy = tiny_policy(tiny_config(tuning, video_pool=2)).double()
    batch = batch_of(policy)
    ours = gradients(policy, dict(policy(batch, draws())))
    official = gradients(policy, dict(light_wam_training.losses(policy, batch, draws())))
    for name, gradient in official.items():
        assert (ours[name] - gradient).norm() <= 1e-4 * gradient.norm() + 1e-9, name


def gradients(policy: torch.nn.Module, losses: dict[str, Tensor]) -> dict[str, Tensor]:
    """Of the sum of the losses, by parameter; the losses themselves by theirs."""
    policy.zero_grad()
    torch.stack(list(losses.values())).sum().backward()
    found = {name: p.grad.clone() for name, p in policy.named_parameters() if p.grad is not None}
    return found | {f"loss/{name}": loss.detach() for name, loss in losses.items()}
