"""Canvases against the published definitions, spelled out once more with plain resizes and concatenations."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from wamkit_client.types import BadInput

from wamkit.data.canvas import canvas_size, tile, view_boxes
from wamkit.policies.wan_encoder import WanEncoder
from wamkit.types import DataSpec
from wamkit.wan.codec import BlockCodec
from wamkit.wan.text import HashedText

LIBERO = DataSpec(
    views=("image", "wrist_image"),
    canvas="horizontal",
    view_height=224,
    view_width=224,
    hz=20,
    frame_times=(0.0, 0.2),
    chunk_seconds=1.6,
    proprio_dim=8,
    action_dim=7,
)
ROBOTWIN = replace(
    LIBERO,
    views=("cam_high", "cam_left_wrist", "cam_right_wrist"),
    canvas="robotwin",
    view_height=240,
    view_width=320,
)


def views(spec: DataSpec, height: int, width: int) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(0)
    shape = (2, 2, height, width, 3)
    return {v: torch.randint(0, 256, shape, dtype=torch.uint8, generator=generator) for v in spec.views}


def resized(view: Tensor, *sizes: tuple[int, int]) -> Tensor:
    """[b, t, h, w, 3] -> [b, 3, t, H, W] in 0..1 after the resizes."""
    pixels = view.flatten(0, 1).permute(0, 3, 1, 2).float() / 255
    for size in sizes:
        pixels = F.interpolate(pixels, size, mode="bilinear", align_corners=False, antialias=True)
    return pixels.unflatten(0, view.shape[:2]).transpose(1, 2)


def test_libero() -> None:
    given = views(LIBERO, 256, 256)
    expected = torch.cat([resized(given[name], (224, 224)) for name in LIBERO.views], dim=-1)
    canvas = tile(given, LIBERO)
    assert canvas.shape == (2, 3, 2, 224, 448) and canvas_size(LIBERO) == (224, 448)
    torch.testing.assert_close(canvas, (expected - 0.5) / 0.5, rtol=0, atol=0)


def test_separate_views_lie_side_by_side_on_pages_and_are_no_image_of_a_codec() -> None:
    separate = replace(ROBOTWIN, canvas="separate")
    assert list(view_boxes(separate).values()) == [(0, 320 * i, 240, 320) for i in range(3)]
    given = views(separate, 240, 320)
    assert torch.equal(tile(given, separate), tile(given, replace(separate, canvas="horizontal")))
    with pytest.raises(
        BadInput, match=r"data.canvas: 'separate' is for policies that take each view by itself"
    ):
        WanEncoder(BlockCodec(), HashedText(8, 6), separate)


@pytest.mark.parametrize("size", [(480, 640), (240, 320)])
def test_robotwin_resizes_twice(size: tuple[int, int]) -> None:
    given = views(ROBOTWIN, *size)
    high, left, right = (given[name] for name in ROBOTWIN.views)
    top = resized(high, (240, 320), (256, 320))
    bottom = torch.cat([resized(view, (240, 320), (128, 160)) for view in (left, right)], dim=-1)
    expected = torch.cat([top, bottom], dim=-2)
    canvas = tile(given, ROBOTWIN)
    assert canvas.shape == (2, 3, 2, 384, 320) and canvas_size(ROBOTWIN) == (384, 320)
    torch.testing.assert_close(canvas, (expected - 0.5) / 0.5, rtol=0, atol=1e-6)
    once = resized(high, (256, 320))
    assert (
        size == (240, 320) or (once - top).abs().max() > 0.01
    )  # the second resize is part of the definition


def test_single_is_the_view_in_unit_range() -> None:
    spec = replace(LIBERO, views=("top",), canvas="single", view_height=4, view_width=6)
    given = views(spec, 4, 6)
    expected = given["top"].permute(0, 4, 1, 2, 3).float() / 127.5 - 1
    torch.testing.assert_close(tile(given, spec), expected)


@pytest.mark.parametrize("spec", [LIBERO, ROBOTWIN])
def test_boxes_cut_the_views_out_again(spec: DataSpec) -> None:
    given = {
        view: torch.full((1, 1, 60, 80, 3), 50 * (i + 1), dtype=torch.uint8)
        for i, view in enumerate(spec.views)
    }
    canvas = tile(given, spec)
    area = 0
    for i, (_, (top, left, height, width)) in enumerate(view_boxes(spec).items()):
        cut = canvas[..., top : top + height, left : left + width]
        torch.testing.assert_close(cut, torch.full_like(cut, 50 * (i + 1) / 127.5 - 1))
        area += height * width
    assert area == canvas.shape[-1] * canvas.shape[-2]


def test_mistakes() -> None:
    with pytest.raises(BadInput, match="'wrist_image' is missing"):
        tile({"image": views(LIBERO, 8, 8)["image"]}, LIBERO)
    with pytest.raises(BadInput, match="takes 3 view"):
        view_boxes(replace(ROBOTWIN, views=("a", "b")))
    with pytest.raises(BadInput, match="multiple of 15"):
        view_boxes(replace(ROBOTWIN, view_height=64, view_width=64))
    with pytest.raises(BadInput, match="'vertical' is unknown"):
        view_boxes(replace(LIBERO, canvas="vertical"))
