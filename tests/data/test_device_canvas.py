"""The canvas of one frame made where the policy acts: that of `tile`, by resizes and by matrices."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor
from wamkit_client.types import BadInput

from tests.data.test_published_pictures import scene
from wamkit.data.canvas import tile
from wamkit.data.device_canvas import BY_MATRICES, DeviceCanvas, carried, fixed_point, resizes
from wamkit.recipes import recipe
from wamkit.types import DataSpec, Preprocessing

CAMERAS = [(256, 256), (480, 640), (224, 224), (333, 517), (100, 90)]
LIBERO, ROBOTWIN = (recipe(name).data for name in ("libero_fast_wam", "robotwin_fast_wam"))
SPECS = {
    "horizontal": LIBERO,
    "robotwin": ROBOTWIN,
    "single": replace(LIBERO, views=("top",), canvas="single", view_height=72, view_width=96),
}


def views(spec: DataSpec, height: int, width: int) -> dict[str, Tensor]:
    """Two moments; each camera's images are of a size of its own."""
    return {
        view: torch.stack([torch.from_numpy(scene(height + 8 * i, width, seed)) for seed in (i, 9)])[:, None]
        for i, view in enumerate(spec.views)
    }


def by_matrices(spec: DataSpec, preprocessing: Preprocessing) -> DeviceCanvas:
    """As on a GPU."""
    canvas = DeviceCanvas(spec, preprocessing)
    canvas.fits["cpu"] = BY_MATRICES[preprocessing]
    return canvas


@pytest.mark.parametrize("make", [DeviceCanvas, by_matrices])
@pytest.mark.parametrize("camera", CAMERAS)
@pytest.mark.parametrize("name", SPECS)
def test_it_is_tiles(name, camera, make):
    spec, given = SPECS[name], views(SPECS[name], *camera)
    for way, error in (("training", 2e-6), ("published", 0)):
        canvas = make(spec, way)(given)
        torch.testing.assert_close(canvas, tile(given, spec, way)[:, :, 0], rtol=0, atol=error)
        assert canvas.is_contiguous(memory_format=torch.channels_last)


def test_a_camera_of_another_size_is_seen_as_it_is_now():
    make = by_matrices(ROBOTWIN, "training")
    for camera in (CAMERAS[0], CAMERAS[1], CAMERAS[0]):
        given = views(ROBOTWIN, *camera)
        torch.testing.assert_close(make(given), tile(given, ROBOTWIN)[:, :, 0], rtol=0, atol=2e-6)


def test_matrices_are_means():
    cpu = torch.device("cpu")
    for matrix in (resizes((480, 240, 256), cpu), fixed_point(480, 256, 256, cpu)):
        assert matrix.shape == (256, 480) and matrix.min() >= 0
        torch.testing.assert_close(matrix.sum(1), torch.ones_like(matrix[:, 0]), rtol=0, atol=2e-6)
    assert torch.equal(fixed_point(224, 300, 224, cpu), fixed_point(224, 300, 300, cpu)[38:262])


def test_a_missing_camera_is_named():
    with pytest.raises(
        BadInput, match=r"camera 'wrist_image' is missing; expected \['image', 'wrist_image'\]"
    ):
        DeviceCanvas(LIBERO, "training")({"image": torch.zeros(1, 1, 8, 8, 3, dtype=torch.uint8)})


def test_images_that_are_there_are_not_copied():
    given = views(LIBERO, 32, 32)
    assert all(carried(given, torch.device("cpu"))[view] is given[view] for view in given)
