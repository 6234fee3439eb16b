"""Whole episodes imagined from their first image."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from wamkit_client.envs.base import Task

from tests.policies.tiny_policy import SPEC, engine_of, tiny_config, tiny_policy
from tests.report.slider import record
from wamkit.analysis.motion import Motion
from wamkit.data.canvas import as_bytes, tile, views_of
from wamkit.infer.engine import Engine
from wamkit.policies.light_wam.policy import LightWAM
from wamkit.report.imagination import (
    CODED,
    IMAGINED,
    ONE_WINDOW,
    STILL,
    fitted,
    frame_steps,
    imagine_episodes,
    moved,
    out_of_reach,
)
from wamkit.report.imagined_episodes import mean_errors, shown_episodes
from wamkit.report.recordings import Recording, read_recording
from wamkit.report.video import FilmConfig

WINDOW = SPEC.frame_offsets[-1]  # 16 steps, a frame every 4


@pytest.fixture(scope="module")
def engine() -> Engine[LightWAM]:
    return engine_of(tiny_policy(tiny_config()))


@pytest.fixture(scope="module")
def recordings(tmp_path_factory: pytest.TempPathFactory) -> list[Recording]:
    """Of 24 and of 40 steps: two windows and three."""
    folder = tmp_path_factory.mktemp("recordings")
    return [
        read_recording(
            folder / record(folder, Task(name, "slide it"), 3)["recording"], name, 3, "go", "robot"
        )
        for name in ("slide", "stuck")
    ]


def test_windows_cover_the_episode() -> None:
    assert frame_steps((0, 4, 8), 8) == [0, 4, 8]
    assert frame_steps((0, 4, 8), 9) == [0, 4, 8, 12, 16]


def test_views_are_cut_out_of_the_canvas_they_were_tiled_on() -> None:
    rng = np.random.default_rng(0)
    views = {view: torch.from_numpy(rng.integers(0, 256, (2, 3, 32, 32, 3), np.uint8)) for view in SPEC.views}
    again = views_of(tile(views, SPEC), SPEC)
    assert all(torch.equal(again[view], views[view]) for view in SPEC.views)


def test_each_window_begins_where_the_one_before_it_ended(
    engine: Engine[LightWAM], recordings: list[Recording]
) -> None:
    """What is shown is what `imagine` and `moved` give, by hand; and the recorded images are the recorded ones."""
    recording, motion = recordings[0], fitted(recordings)
    found = imagine_episodes(engine, [recording], motion, seed=5)
    assert found.steps == [*range(0, 33, 4)] and found.frames == [7]
    generator, now = torch.Generator().manual_seed(5), recording.clip(0, (0,), SPEC.views)
    for first in (0, 4):
        video = engine.encoder.decode(engine.policy.imagine(engine.query(now), 1, 2, generator))
        assert np.abs(found.imagined[0, first + 1 : first + 5] - as_bytes(video)[0, 1:].numpy()).max() == 0
        recorded = recording.clip(WINDOW if first else 0, (0,), SPEC.views)
        engine.policy.imagine(engine.query(recorded), 1, 2, generator)  # the other guess draws noise too
        now = moved(engine, now, video, motion)
    shown = [*range(0, 25, 4)]
    canvas = tile(recording.clip(0, shown, SPEC.views).views, SPEC)
    assert np.array_equal(found.recorded[0, :7], as_bytes(canvas)[0].numpy())
    still = (canvas[0, :, :1] - canvas[0]).square().mean(dim=(0, 2, 3))[1:]
    errors = found.of(0)
    assert list(errors) == [IMAGINED, ONE_WINDOW, STILL, CODED]
    assert all(len(own) == 6 for own in errors.values()) and np.allclose(errors[STILL], still)
    assert max(errors[CODED]) < min(errors[STILL])


def test_the_arm_goes_where_the_policys_actions_lead(
    engine: Engine[LightWAM], recordings: list[Recording]
) -> None:
    """At every imagined frame the policy sees that frame, and the actions up to the next one are executed."""
    now = recordings[0].clip(0, (0,), SPEC.views)
    video = torch.rand(1, 3, 5, 32, 64, generator=torch.Generator().manual_seed(0)) * 2 - 1
    counted = Motion(np.concatenate([np.zeros((5, 3)), np.ones((1, 3))]))  # one more with every action
    end = moved(engine, now, video, counted)
    assert torch.allclose(end.proprio, now.proprio + WINDOW)
    assert all(torch.equal(end.views[v][:, 0], own[:, -1]) for v, own in views_of(video, SPEC).items())
    acted = moved(
        engine, now, video, Motion(np.concatenate([np.zeros((3, 3)), np.ones((2, 3)), np.zeros((1, 3))]))
    )
    other = moved(
        engine, now, -video, Motion(np.concatenate([np.zeros((3, 3)), np.ones((2, 3)), np.zeros((1, 3))]))
    )
    assert not torch.allclose(acted.proprio, other.proprio)


def test_what_follows_the_first_image_is_not_seen(
    engine: Engine[LightWAM], recordings: list[Recording]
) -> None:
    recording, motion = recordings[0], fitted(recordings)
    blank = {
        view: np.concatenate([frames[:1], np.zeros_like(frames[1:])])
        for view, frames in recording.views.items()
    }
    other = replace(
        recording, views=blank, proprio=np.concatenate([recording.proprio[:1], recording.proprio[1:] + 9])
    )
    mine, theirs = (imagine_episodes(engine, [own], motion) for own in (recording, other))
    assert np.array_equal(mine.imagined, theirs.imagined) and not np.array_equal(
        mine.recorded, theirs.recorded
    )


def test_episodes_side_by_side_end_where_they_end(
    engine: Engine[LightWAM], recordings: list[Recording]
) -> None:
    found = imagine_episodes(engine, recordings, fitted(recordings))
    assert found.frames == [7, 11] and found.steps[-1] == 48
    means = mean_errors([found.of(n) for n in (0, 1)])
    assert len(means[IMAGINED]) == 10
    assert means[IMAGINED][0] == pytest.approx(float(found.errors[IMAGINED][:, 0].mean()))
    assert means[IMAGINED][9] == pytest.approx(float(found.errors[IMAGINED][1, 9]))
    shown = shown_episodes(engine, recordings, fitted(recordings), FilmConfig(width=64, hold_seconds=0), 0)
    assert [list(own.seconds.values())[-1] for own in shown.episodes] == [2.4, 4.0]


def test_chunks_that_do_not_reach_the_next_frame_end_it(engine: Engine[LightWAM]) -> None:
    assert out_of_reach(engine, "robot") == ""
    far = engine_of(tiny_policy(tiny_config()))
    far.robots = {"robot": replace(SPEC, frame_times=(0.0, 0.8, 1.6))}
    assert "Imagined frames lie 8 steps apart and a chunk has 6 actions" in out_of_reach(far, "robot")
