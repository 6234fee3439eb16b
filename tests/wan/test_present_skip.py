"""Tokens of later frames may begin with the present's; released networks know nothing of it."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from wamkit.nn.attention import FIRST_FRAME_CAUSAL
from wamkit.wan.dit import NO_ADAPTERS, PRESENT, SIZES, Frames, NoSkip, PresentSkip, WanDiT, WanSize

PLAIN = WanSize(width=24, ffn=40, heads=2, head_dim=12, layers=2, channels=4, text_dim=10, time_dim=16)
SKIPPING = replace(PLAIN, present_skip=True)
GROUPS = (PRESENT, Frames("future", 1, 2))
LATENTS, CONTEXT, TIMES = torch.randn(2, 4, 3, 4, 6), torch.randn(2, 3, 10), torch.tensor([[0.0, 0.7]])


def network(size: WanSize) -> WanDiT:
    torch.manual_seed(0)
    return WanDiT(size, NO_ADAPTERS)


def trained() -> WanDiT:
    dit = network(SKIPPING)
    torch.nn.init.normal_(dit.skip.linear.weight)
    torch.nn.init.normal_(dit.skip.linear.bias)
    return dit


def predicted(dit: WanDiT) -> Tensor:
    found: Tensor = dit(LATENTS, TIMES, CONTEXT, GROUPS, FIRST_FRAME_CAUSAL).predicted
    return found


def test_released_networks_have_no_weights_for_it():
    for name in ("1.3B", "5B"):
        with torch.device("meta"):
            dit = WanDiT(SIZES[name], NO_ADAPTERS)
        assert isinstance(dit.skip, NoSkip)
        assert not [key for key in dit.state_dict() if "skip" in key]


def test_before_training_it_adds_nothing():
    with_skip, without = network(SKIPPING), network(PLAIN)
    with_skip.load_state_dict(without.state_dict(), strict=False)
    assert torch.equal(predicted(with_skip), predicted(without))


def test_later_tokens_begin_with_a_map_of_the_present_at_the_same_place():
    dit = trained()
    tokens = dit.embed(LATENTS, TIMES, CONTEXT, GROUPS).tokens.unflatten(1, (3, -1))  # b frame place d
    bare = dit.tokens(LATENTS).unflatten(1, (3, -1))
    assert torch.equal(tokens[:, 0], bare[:, 0])
    mapped = dit.skip.linear(bare[:, 0])
    for frame in (1, 2):
        assert torch.allclose(tokens[:, frame], bare[:, frame] + mapped, atol=1e-6)


def test_later_frames_alone_are_embedded_as_beside_the_present():
    dit = trained()
    beside = dit.embed(LATENTS, TIMES, CONTEXT, GROUPS).tokens
    now = dit.tokens(LATENTS[:, :, :1])
    alone = dit.embed(LATENTS[:, :, 1:], TIMES[:, 1:], CONTEXT, GROUPS[1:], present=now).tokens
    assert torch.allclose(alone, beside[:, now.shape[1] :], atol=1e-6)


def test_the_present_by_itself_is_as_without():
    dit = trained()
    only = dit.embed(LATENTS[:, :, :1], TIMES[:, :1], CONTEXT, (PRESENT,)).tokens
    assert torch.equal(only, dit.tokens(LATENTS[:, :, :1]))


@pytest.mark.parametrize("part", ["weight", "bias"])
def test_it_is_trained(part: str):
    dit = trained()
    predicted(dit).square().mean().backward()
    assert isinstance(dit.skip, PresentSkip)
    assert getattr(dit.skip.linear, part).grad.abs().max() > 0
