"""Recordings as a real robot leaves them (Light-WAM spec 3.1), written by hand: smooth pictures, known colours."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from PIL import Image

CAMERAS = ("cam_high", "cam_left_wrist")
HEIGHT, WIDTH = 32, 48
STEPS = 6
RED = (200, 40, 30)


def picture(step: int, shift: int = 0) -> np.ndarray:
    """Reddish, brighter to the right; every step differs."""
    ramp = np.arange(WIDTH)[None, :, None] // 4 + 3 * step + shift
    return np.broadcast_to(np.array(RED) + ramp, (HEIGHT, WIDTH, 3)).clip(0, 255).astype(np.uint8)


def encoded(pixels: np.ndarray, form: str = "JPEG") -> bytes:
    """The bytes of a picture file."""
    buffer = io.BytesIO()
    options: dict[str, Any] = {"quality": 95, "subsampling": 0} if form == "JPEG" else {}
    Image.fromarray(pixels).save(buffer, form, **options)
    return buffer.getvalue()


def numbers(seed: int, dimensions: int = 14, steps: int = STEPS) -> np.ndarray:
    """[steps, dimensions] float64, as recorders write them."""
    return np.random.default_rng(seed).uniform(-1, 1, (steps, dimensions))


def store(file: h5py.File, camera: str, pictures: list[bytes], how: str) -> None:
    """Pictures in one of the ways recorders store them."""
    key = f"observation/images/{camera}"
    if how == "variable":
        dataset = file.create_dataset(key, (len(pictures),), dtype=h5py.vlen_dtype(np.uint8))
        for step, data in enumerate(pictures):
            dataset[step] = np.frombuffer(data, np.uint8)
    elif how == "padded":
        longest = max(len(data) for data in pictures)
        rows = [np.frombuffer(data.ljust(longest + 7, b"\0"), np.uint8) for data in pictures]
        file[key] = np.stack(rows)
    elif how == "opaque":
        file[key] = np.array(pictures, dtype=f"V{max(len(data) for data in pictures)}")
    elif how == "text":
        file[key] = np.array(pictures, dtype=f"S{max(len(data) for data in pictures)}")
    else:
        raise AssertionError(how)


def write(
    folder: Path,
    number: int | str,
    *,
    steps: int = STEPS,
    extra_rows: int = 0,
    form: str = "JPEG",
    how: str = "variable",
    cameras: tuple[str, ...] = CAMERAS,
    task: str | bytes | None = "fold the towel",
    channels: slice = slice(None),
) -> Path:
    """One recording. extra_rows: of states and pictures, beyond the last action."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"episode_{number}.hdf5"
    seed = int(number)
    with h5py.File(path, "w") as file:
        if task is not None:
            file.attrs["task"] = task
        file["action"] = numbers(seed, steps=steps)
        file["observation/state"] = numbers(seed + 100, steps=steps + extra_rows)
        for shift, camera in enumerate(cameras):
            pictures = [picture(step, 20 * shift)[..., channels] for step in range(steps + extra_rows)]
            store(file, camera, [encoded(pixels, form) for pixels in pictures], how)
    return path
