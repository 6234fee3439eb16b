"""A recorded episode as a film: the scene with the predicted chunk drawn into it, and above what the policy sees.

The path of the current chunk fades along the horizon; the part that is executed before the next query has another
colour than the part that is predicted and then replaced. It does not know policies or pages.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from wamkit.data.lerobot.video import VideoCodec, write_video
from wamkit.report.recordings import Recording
from wamkit.report.watched import query_at

EXECUTED = (255, 170, 40)
PREDICTED = (130, 200, 255)
PAPER = (16, 18, 20)
GAP = 8
"""Pixels between images of a film."""
SUPERSAMPLING = 3
"""Paths are drawn this many times larger and reduced, for smooth edges."""


@dataclass(frozen=True)
class FilmConfig:
    """width: pixels. strip_height: of the row of policy views above (players put their controls below).
    fps: frames per second, one per control step. hold_seconds: how long the last frame stays."""

    width: int = 512
    strip_height: int = 144
    fps: float = 20.0
    hold_seconds: float = 1.0
    codec: VideoCodec = VideoCodec(crf=25, g=40, preset="faster")


@dataclass(frozen=True)
class Film:
    """mp4: H.264. poster: one of its frames, uint8 RGB [h, w, 3]."""

    mp4: bytes
    poster: np.ndarray


def film(recording: Recording, views: Sequence[str], config: FilmConfig) -> Film:
    """The whole episode. The poster is the first query after a third of it."""
    frames = list(film_frames(recording, views, config))
    hold = [frames[-1]] * round(config.hold_seconds * config.fps)
    mp4 = _mp4(frames + hold, config.fps, config.codec)
    return Film(mp4, frames[query_at(recording, 1 / 3)])


def compared_film(above: np.ndarray, below: np.ndarray, seconds: float, config: FilmConfig) -> Film:
    """Two videos at once, uint8 RGB [t, h, w, 3], each frame for so many seconds. The poster is a third of the way."""
    height = config.width * above.shape[1] // above.shape[2] // 2 * 2
    frames = []
    for pair in zip(above, below, strict=True):
        canvas = Image.new("RGB", (config.width // 2 * 2, 2 * height + GAP), PAPER)
        for row, image in enumerate(pair):
            canvas.paste(_resized(image, config.width, height), (0, row * (height + GAP)))
        frames.append(np.asarray(canvas))
    hold = [frames[-1]] * max(round(config.hold_seconds / seconds), 1)
    return Film(_mp4(frames + hold, 1 / seconds, config.codec), frames[len(frames) // 3])


def _mp4(frames: Sequence[np.ndarray], fps: float, codec: VideoCodec) -> bytes:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "film.mp4"
        write_video(path, np.stack(frames), fps, codec)
        return path.read_bytes()


def film_frames(recording: Recording, views: Sequence[str], config: FilmConfig) -> Iterator[np.ndarray]:
    """One uint8 RGB frame [h, w, 3] per step and one for the end; height and width are even."""
    scene_height, scene_width = recording.display.shape[1:3]
    scale = config.width / scene_width
    height = round(scene_height * scale)
    for step in range(recording.steps + 1):
        canvas = Image.new("RGB", (config.width // 2 * 2, (config.strip_height + height) // 2 * 2), PAPER)
        _paste_views(canvas, [recording.views[view][step] for view in views], config)
        scene = _resized(recording.display[step], config.width, height)
        _draw_chunk(scene, recording, step, scale)
        canvas.paste(scene, (0, config.strip_height))
        _write(canvas, *_status(recording, step))
        yield np.asarray(canvas)


def _status(recording: Recording, step: int) -> tuple[str, str]:
    if step == recording.steps:
        return f"step {step}", "solved" if recording.success else "not solved"
    return f"step {step}", f"query {recording.query_of(step) + 1}"


def _draw_chunk(scene: Image.Image, recording: Recording, step: int, scale: float) -> None:
    """The chunk that is being executed at `step`, as predicted when it was asked for."""
    query = recording.query_of(step)
    start = int(recording.query_steps[query])
    last = query + 1 == len(recording.query_steps)
    executed = (recording.steps if last else int(recording.query_steps[query + 1])) - start
    path = recording.query_paths[query] * scale
    seen = path[np.isfinite(path).all(axis=1)]
    if len(seen) == 0:
        return
    corner = np.floor(seen.min(axis=0)) - 10
    width, height = (np.ceil(seen.max(axis=0)) + 10 - corner).astype(int)
    layer = Image.new("RGBA", (width * SUPERSAMPLING, height * SUPERSAMPLING))
    draw = ImageDraw.Draw(layer)
    points = (path - corner) * SUPERSAMPLING
    for halo in (True, False):
        for i in reversed(range(len(points))):  # the near future lies on top
            colour = PAPER if halo else EXECUTED if i < executed else PREDICTED
            opacity = _strength(i, len(points)) * (0.55 if halo else 1.0)
            _step(draw, points[max(i - 1, 0) : i + 1], (*colour, round(255 * opacity)), 8.0 if halo else 5.0)
    if step > start and np.isfinite(points[min(step - start, len(points)) - 1]).all():
        _dot(draw, points[min(step - start, len(points)) - 1], 4.5, (255, 255, 255, 255))
    small = layer.resize((width, height), Image.Resampling.BOX)
    scene.paste(small, (int(corner[0]), int(corner[1])), small)


def _step(draw: ImageDraw.ImageDraw, ends: np.ndarray, colour: tuple[int, ...], width: float) -> None:
    """One step of the path: a line from the step before, with a round end."""
    if len(ends) == 2 and np.isfinite(ends).all():
        draw.line([tuple(end) for end in ends], fill=colour, width=round(width * SUPERSAMPLING))
    if np.isfinite(ends[-1]).all():
        _dot(draw, ends[-1], width / 2, colour)


def _strength(i: int, horizon: int) -> float:
    """Opacity of step i of the chunk: from 1 down to a fifth."""
    return 1.0 - 0.8 * i / max(horizon - 1, 1)


def _dot(draw: ImageDraw.ImageDraw, centre: np.ndarray, radius: float, colour: tuple[int, ...]) -> None:
    (u, v), r = centre, radius * SUPERSAMPLING
    draw.ellipse((u - r, v - r, u + r, v + r), fill=colour)


def _paste_views(canvas: Image.Image, views: Sequence[np.ndarray], config: FilmConfig) -> None:
    """The policy's own images at the right of the strip, as large as fits."""
    space = canvas.width - GAP * (len(views) + 1)
    height = config.strip_height - 2 * GAP
    height = min(height, int(space / sum(view.shape[1] / view.shape[0] for view in views)))
    right = canvas.width - GAP
    for view in reversed(views):
        width = round(height * view.shape[1] / view.shape[0])
        canvas.paste(_resized(view, width, height), (right - width, (config.strip_height - height) // 2))
        right -= width + GAP


def _resized(pixels: np.ndarray, width: int, height: int) -> Image.Image:
    return Image.fromarray(pixels).resize((width, height), Image.Resampling.BICUBIC)


def _write(canvas: Image.Image, *lines: str) -> None:
    """White lines on a dark label, top left."""
    font = ImageFont.load_default(size=19)
    text = "\n".join(lines)
    draw = ImageDraw.Draw(canvas, "RGBA")
    left, top, right, bottom = draw.multiline_textbbox((18, 16), text, font=font, spacing=8)
    draw.rounded_rectangle((left - 8, top - 6, right + 8, bottom + 6), 6, fill=(*PAPER, 190))
    draw.multiline_text((18, 16), text, font=font, spacing=8, fill=(255, 255, 255, 255))
