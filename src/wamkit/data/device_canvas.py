"""The canvas of single frames, made on the device that acts: bytes of every camera in, one image out.

Equal to `tile` (data/canvas.py). A resize is separable and linear, so the two resizes of training are together two
small matrices per camera, one for its rows and one for its columns: torch's own weights, read off what it makes of the
unit vectors. The published preprocessing rounds to bytes behind each of its two passes; its matrices are Pillow's
fixed-point weights, whose sums are exact in float64. A processor multiplies too slowly for that, and resizes.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from functools import cache
from itertools import pairwise

import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from wamkit.data.canvas import (
    SHAPED,
    canvas_size,
    covering,
    cut_out,
    expect_cameras,
    resized,
    shaped,
    view_boxes,
)
from wamkit.types import DataSpec, Preprocessing

Images = UInt8[Tensor, "n _ _ 3"]
Size = tuple[int, int]
Fit = Callable[[Images, DataSpec, int, int], Tensor]
"""Images of one camera as they fill a box of this height and width: [n height width 3] in 0..255."""


class DeviceCanvas:
    """Views uint8 [b 1 h w 3] by camera -> canvas [b 3 H W] in [-1, 1] on their device, channels last in memory.

    Raises BadInput where a camera is missing.
    """

    def __init__(self, spec: DataSpec, preprocessing: Preprocessing) -> None:
        self.spec, self.steps = spec, STEPS[preprocessing]
        self.boxes, self.size = view_boxes(spec), canvas_size(spec)
        self.fits = {"cpu": BY_RESIZING[preprocessing], "": BY_MATRICES[preprocessing]}

    def __call__(self, views: Mapping[str, UInt8[Tensor, "b 1 _ _ 3"]]) -> Float[Tensor, "b 3 H W"]:
        """See above."""
        expect_cameras(self.spec, views)
        first = views[self.spec.views[0]]
        fit = self.fits[_processor.get() if first.is_cpu else ""]
        canvas = torch.empty(len(first), *self.size, 3, device=first.device)
        for view, (top, left, height, width) in self.boxes.items():
            pixels = views[view][:, 0]
            sizes = self.steps(self.spec, (pixels.shape[1], pixels.shape[2]), (height, width))
            if len(set(sizes)) > 1:  # else a resize is the identity
                pixels = fit(pixels, self.spec, height, width)
            canvas[:, top : top + height, left : left + width] = pixels
        return canvas.mul_(2.0 / 255.0).sub_(1.0).permute(0, 3, 1, 2)


_processor: ContextVar[str] = ContextVar("processor", default="cpu")


@contextmanager
def by_matrices() -> Iterator[None]:
    """Within it images are resized by matrices on a processor too, for programs that have no other way."""
    before = _processor.set("")
    try:
        yield
    finally:
        _processor.reset(before)


def carried(views: Mapping[str, UInt8[Tensor, "..."]], device: torch.device) -> dict[str, Tensor]:
    """Images on `device`; from the processor's memory to a CUDA device in one copy that nobody waits for."""
    if device.type != "cuda" or any(images.is_cuda for images in views.values()):
        return {view: images.to(device) for view, images in views.items()}
    sizes = [images.numel() for images in views.values()]
    pinned = torch.empty(sum(sizes), dtype=torch.uint8, pin_memory=True)
    torch.cat([images.flatten() for images in views.values()], out=pinned)
    parts = pinned.to(device, non_blocking=True).split(sizes)
    return {view: part.view(images.shape) for (view, images), part in zip(views.items(), parts, strict=True)}


STEPS: Mapping[Preprocessing, Callable[[DataSpec, Size, Size], tuple[Size, ...]]] = {
    "training": lambda spec, size, box: (size, (spec.view_height, spec.view_width), box),
    "published": lambda spec, size, box: (size, box),
}
"""The sizes that a camera's images have, one after the other."""


def trained_by_resizing(pixels: Images, spec: DataSpec, height: int, width: int) -> Tensor:
    """As `as_trained`."""
    whole = resized(pixels.permute(0, 3, 1, 2).float(), spec.view_height, spec.view_width)
    return resized(whole, height, width).permute(0, 2, 3, 1)


def trained_by_matrices(pixels: Images, spec: DataSpec, height: int, width: int) -> Tensor:
    """As `as_trained`."""
    rows = resizes((pixels.shape[1], spec.view_height, height), pixels.device)
    columns = resizes((pixels.shape[2], spec.view_width, width), pixels.device)
    return (rows @ planes(pixels, rows.dtype) @ columns.T).permute(0, 2, 3, 1)


def evaluated_by_matrices(pixels: Images, spec: DataSpec, height: int, width: int) -> Tensor:
    """As `as_evaluated`, to the bit."""
    size, box = (pixels.shape[1], pixels.shape[2]), (height, width)
    whole = covering(*size, *box) if SHAPED[spec.canvas] is cut_out else box
    rows, columns = (fixed_point(*along, pixels.device) for along in zip(size, whole, box, strict=True))
    narrow = (planes(pixels, rows.dtype) @ columns.T).add_(0.5).floor_()
    return (rows @ narrow).add_(0.5).floor_().permute(0, 2, 3, 1)


BY_RESIZING: Mapping[Preprocessing, Fit] = {"training": trained_by_resizing, "published": shaped}
BY_MATRICES: Mapping[Preprocessing, Fit] = {
    "training": trained_by_matrices,
    "published": evaluated_by_matrices,
}


def planes(pixels: Images, dtype: torch.dtype) -> Tensor:
    """Images [n h w 3] -> [n 3 h w], also in memory."""
    return pixels.permute(0, 3, 1, 2).to(dtype, memory_format=torch.contiguous_format)


@cache  # for good: a recorded graph refers to them
def resizes(sizes: tuple[int, ...], device: torch.device) -> Float[Tensor, "last first"]:
    """What resizing from size to size does to a line of pixels."""
    matrix = torch.eye(sizes[0], device="cpu", dtype=torch.float64)
    for before, after in pairwise(sizes):
        # in float32, as images are resized: torch rounds the weights too
        step = resized(torch.eye(before, device="cpu").expand(1, 3, -1, -1), after, before)[0, 0]
        matrix = step.double() @ matrix
    return matrix.float().to(device)


@cache  # for good: a recorded graph refers to them
def fixed_point(size: int, whole: int, kept: int, device: torch.device) -> Float[Tensor, "kept size"]:
    """What Pillow's bilinear filter on bytes does to a line of pixels before it rounds: resized to `whole`, of which
    the middle is kept. Multiples of 2^-22, float64."""
    scale = size / whole
    reach = max(scale, 1.0)
    matrix = torch.zeros(whole, size, device="cpu", dtype=torch.float64)
    for i in range(whole):
        centre = (i + 0.5) * scale
        first, end = max(int(centre - reach + 0.5), 0), min(int(centre + reach + 0.5), size)
        offsets = torch.arange(first, end, device="cpu", dtype=torch.float64) - centre + 0.5
        weights = (1.0 - (offsets * (1.0 / reach)).abs()).clamp_min(0.0)
        matrix[i, first:end] = weights / math.fsum(weights.tolist())
    left = max((whole - kept) // 2, 0)
    return (matrix[left : left + kept] * 2**22 + 0.5).floor().div(2**22).to(device)
