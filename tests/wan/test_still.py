"""The encoder for one frame: equal to the module it is made of, in every precision, at a third of its work."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from wamkit.bench.counting import Operations
from wamkit.wan.still import StillVAE
from wamkit.wan.vae import WAN21, WAN22, VAESize, WanVAE

SIZES = {"2.1": WAN21, "2.2": WAN22}
CANVAS = (1, 3, 384, 320)


def drawn(size: VAESize, dtype: torch.dtype = torch.float32) -> WanVAE:
    """With an encoder of random weights that keep the scale of what passes, and nothing in the decoder."""
    with torch.device("meta"):
        vae = WanVAE(size)
    del vae.module.decoder
    vae.module.to_empty(device="cpu")
    generator = torch.Generator().manual_seed(0)
    for parameter in vae.parameters():
        gains = parameter.shape[1:].numel() == 1 and parameter.ndim > 1
        spread = 0.3 if gains or parameter.ndim == 1 else parameter[0].numel() ** -0.5
        parameter.copy_(spread * torch.randn(parameter.shape, generator=generator) + float(gains))
    return vae.to(dtype).requires_grad_(False)


def frames(height: int, width: int, dtype: torch.dtype = torch.float32, count: int = 2) -> Tensor:
    generator = torch.Generator().manual_seed(1)
    return torch.rand(count, 3, height, width, generator=generator).to(dtype) * 2 - 1


def expected(vae: WanVAE, images: Tensor) -> Tensor:
    return vae.encode(images[:, :, None])[:, :, 0]


def relative(got: Tensor, true: Tensor) -> float:
    return float((got - true).abs().max() / true.abs().max())


@pytest.mark.parametrize("size", SIZES)
@torch.inference_mode()
def test_it_is_the_same_function(size: str) -> None:
    vae, images = drawn(replace(SIZES[size], width=8), torch.float64), frames(32, 48, torch.float64)
    assert relative(vae.still()(images), expected(vae, images)) < 1e-12
    assert relative(vae.float().still()(images.float()), expected(vae, images.float())) < 1e-5


@pytest.mark.parametrize("size", SIZES)
@torch.inference_mode()
def test_full_width(size: str) -> None:
    vae, images = drawn(SIZES[size]), frames(32, 32, count=1)
    assert relative(vae.still()(images), expected(vae, images)) < 1e-5


@pytest.mark.parametrize("size", SIZES)
@torch.inference_mode()
def test_rounding_costs_no_more_than_the_modules_own(size: str) -> None:
    """In bfloat16, against the same weights in float64."""
    vae, images = drawn(replace(SIZES[size], width=16), torch.bfloat16), frames(64, 48)
    half, still = expected(vae, images), vae.still()(images)
    assert still.dtype == torch.bfloat16
    true = expected(vae.double(), images.bfloat16().double())
    errors = [float((found.double() - true).square().mean().sqrt()) for found in (half, still)]
    assert 0 < errors[1] < 1.2 * errors[0]


def test_an_image_without_colour_has_latents() -> None:
    vae = drawn(replace(WAN21, width=8))
    for parameter in vae.parameters():
        if parameter.ndim == 1:
            parameter.zero_()
    black = torch.zeros(1, 3, 16, 16)
    assert relative(vae.still()(black), expected(vae, black)) < 1e-5


@pytest.mark.parametrize(
    ("size", "parameters", "gigaflop", "operations"),
    [("2.1", 19_103_056, 290.8, 70), ("2.2", 53_186_928, 199.4, 77)],
)
@torch.inference_mode()
def test_what_it_costs(size: str, parameters: int, gigaflop: float, operations: int) -> None:
    with torch.device("meta"):
        vae = WanVAE(SIZES[size])
    still, canvas = vae.still(), torch.empty(CANVAS, device="meta")
    assert sum(p.numel() for p in still.parameters()) == parameters
    with FlopCounterMode(display=False) as work:
        still(canvas)
    assert work.get_total_flops() < gigaflop * 1e9
    with Operations() as done:
        still(canvas)
    assert done.total() <= operations


def test_convolutions_are_of_images_and_share_nothing() -> None:
    vae = drawn(replace(WAN22, width=8))
    still = vae.still()
    assert not [layer for layer in still.modules() if isinstance(layer, nn.Conv3d)]
    own = {p.untyped_storage().data_ptr() for p in still.parameters()}
    assert own.isdisjoint(p.untyped_storage().data_ptr() for p in vae.parameters())
    convolutions = [layer.weight for layer in still.modules() if isinstance(layer, nn.Conv2d)]
    assert all(weight.is_contiguous(memory_format=torch.channels_last) for weight in convolutions)
    assert isinstance(still, StillVAE) and not any(p.requires_grad for p in still.parameters())
