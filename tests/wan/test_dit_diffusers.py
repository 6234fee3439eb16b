"""WanDiT is the published network: same outputs as diffusers' WanTransformer3DModel with the same random weights."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from wamkit.wan.checkpoint import original_names
from wamkit.wan.dit import Adapters, Frames, WanDiT, WanSize

SIZE = WanSize(width=64, ffn=112, heads=2, head_dim=32, layers=3, channels=4, text_dim=40, time_dim=32)
# diffusers takes cos and sin of t * frequency in float32, the original code and ours in float64: at t near 1000
# that alone is 4e-6 of the output (in float64 arithmetic too); at small t it vanishes.
SMALL, LARGE = ([0.5, 8.0], 1e-6), ([250.0, 875.0], 1e-5)

# every frame sees every other, as in plain Wan
ALL = (("clip", ("clip",)),)
BOTH = (("present", ("present", "future")), ("future", ("present", "future")))


@pytest.fixture(scope="module")
def theirs() -> nn.Module:
    # seconds, for which the other workers of the suite need not wait
    from diffusers.models.transformers.transformer_wan import WanTransformer3DModel

    torch.manual_seed(3)
    model = WanTransformer3DModel(
        patch_size=(1, 2, 2),
        num_attention_heads=SIZE.heads,
        attention_head_dim=SIZE.head_dim,
        in_channels=SIZE.channels,
        out_channels=SIZE.channels,
        text_dim=SIZE.text_dim,
        freq_dim=SIZE.time_dim,
        ffn_dim=SIZE.ffn,
        num_layers=SIZE.layers,
        rope_max_seq_len=32,
    )
    with torch.no_grad():  # nothing stays at zero or one
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    return model.eval()


@pytest.fixture(scope="module")
def ours(theirs) -> WanDiT:
    dit = WanDiT(SIZE, Adapters(layers=(), dim=4))
    dit.load_state_dict(original_names(theirs.state_dict(), "diffusers"))
    return dit.eval()


def inputs(frames: int, height: int, width: int) -> tuple[torch.Tensor, torch.Tensor]:
    return torch.randn(2, SIZE.channels, frames, height, width), torch.randn(2, 7, SIZE.text_dim)


def relative(got: torch.Tensor, expected: torch.Tensor) -> float:
    return ((got - expected).abs().max() / expected.abs().max()).item()


@pytest.mark.parametrize("shape", [(3, 8, 6), (1, 4, 10), (5, 2, 2)])
@pytest.mark.parametrize(("times", "tolerance"), [SMALL, LARGE])
@torch.no_grad()
def test_plain_forward(ours, theirs, shape, times, tolerance):
    latents, context = inputs(*shape)
    t = torch.tensor(times)
    expected = theirs(latents, t, context, return_dict=False)[0]
    got = ours(latents, t[:, None] / 1000, context, (Frames("clip", 0, shape[0]),), ALL).predicted
    assert got.shape == latents.shape
    assert relative(got, expected) < tolerance


@pytest.mark.parametrize(("times", "tolerance"), [SMALL, LARGE])
@torch.no_grad()
def test_first_frame_at_a_time_of_its_own(ours, theirs, times, tolerance):
    latents, context = inputs(3, 4, 6)
    tokens = 2 * 3
    t = torch.tensor(times)
    per_token = torch.cat([torch.zeros(2, tokens), t[:, None].expand(-1, 2 * tokens)], dim=1)
    expected = theirs(latents, per_token, context, return_dict=False)[0]
    groups = (Frames("present", 0, 1), Frames("future", 1, 2))
    got = ours(latents, torch.stack([torch.zeros(2), t / 1000], dim=1), context, groups, BOTH).predicted
    assert relative(got, expected) < tolerance


def test_gradients_of_a_plain_forward(ours, theirs):
    latents, context = inputs(2, 4, 4)
    t = torch.tensor([1.0, 4.0])
    theirs(latents, t, context, return_dict=False)[0].square().mean().backward()
    ours(
        latents, t[:, None] / 1000, context, (Frames("clip", 0, 2),), ALL
    ).predicted.square().mean().backward()
    expected = original_names({name: p.grad for name, p in theirs.named_parameters()}, "gradients")
    for name, parameter in ours.named_parameters():
        # K biases cannot matter to a softmax before its norm; compare on the scale of the largest gradient.
        error = (parameter.grad - expected[name]).abs().max() / max(expected[name].abs().max(), 1e-4)
        assert error < 2e-5, name
