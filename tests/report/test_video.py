"""Films: every step is there, and the predicted chunk is where and how it should be."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from wamkit_client.envs.base import Task

from tests.report.slider import DISPLAY, LENGTH, record
from wamkit.data.lerobot.video import read_frames
from wamkit.report.recordings import Recording, read_recording
from wamkit.report.video import EXECUTED, PREDICTED, FilmConfig, film, film_frames

VIEWS = ("front", "wrist")
CONFIG = FilmConfig(width=256, strip_height=80, fps=10.0, hold_seconds=0.5)
SCALE = CONFIG.width / DISPLAY[1]


@pytest.fixture
def recording(tmp_path: Path) -> Recording:
    path = tmp_path / record(tmp_path, Task("slide", "slide it"), 3)["recording"]
    return read_recording(path, "slide", 3, "slide it", "robot")


def at(frame: np.ndarray, point: np.ndarray) -> np.ndarray:
    """The pixel of the scene at a point of the display picture."""
    u, v = point * SCALE
    return frame[CONFIG.strip_height + int(v), int(u)].astype(int)


def hue(pixel: np.ndarray) -> np.ndarray:
    return pixel / max(pixel.max(), 1)


def test_the_executed_part_and_the_fading_rest_are_told_apart(recording: Recording) -> None:
    """At a query, over a black scene: six steps are predicted, four executed."""
    frame = list(film_frames(recording, VIEWS, CONFIG))[4]
    pixels = [at(frame, point) for point in recording.query_paths[1]]
    for pixel in pixels[:4]:
        assert np.allclose(hue(pixel), np.array(EXECUTED) / max(EXECUTED), atol=0.12)
    for pixel in pixels[4:]:
        assert np.allclose(hue(pixel), np.array(PREDICTED) / max(PREDICTED), atol=0.12)
    brightness = [pixel.max() for pixel in pixels]
    assert brightness == sorted(brightness, reverse=True) and brightness[0] > 2.5 * brightness[-1] > 0


def test_a_white_dot_is_where_the_chunk_has_come_to(recording: Recording) -> None:
    frame = list(film_frames(recording, VIEWS, CONFIG))[6]
    assert at(frame, recording.query_paths[1][1]).min() > 240
    assert at(frame, recording.query_paths[1][3]).min() < 100


def test_what_cannot_be_seen_is_not_drawn(recording: Recording) -> None:
    paths = recording.query_paths.copy()
    paths[0] = np.nan
    paths[1, 2:] = np.nan
    hidden, partly, whole = (
        np.stack(list(film_frames(replace(recording, query_paths=p), VIEWS, CONFIG)))[
            :, CONFIG.strip_height + 40 :
        ]
        for p in (np.full_like(paths, np.nan), paths, recording.query_paths)
    )
    assert hidden.max() == 0 and partly[0].max() == 0
    assert 0 < (partly[4] > 0).sum() < (whole[4] > 0).sum()


def test_the_policys_views_stand_above_the_scene(recording: Recording) -> None:
    frames = list(film_frames(recording, VIEWS, CONFIG))
    strip = frames[-1][: CONFIG.strip_height]
    red = (strip[..., 0] > 150) & (strip[..., 1] < 80)
    earlier = frames[0][: CONFIG.strip_height]
    earlier_red = (earlier[..., 0] > 150) & (earlier[..., 1] < 80)
    assert red.sum() > 20 and np.nonzero(red)[1].mean() > np.nonzero(earlier_red)[1].mean() + 20


def test_the_film_shows_every_step(recording: Recording, tmp_path: Path) -> None:
    made = film(recording, VIEWS, CONFIG)
    path = tmp_path / "film.mp4"
    path.write_bytes(made.mp4)
    count = LENGTH + 1 + 5
    shown = read_frames(path, [i / CONFIG.fps for i in range(count)])
    drawn = np.stack(list(film_frames(recording, VIEWS, CONFIG)))
    assert shown.shape == (count, CONFIG.strip_height + 192, 256, 3)
    assert np.abs(shown[: LENGTH + 1].astype(int) - drawn).mean() < 4
    assert np.abs(shown[LENGTH:].astype(int) - drawn[-1]).mean() < 4
    assert np.array_equal(made.poster, drawn[8])
    assert film(recording, VIEWS, CONFIG).mp4 == made.mp4
