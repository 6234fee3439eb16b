"""Frames and videos as a page holds them: uint8 pixels, data URIs, and how alike two frames are."""

from __future__ import annotations

import base64
import io

import numpy as np
from jaxtyping import Float
from PIL import Image
from torch import Tensor

EXACT = 2**16
"""Pixels up to which a frame is stored without loss; larger ones as JPEG, or a page would take minutes to load."""


def pixels(frame: Float[Tensor, "3 h w"]) -> np.ndarray:
    """[-1, 1] -> uint8 RGB [h, w, 3]."""
    return ((frame + 1) * 127.5).round().clamp(0, 255).byte().permute(1, 2, 0).numpy()


def psnr(squared_error: float | Float[Tensor, ""]) -> str:
    """In dB, for pixels in [-1, 1]."""
    return "∞" if squared_error == 0 else f"{decibels(float(squared_error)):.1f}"


def decibels(squared_error: float) -> float:
    """Of pixels in [-1, 1], above 0."""
    return float(10 * np.log10(4 / squared_error))


def png(image: np.ndarray) -> str:
    """uint8 RGB [h, w, 3] as a data URI, without loss."""
    return _image_uri(image, "png")


def jpeg(image: np.ndarray, quality: int = 88) -> str:
    """uint8 RGB [h, w, 3] as a data URI, compressed."""
    return _image_uri(image, "jpeg", quality=quality)


def png_or_jpeg(frame: Float[Tensor, "3 h w"]) -> str:
    """[-1, 1] as a data URI, without loss where it is small."""
    return (png if frame[0].numel() <= EXACT else jpeg)(pixels(frame))


def mp4(data: bytes) -> str:
    """A video file as a data URI."""
    return _uri("video/mp4", data)


def _image_uri(image: np.ndarray, format: str, **options: int) -> str:
    file = io.BytesIO()
    Image.fromarray(image).save(file, format, **options)
    return _uri(f"image/{format}", file.getvalue())


def _uri(kind: str, data: bytes) -> str:
    return f"data:{kind};base64,{base64.b64encode(data).decode()}"
