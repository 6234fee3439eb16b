"""One image from several cameras: each view is resized, then placed on a canvas.

The layouts are boxes, so the same table tiles the canvas and cuts the views out of it again:

    single        the only view
    horizontal    views side by side (LIBERO: image | wrist_image, 224x224 each -> 224x448)
    robotwin      the first view above, the two others at half size below (240x320 each -> 384x320)
    separate      no canvas: the policy takes each view by itself; pages lay them side by side

Every view is resized to the spec's view size first, and to its box afterwards. For "robotwin" the second
resize changes the size again (240x320 -> 256x320 stretches); both are part of the published definition.
That is what training sees. The published evaluations of both systems' LIBERO and RoboTwin loops see something else
("published"): every view is brought to its box in one step, by Pillow's bilinear filter on bytes; side by side the
middle of the view is cut out where it has another shape than its box.
It does not know about codecs: the result is RGB in [-1, 1].
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float, UInt8
from PIL import Image
from torch import Tensor
from wamkit_client.types import BadInput

from wamkit.types import DataSpec, Preprocessing

Box = tuple[int, int, int, int]
"""top, left, height, width in pixels of the canvas."""


def view_boxes(spec: DataSpec) -> dict[str, Box]:
    """Where each view lies on the canvas. BadInput where layout, views and view size do not fit together."""
    height, width = spec.view_height, spec.view_width
    if spec.canvas == "single":
        _expect_views(spec, 1)
        return {spec.views[0]: (0, 0, height, width)}
    if spec.canvas in ("horizontal", "separate"):
        return {view: (0, i * width, height, width) for i, view in enumerate(spec.views)}
    if spec.canvas == "robotwin":
        _expect_views(spec, 3)
        if height % 15 or width % 2:
            raise BadInput(
                f"canvas 'robotwin': view size {height}x{width}; expected a height that is a multiple of 15 "
                "and an even width, such as 240x320"
            )
        top = height * 16 // 15
        above, left, right = spec.views
        return {
            above: (0, 0, top, width),
            left: (top, 0, top // 2, width // 2),
            right: (top, width // 2, top // 2, width // 2),
        }
    raise BadInput(
        f"canvas {spec.canvas!r} is unknown; expected 'single', 'horizontal', 'robotwin' or 'separate'"
    )


def expect_canvas(spec: DataSpec) -> None:
    """BadInput where views are not tiled: for encoders that take one image."""
    if spec.canvas == "separate":
        raise BadInput(
            "data.canvas: 'separate' is for policies that take each view by itself, and the codec of this one takes "
            "one image; give 'single', 'horizontal' or 'robotwin'"
        )


def canvas_size(spec: DataSpec) -> tuple[int, int]:
    """Height and width of the canvas in pixels."""
    boxes = view_boxes(spec).values()
    return max(top + height for top, _, height, _ in boxes), max(left + width for _, left, _, width in boxes)


def tile(
    views: Mapping[str, UInt8[Tensor, "b t _ _ 3"]], spec: DataSpec, preprocessing: Preprocessing = "training"
) -> Float[Tensor, "b 3 t H W"]:
    """The canvas of every frame, in [-1, 1], on the device of the views."""
    boxes = view_boxes(spec)
    expect_cameras(spec, views)
    first = views[spec.views[0]]
    b, t = first.shape[:2]
    height, width = canvas_size(spec)
    canvas = torch.empty(b * t, 3, height, width, device=first.device)
    for view, (top, left, box_height, box_width) in boxes.items():
        pixels = FITTED[preprocessing](views[view].flatten(0, 1), spec, box_height, box_width)
        canvas[:, :, top : top + box_height, left : left + box_width] = pixels
    return canvas.unflatten(0, (b, t)).transpose(1, 2).contiguous()


def expect_cameras(spec: DataSpec, views: Collection[str]) -> None:
    """BadInput where a view is missing."""
    for view in spec.views:
        if view not in views:
            raise BadInput(f"camera {view!r} is missing; expected {list(spec.views)}, got {list(views)}")


def as_bytes(canvas: Float[Tensor, "b 3 t H W"]) -> UInt8[Tensor, "b t H W 3"]:
    """A canvas in [-1, 1] as pixels."""
    return ((canvas + 1) * 127.5).round().clamp(0, 255).byte().permute(0, 2, 3, 4, 1)


def views_of(canvas: Float[Tensor, "b 3 t H W"], spec: DataSpec) -> dict[str, UInt8[Tensor, "b t _ _ 3"]]:
    """The views cut out of a canvas, each in the size of its box."""
    pixels = as_bytes(canvas)
    return {
        view: pixels[:, :, top : top + height, left : left + width]
        for view, (top, left, height, width) in view_boxes(spec).items()
    }


def as_trained(
    pixels: UInt8[Tensor, "n _ _ 3"], spec: DataSpec, height: int, width: int
) -> Float[Tensor, "n 3 {height} {width}"]:
    """Resized to the view size and then to the box, as floats, with antialiasing."""
    whole = resized(pixels.permute(0, 3, 1, 2).float() / 255, spec.view_height, spec.view_width)
    return (resized(whole, height, width) - 0.5) / 0.5


def as_evaluated(
    pixels: UInt8[Tensor, "n _ _ 3"], spec: DataSpec, height: int, width: int
) -> Float[Tensor, "n 3 {height} {width}"]:
    """Resized to the box in one step, as bytes, by Pillow (Fast-WAM spec 4.4)."""
    return shaped(pixels, spec, height, width).permute(0, 3, 1, 2) * (2.0 / 255.0) - 1.0


def shaped(
    pixels: UInt8[Tensor, "n _ _ 3"], spec: DataSpec, height: int, width: int
) -> UInt8[Tensor, "n {height} {width} 3"]:
    """The bytes of `as_evaluated`."""
    fit = SHAPED[spec.canvas]
    images = [np.asarray(fit(Image.fromarray(x), height, width)) for x in pixels.cpu().numpy()]
    return torch.from_numpy(np.stack(images)).to(pixels.device)


FITTED: Mapping[Preprocessing, Callable[[Tensor, DataSpec, int, int], Tensor]] = {
    "training": as_trained,
    "published": as_evaluated,
}


def stretched(image: Image.Image, height: int, width: int) -> Image.Image:
    """All of the image, in the box's shape."""
    return image.resize((width, height), resample=Image.Resampling.BILINEAR)


def cut_out(image: Image.Image, height: int, width: int) -> Image.Image:
    """The middle of the image, as large as the box's shape allows."""
    whole = stretched(image, *covering(image.height, image.width, height, width))
    left, top = max((whole.width - width) // 2, 0), max((whole.height - height) // 2, 0)
    return whole.crop((left, top, left + width, top + height))


def covering(rows: int, columns: int, height: int, width: int) -> tuple[int, int]:
    """Height and width of an image of `rows` x `columns`, brought to cover a box."""
    scale = max(width / columns, height / rows)
    return round(rows * scale), round(columns * scale)


# by canvas: how the published evaluations bring a view to the shape of its box
SHAPED: Mapping[str, Callable[[Image.Image, int, int], Image.Image]] = {
    "single": cut_out,
    "horizontal": cut_out,
    "separate": cut_out,
    "robotwin": stretched,
}


def resized(pixels: Float[Tensor, "n 3 _ _"], height: int, width: int) -> Float[Tensor, "n 3 _ _"]:
    """By torch, with antialiasing."""
    if pixels.shape[-2:] == (height, width):
        return pixels  # the antialiased resize to the same size is the identity
    return F.interpolate(pixels, (height, width), mode="bilinear", align_corners=False, antialias=True)


def _expect_views(spec: DataSpec, count: int) -> None:
    if len(spec.views) != count:
        raise BadInput(
            f"canvas {spec.canvas!r} takes {count} view(s), got {len(spec.views)}: {list(spec.views)}"
        )
