"""The imagined future and the numbers beside it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from wamkit_client.envs.base import Task

from tests.policies.tiny_policy import SPEC, engine_of, tiny_config, tiny_policy
from tests.report.slider import LENGTH, record, still
from wamkit.data.canvas import tile
from wamkit.infer.engine import Engine
from wamkit.policies.light_wam.policy import LightWAM
from wamkit.report.future import (
    FutureConfig,
    Moment,
    future,
    look_ahead,
    moments,
    shown_frames,
    shown_moment,
)
from wamkit.report.images import psnr
from wamkit.report.recordings import Recording, read_recording
from wamkit.report.video import FilmConfig
from wamkit.report.watched import Watched, join

CONFIG = FutureConfig(steps=2, samples=3, batch=2)
FILM = FilmConfig(width=64, hold_seconds=0)
ABOUT = "These are recordings."
ONE, MEAN = "one sample", "mean of 3"


@pytest.fixture(scope="module")
def engine() -> Engine[LightWAM]:
    return engine_of(tiny_policy(tiny_config()))


@pytest.fixture
def recording(tmp_path: Path) -> Recording:
    path = tmp_path / record(tmp_path, Task("slide", "slide it"), 3)["recording"]
    return read_recording(path, "slide", 3, "slide it", "robot")


def test_the_window_is_divided_into_equal_parts() -> None:
    assert shown_frames(5, 4) == [1, 2, 3, 4]
    assert shown_frames(9, 4) == [2, 4, 6, 8]
    assert shown_frames(33, 4) == [8, 16, 24, 32]
    assert shown_frames(3, 4) == [1, 2]


def test_moments_have_their_whole_window_recorded(recording: Recording) -> None:
    found = moments(recording, 16)
    assert [moment.step for moment in found] == [0, 4, 8] and LENGTH == 24
    assert shown_moment(found).step == 8 and shown_moment(found[:1]).step == 0
    assert moments(recording, LENGTH + 1) == []


def test_pixels_and_references(engine: Engine[LightWAM], recording: Recording) -> None:
    """The recorded frames, the present repeated and the codec's copy are exactly what they are called."""
    found = moments(recording, 16)
    futures = look_ahead(engine, found, CONFIG)
    clip = join([m.episode.clip(m.step, SPEC.frame_offsets, SPEC.views) for m in found])
    canvas = tile(clip.views, SPEC)
    assert torch.equal(futures.recorded, canvas) and futures.size == (32, 64)
    errors = futures.squared_errors()
    assert list(errors) == [ONE, MEAN, "present repeated", "recorded, through the codec"]
    assert torch.equal(errors["present repeated"], (canvas[:, :, :1] - canvas).square().mean(dim=(1, 3, 4)))
    coded = engine.encoder.decode(engine.encoder.codec.encode(canvas))
    assert torch.allclose(
        errors["recorded, through the codec"], (coded - canvas).square().mean(dim=(1, 3, 4)), atol=1e-6
    )
    assert torch.allclose(futures.imagined[ONE][:, :, 0], coded[:, :, 0], atol=1e-5)


def test_the_future_is_imagined_without_seeing_it(engine: Engine[LightWAM], recording: Recording) -> None:
    found = moments(recording, 16)[:1]
    blank = {
        view: np.concatenate([frames[:1], np.zeros_like(frames[1:])])
        for view, frames in recording.views.items()
    }
    other = [Moment(replace(recording, views=blank), 0)]
    mine, theirs = look_ahead(engine, found, CONFIG), look_ahead(engine, other, CONFIG)
    assert torch.equal(mine.imagined[ONE], theirs.imagined[ONE])
    assert not torch.equal(mine.recorded, theirs.recorded)


def test_the_seed_decides(engine: Engine[LightWAM], recording: Recording) -> None:
    found = moments(recording, 16)
    first, again, other = (
        look_ahead(engine, found, replace(CONFIG, seed=seed)).imagined[ONE] for seed in (0, 0, 1)
    )
    assert torch.equal(first, again) and not torch.equal(first, other)


def test_the_mean_is_over_samples_that_begin_from_other_noise(
    engine: Engine[LightWAM], recording: Recording
) -> None:
    found = moments(recording, 16)[:1]
    window = found[0].episode.clip(0, (0,), SPEC.views)
    query, generator = engine.query(window), torch.Generator().manual_seed(0)
    latents = [engine.policy.imagine(query, 1, 2, generator) for _ in range(3)]
    samples = torch.stack([engine.encoder.decode(each) for each in latents])
    imagined = look_ahead(engine, found, CONFIG).imagined
    assert torch.allclose(imagined[ONE], samples[0], atol=1e-6)
    assert torch.allclose(imagined[MEAN], samples.mean(dim=0), atol=1e-6)
    assert not torch.allclose(samples[0], samples[1], atol=1e-2)
    assert list(look_ahead(engine, found, replace(CONFIG, samples=1)).imagined) == [ONE]


def test_pooled_images_are_enlarged_and_the_page_says_so(recording: Recording) -> None:
    pooled = engine_of(tiny_policy(tiny_config(video_pool=2)))
    futures = look_ahead(pooled, moments(recording, 16), CONFIG)
    assert futures.size == (16, 32) and futures.imagined[ONE].shape == futures.recorded.shape
    assert float(futures.imagined[ONE].abs().max()) <= 1
    body = future(pooled, Watched([recording], ABOUT), CONFIG, FILM).body
    assert "16×32 pixels, enlarged here to the canvas of 32×64" in body


def test_a_still_world_is_predicted_perfectly_by_repeating_it(
    engine: Engine[LightWAM], tmp_path: Path
) -> None:
    recording = read_recording(still(tmp_path), "still", 0, "wait", "robot")
    body = future(engine, Watched([recording], ABOUT), CONFIG, FILM).body
    row = body[body.index('<th scope="row">present repeated') :]
    assert row[: row.index("</tr>")].count("∞") == 4


def test_psnr() -> None:
    assert psnr(0.04) == "20.0" and psnr(4.0) == "0.0" and psnr(0.0) == "∞"


def test_an_episode_shorter_than_the_window_is_named(
    engine: Engine[LightWAM], tmp_path: Path, recording: Recording
) -> None:
    path = tmp_path / record(tmp_path, Task("short", "slide it"), 1, max_steps=8)["recording"]
    short = read_recording(path, "short", 1, "slide it", "robot")
    body = future(engine, Watched([recording, short], ABOUT), CONFIG, FILM).body
    assert "short, seed 1: the episode has 8 steps, fewer than the window of 16" in body
    assert body.count('class="strip"') == 2  # a window of the long one, and all of it
    alone = future(engine, Watched([short], ABOUT), CONFIG, FILM).body
    assert "fewer than the window" in alone and "strip" not in alone
