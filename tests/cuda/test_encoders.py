"""Encoders for acting on a CUDA device: one frame as on the processor, images in one copy, nothing waited for."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from tests.data.test_device_canvas import LIBERO, ROBOTWIN, views
from tests.policies.tiny_policy import SPEC, clip
from tests.wan.test_still import drawn, expected, frames, relative
from wamkit.data.canvas import tile
from wamkit.data.device_canvas import DeviceCanvas, carried
from wamkit.policies.wan_encoder import WanEncoder
from wamkit.types import DataSpec, Preprocessing, encode
from wamkit.wan.text import HashedText
from wamkit.wan.vae import WAN21, WAN22, VAESize

CPU = torch.device("cpu")


@pytest.mark.parametrize("size", [WAN21, WAN22], ids=["2.1", "2.2"])
@pytest.mark.parametrize(("dtype", "bound"), [(torch.float32, 1e-5), (torch.bfloat16, 0.05)])
@torch.inference_mode()
def test_one_frame(size: VAESize, dtype: torch.dtype, bound: float, cuda: torch.device) -> None:
    vae, images = drawn(replace(size, width=32)), frames(64, 96)
    true = expected(vae, images)
    found = vae.still().to(cuda, dtype)(images.to(cuda))
    assert found.dtype == dtype and relative(found.float().cpu(), true) < bound


@pytest.mark.parametrize("spec", [LIBERO, ROBOTWIN], ids=["libero", "robotwin"])
@pytest.mark.parametrize(("way", "error"), [("training", 1e-5), ("published", 0)])
def test_the_canvas(spec: DataSpec, way: Preprocessing, error: float, cuda: torch.device) -> None:
    """By matrices, against the processor's resizes."""
    given = views(spec, 480, 640)
    canvas = DeviceCanvas(spec, way)(carried(given, cuda))
    assert canvas.is_cuda and canvas.is_contiguous(memory_format=torch.channels_last)
    torch.testing.assert_close(canvas.cpu(), tile(given, spec, way)[:, :, 0], rtol=0, atol=error)


def test_images_arrive_as_they_are(cuda: torch.device) -> None:
    given = views(ROBOTWIN, 48, 64)
    there = carried(given, cuda)
    assert all(torch.equal(there[view].cpu(), given[view]) for view in given)
    assert all(carried(there, cuda)[view] is there[view] for view in given)


def test_encoding_waits_for_nothing(cuda: torch.device) -> None:
    encoder = WanEncoder(drawn(replace(WAN21, width=8)), HashedText(8, 6), SPEC)
    plain = encode(encoder, clip(2, frames=1))["present"]
    acting = encoder.to(cuda).acting(encoder.passes)
    encode(acting, clip(2, frames=1))
    torch.cuda.set_sync_debug_mode("error")
    try:
        found: Tensor = encode(acting, clip(2, frames=1))["present"]
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert relative(found.cpu(), plain) < 1e-5
