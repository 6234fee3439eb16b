"""Options that small Light-WAMs imagine better with: what the video model predicts, its skip, its gates."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn

from tests.policies.tiny_policy import (
    batch_of,
    draws,
    encoder_of,
    query_of,
    shaken,
    tiny_config,
    tiny_policy,
)
from wamkit.flow import PREDICTIONS
from wamkit.policies.light_wam.fused import NEEDS
from wamkit.policies.light_wam.policy import FullTuning, LightWAM, LoRATuning, NoisyClip

PRESENT_SKIP = replace(tiny_config().size, present_skip=True)
OPTIONS = {
    "clean": {"video_predicts": "clean"},
    "skip": {"size": PRESENT_SKIP},
    "gates": {"tuning": FullTuning(open_gates=True)},
}
TOGETHER = {name: value for options in OPTIONS.values() for name, value in options.items()}


def as_velocity(policy: LightWAM) -> None:
    """Let its video model say clean latents, by the velocity that it would say."""
    said = policy.predict

    def clean(clip: NoisyClip, context: Tensor) -> Tensor:
        return clip.latents[:, :, 1:] - clip.t[:, None, None, None, None] * said(clip, context)

    policy.predict = clean  # type: ignore[method-assign]


@pytest.mark.parametrize("steps", [1, 2, 10])
def test_both_predictions_of_one_velocity_give_one_sample(steps: int):
    futures = []
    for predicts in PREDICTIONS:
        policy = tiny_policy(tiny_config(video_predicts=predicts))
        if predicts == "clean":
            as_velocity(policy)
        futures.append(policy.imagine(query_of(policy), 2, steps, torch.Generator().manual_seed(1)))
    assert torch.allclose(*futures, atol=1e-5)


def test_one_step_of_clean_latents_is_what_was_said():
    policy = tiny_policy(tiny_config(video_predicts="clean"))
    query = query_of(policy)
    present, context = query.inputs["present"], policy.context(query.inputs, query.embodiment)
    generator = torch.Generator().manual_seed(1)
    noise = torch.randn(present.shape, generator=torch.Generator().manual_seed(1))
    clip = NoisyClip(torch.cat([present, noise], dim=2), noise, torch.ones(len(present)))
    with torch.no_grad():
        said = policy.predict(clip, context)
    assert torch.allclose(policy.imagine(query, 1, 1, generator)[:, :, 1:], said, atol=1e-5)


def test_a_policy_that_predicts_clean_latents_is_trained_on_them():
    clip = (policy := tiny_policy(tiny_config(video_predicts="clean"))).draw_noise(
        batch_of(policy).inputs, draws()
    )
    assert torch.equal(clip.target, batch_of(policy).inputs["future"])


@pytest.mark.parametrize("objective", ["cotrain", "cotrain_one_pass"])
def test_all_of_it_is_trained_together(objective: str):
    policy = tiny_policy(tiny_config(objective=objective, **TOGETHER))
    found = policy(batch_of(policy), draws())
    found["video"].backward()
    assert policy.dit.skip.linear.weight.grad.abs().max() > 0
    assert all(loss.isfinite() for loss in found.values())


def test_one_pass_gives_the_losses_of_two_with_a_skip():
    found = [
        tiny_policy(tiny_config(objective=objective, **TOGETHER))
        for objective in ("cotrain", "cotrain_one_pass")
    ]
    two, one = (policy(batch_of(policy), draws()) for policy in found)
    assert all(torch.allclose(two[name], one[name], atol=1e-5) for name in two)


def test_gates_are_opened_where_training_begins():
    rows = {}
    for gates in (False, True):
        policy = tiny_policy(tiny_config(FullTuning(open_gates=gates)))
        policy.initialize()
        rows[gates] = torch.stack([block.modulation for block in policy.dit.blocks])
    opened = torch.zeros(6, 1).index_fill(0, torch.tensor([2, 5]), 1.0)
    assert torch.allclose(rows[True] - rows[False], opened.expand_as(rows[True]), atol=1e-6)


@pytest.mark.parametrize("option", OPTIONS)
def test_acting_is_that_of_a_policy_without(option: str):
    """Nothing of the future touches a chunk, however it is imagined."""
    plain, other = tiny_policy(tiny_config()), tiny_policy(tiny_config(**OPTIONS[option]))
    other.load_state_dict(plain.state_dict(), strict=False)
    assert torch.equal(other.act(query_of(other)), plain.act(query_of(plain)))


@pytest.mark.parametrize("tuning", [FullTuning(), LoRATuning(rank=3, alpha=6.0)], ids=lambda own: own.kind)
def test_passes_and_foresight_agree_with_the_plain_policy(tuning: FullTuning | LoRATuning):
    policy = tiny_policy(tiny_config(**{**TOGETHER, "tuning": tuning}))
    query = query_of(policy)
    chunk = policy.act(query)
    assert (policy.actor(tuple(NEEDS))(query) - chunk).abs().max() <= 1e-5 * chunk.abs().max()
    seen = replace(query, generators=[torch.Generator().manual_seed(row) for row in range(len(chunk))])
    foresight = policy.foresee(seen, encoder_of(policy))
    assert foresight.later.isfinite().all()


def test_the_skip_changes_what_is_imagined():
    policy = shaken(tiny_policy(tiny_config(**TOGETHER)))
    imagined = [policy.imagine(query_of(policy), 1, 2, torch.Generator().manual_seed(1))]
    nn.init.zeros_(policy.dit.skip.linear.weight)
    nn.init.zeros_(policy.dit.skip.linear.bias)
    imagined.append(policy.imagine(query_of(policy), 1, 2, torch.Generator().manual_seed(1)))
    now, later = (x for x in (imagined[0] - imagined[1]).abs().split(1, dim=2))
    assert now.max() == 0 and later.max() > 1e-4
