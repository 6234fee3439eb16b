"""Images of stage 1: cut, squeezed, cropped and coloured; colours against Pillow and colorsys."""

from __future__ import annotations

import colorsys
import pickle
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image, ImageEnhance
from torch import Tensor
from wamkit_client.types import BadInput

from tests.policies.tiny_lawam_world import PAIRS
from wamkit.data.augment import brightness, contrast, hue, saturation
from wamkit.policies.lawam.augment import NoAugmentation, Prepare, TwoViews
from wamkit.policies.lawam.images import squeezed

STILL = TwoViews(area=(1.0, 1.0), ratio=(1.0, 1.0), brightness=0.0, contrast=0.0, saturation=0.0, hue=0.0)


def pixels(*shape: int, seed: int = 0) -> Tensor:
    return torch.randint(0, 256, shape, dtype=torch.uint8, generator=torch.Generator().manual_seed(seed))


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def views(seed: int = 0) -> dict[str, Tensor]:
    return {"front": pixels(1, 2, 32, 32, 3, seed=seed), "wrist": pixels(1, 2, 32, 32, 3, seed=seed + 1)}


def test_images_wider_than_4_to_3_lose_their_sides() -> None:
    wide, narrow = pixels(2, 24, 48, 3), pixels(2, 24, 20, 3)
    assert torch.equal(squeezed(wide, 24, 32), wide[:, :, 8:40])
    assert torch.equal(squeezed(wide, 16, 16), squeezed(wide[:, :, 8:40], 16, 16))
    assert torch.equal(squeezed(narrow, 24, 20), narrow)


def test_squeezing_is_antialiased_as_pillow_does_it() -> None:
    image = pixels(1, 48, 64, 3)
    whole = Image.fromarray(image[0].numpy()).resize((16, 16), resample=Image.Resampling.BILINEAR)
    difference = squeezed(image, 16, 16)[0].int() - torch.from_numpy(np.asarray(whole).copy()).int()
    assert difference.abs().max() <= 1  # Pillow rounds rows and columns one after the other


def test_without_augmentation_the_first_camera_is_taken_as_it_is() -> None:
    given = views()
    prepared = Prepare(NoAugmentation(), PAIRS)(given, seeded())
    assert torch.equal(prepared["clips"][:, 0], given["front"])
    assert prepared["clips"].shape == (1, 1, 2, 32, 32, 3)


def test_two_versions_differ_and_a_seed_repeats_them() -> None:
    prepare = pickle.loads(pickle.dumps(Prepare(TwoViews(), PAIRS)))
    clips = prepare(views(), seeded())["clips"]
    assert clips.shape == (1, 2, 2, 32, 32, 3) and clips.dtype == torch.uint8 and clips.is_contiguous()
    assert not torch.equal(clips[:, 0], clips[:, 1])
    assert torch.equal(clips, prepare(views(), seeded())["clips"])
    assert not torch.equal(clips, prepare(views(), seeded(1))["clips"])


def test_both_frames_of_a_version_are_changed_alike() -> None:
    same = {name: view[:, :1].expand(-1, 2, -1, -1, -1) for name, view in views().items()}
    clips = Prepare(TwoViews(), PAIRS)(same, seeded())["clips"]
    assert torch.equal(clips[:, :, 0], clips[:, :, 1])


def test_every_camera_is_drawn_and_both_versions_are_of_one() -> None:
    given, seen = views(), set()
    for seed in range(12):
        clips = Prepare(STILL, PAIRS)(given, seeded(seed))["clips"]
        [camera] = [name for name, view in given.items() if torch.equal(view[0], clips[0, 0])]
        assert torch.equal(clips[0, 0], clips[0, 1])
        seen.add(camera)
    assert seen == {"front", "wrist"}


def test_crops_have_the_drawn_area_and_ratio() -> None:
    """Of an image whose colours say where a pixel lies."""
    side, crop = 64, replace(STILL, area=(0.8, 1.0), ratio=(1.0, 1.3))
    ramp = torch.arange(side).float() * 3
    image = torch.stack(
        [ramp[:, None].expand(side, side), ramp[None].expand(side, side), torch.zeros(side, side)]
    )
    clip = image.permute(1, 2, 0).byte()[None].expand(2, -1, -1, -1)
    sizes = []
    for seed in range(40):
        found = crop([clip], side, side, seeded(seed))[0, 0].float() / 3
        rows, columns = (found[-1, 0, 0] - found[0, 0, 0]) + 1, (found[0, -1, 1] - found[0, 0, 1]) + 1
        sizes.append((rows.item(), columns.item()))
        assert 0.75 <= rows * columns / side**2 <= 1
        assert 0.95 <= columns / rows <= 1.36
    assert len(set(sizes)) > 20


def test_a_shape_that_never_fits_leaves_the_image_whole() -> None:
    given = views()
    clips = Prepare(replace(STILL, ratio=(9.0, 9.0)), PAIRS)(given, seeded())["clips"]
    assert any(torch.equal(clips[0, 0], view[0]) for view in given.values())


@pytest.mark.parametrize(
    ("ours", "pillows"),
    [
        (brightness, ImageEnhance.Brightness),
        (contrast, ImageEnhance.Contrast),
        (saturation, ImageEnhance.Color),
    ],
)
@pytest.mark.parametrize("change", [-0.25, 0.2])
def test_colours_are_changed_as_pillow_does(ours: Callable[..., Tensor], pillows: Any, change: float) -> None:
    image = pixels(1, 8, 8, 3)
    found = ours(image.permute(0, 3, 1, 2) / 255, change).clamp(0, 1)[0].permute(1, 2, 0) * 255
    expected = np.asarray(pillows(Image.fromarray(image[0].numpy())).enhance(1 + change))
    assert (found - torch.from_numpy(expected.copy())).abs().max() <= 1.5  # Pillow rounds grey and result


@pytest.mark.parametrize("change", [-0.04, 0.0, 0.3])
def test_hue_turns_as_in_colorsys(change: float) -> None:
    image = torch.cat([torch.rand(1, 3, 6, 6, generator=seeded()), torch.full((1, 3, 6, 6), 0.4)])
    found = hue(image, change).permute(0, 2, 3, 1).reshape(-1, 3)
    for colour, turned in zip(image.permute(0, 2, 3, 1).reshape(-1, 3).tolist(), found.tolist(), strict=True):
        h, s, v = colorsys.rgb_to_hsv(*colour)
        assert turned == pytest.approx(colorsys.hsv_to_rgb((h + change) % 1, s, v), abs=1e-5)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"area": (1.0, 0.8)}, r"policy.augmentation.area: expected two numbers above 0, ascending"),
        ({"ratio": (0.0, 1.0)}, r"policy.augmentation.ratio: expected two numbers above 0, ascending"),
        ({"hue": 1.0}, r"policy.augmentation.hue: expected a number from 0 to below 1"),
    ],
)
def test_what_cannot_be_drawn_is_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(BadInput, match=message):
        TwoViews(**changes)
