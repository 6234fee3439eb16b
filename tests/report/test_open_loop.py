"""The open-loop section: what is measured, drawn and written of a policy whose errors are known."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest
from wamkit_client.types import ActionChunk, Observation

from tests import tiny_dataset
from tests.policies.tiny_policy import SPEC
from wamkit.analysis.open_loop import MEAN, PREDICTED, PREVIOUS
from wamkit.data.clips import Clips
from wamkit.data.lerobot.dataset import Dataset
from wamkit.data.normalize import Normalizer, dataset_stats
from wamkit.report import open_loop as section
from wamkit.report.open_loop import OpenLoop, measure, open_loop, open_loop_header, record_of, to_unit
from wamkit.report.plots import heat_map, track
from wamkit.report.predictions import chunks_of
from wamkit.report.watched import DatasetEpisode, dataset_episodes, evenly, located, query_at

LENGTHS = (14, 1, 20)
ABOUT = "These are episodes of noise."


class Offset:
    """An engine that knows the recorded actions, and is wrong by a half in the first dimension, in the second by 0."""

    def __init__(self, clips: Clips) -> None:
        samples = [clips.without_views(i) for i in range(len(clips))]
        self.known = {sample.clip.proprio.numpy().tobytes(): sample.actions[0].numpy() for sample in samples}
        self.asked: list[Observation] = []

    def act(self, observations: Sequence[Observation]) -> list[ActionChunk]:
        self.asked += observations
        return [
            ActionChunk(self.known[own.proprio.tobytes()] + np.array([0.5, 0], np.float32))
            for own in observations
        ]


@pytest.fixture(scope="module")
def clips(tmp_path_factory: pytest.TempPathFactory) -> Clips:
    folder = tmp_path_factory.mktemp("open_loop") / "dataset"
    return Clips(Dataset.open(tiny_dataset.write(folder, LENGTHS)), SPEC, tiny_dataset.RUN.actions)


@pytest.fixture(scope="module")
def normalizer(clips: Clips) -> Normalizer:
    stats = dataset_stats(clips.dataset, clips.episodes)
    return Normalizer.fit({"robot": stats}, {"action": "min_max", "proprio": "min_max"})


@pytest.fixture(scope="module")
def measured(clips: Clips, normalizer: Normalizer) -> OpenLoop:
    (found,) = measure(Offset(clips), normalizer, [(clips, ABOUT)])
    return found


def test_episodes_of_a_dataset_are_looked_at_by_step(clips: Clips) -> None:
    episode = DatasetEpisode(clips, 2)
    assert (episode.title, episode.detail, episode.robot) == ("Episode 2", "push the square 0", "robot")
    assert episode.steps == 19 and len(episode.actions) == 20
    assert len(episode.query_steps) == 12 and {0, 19} <= {*episode.query_steps.tolist()}
    assert query_at(episode, 1 / 3) == 7
    clip = episode.clip(3, (0, 4), ("wrist",))
    frames = clips.dataset.frames("wrist", 2, [3, 7])
    assert np.array_equal(clip.views["wrist"][0].numpy(), frames) and list(clip.views) == ["wrist"]
    sample = clips.sample(14 + 1 + 3)
    assert clip.proprio.tolist() == sample.clip.proprio.tolist()
    ours, theirs = episode.observation(3, 9), sample.observation(9)
    assert ours.noise_seed == 9 and np.array_equal(ours.proprio, theirs.proprio)
    assert all(np.array_equal(ours.images[view], theirs.images[view]) for view in SPEC.views)
    assert episode.before(0).shape == (0, 2) and np.array_equal(episode.before(3)[0], episode.actions[2])


def test_a_policy_whose_cameras_have_other_names_sees_its_own(clips: Clips) -> None:
    named = Clips(clips.dataset, SPEC, clips.space, ("above", "hand"))
    episode = DatasetEpisode(named, 0)
    assert list(episode.clip(0, (0,), ("hand",)).views) == ["hand"]
    assert list(episode.observation(0, 0).images) == list(SPEC.views)  # the engine renames them


def test_samples_are_found_in_their_episodes(clips: Clips) -> None:
    places = [(own.place, step) for own, step in (located(clips, i) for i in (0, 13, 14, 15, 34))]
    assert places == [(0, 0), (0, 13), (1, 0), (2, 0), (2, 19)]
    assert evenly(5, 3) == [0, 2, 4] and evenly(2, 9) == [0, 1] and evenly(7, 1) == [0]
    assert [own.place for own in dataset_episodes(clips, 2)] == [0, 2]


def test_chunks_are_predicted_from_single_observations(clips: Clips) -> None:
    engine = Offset(clips)
    found = chunks_of(clips, [1, 16], [engine], lambda count, note="": None)
    assert list(found) == [1, 16] and [chunk.id for chunk in found.values()] == ["0:1", "2:1"]
    assert [own.noise_seed for own in engine.asked] == [1, 16]
    assert np.allclose(found[16].predicted - found[16].recorded, [0.5, 0])
    assert np.array_equal(found[16].before[0], DatasetEpisode(clips, 2).actions[0])
    (alone,) = chunks_of(clips, [0], [], lambda count, note="": None).values()
    assert alone.predicted.shape == (0, 2) and alone.before.shape == (0, 2)


def test_errors_are_those_of_the_policy_and_of_two_guesses(
    measured: OpenLoop, clips: Clips, normalizer: Normalizer
) -> None:
    assert measured.samples == 13 + 19 and measured.episodes == ["0", "1", "2"]
    assert measured.physical.by_dimension(PREDICTED) == pytest.approx([0.5, 0], abs=1e-6)
    low, high = normalizer.ends("action", "robot")
    assert measured.unit.errors[PREDICTED].shape == (6, 2)
    assert measured.unit.by_dimension(PREDICTED)[0] == pytest.approx(0.5 * 2 / (high[0] - low[0]), rel=1e-4)
    actions = [DatasetEpisode(clips, place).actions for place in (0, 2)]
    first = [np.abs(own[1:] - own[:-1]) for own in actions]
    assert measured.physical.errors[PREVIOUS][0] == pytest.approx(np.concatenate(first).mean(0), rel=1e-5)
    mean = normalizer.stats["robot"]["action"].mean
    after = np.concatenate([np.abs(own[1:] - mean) for own in actions])
    assert measured.physical.errors[MEAN][0] == pytest.approx(after.mean(0), rel=1e-5)
    assert measured.correlation == pytest.approx([1, 1], abs=1e-6)


def test_a_narrow_robot_is_measured_in_its_own_unit_range(normalizer: Normalizer) -> None:
    stats = normalizer.stats["robot"]["action"]
    wide = replace(
        stats, **{name: np.append(getattr(stats, name), 1.0) for name in ("min", "max", "mean", "std")}
    )
    wide = replace(
        wide, **{name: np.append(getattr(stats, name), 1.0) for name in ("q01", "q10", "q50", "q90", "q99")}
    )
    both = Normalizer.fit({"robot": {"action": stats}, "other": {"action": wide}}, {"action": "min_max"})
    actions = np.array([[[0.1, 0.2]]], np.float32)
    assert np.array_equal(to_unit(both, "robot")(actions), to_unit(normalizer, "robot")(actions))


def test_chunks_are_drawn_end_to_end_up_to_the_end_of_the_episode(measured: OpenLoop) -> None:
    first, last = measured.tracks
    assert first.starts == [0, 6, 12] and [len(chunk) for chunk in first.chunks] == [6, 6, 2]
    assert last.starts == [0, 6, 12, 18] and len(last.recorded) == 20
    assert np.allclose(last.chunks[-1] - last.recorded[18:], [0.5, 0], atol=1e-6)


def test_an_episode_of_one_sample_cannot_be_judged(
    clips: Clips, normalizer: Normalizer, tmp_path: Path
) -> None:
    alone = Clips(Dataset.open(tiny_dataset.write(tmp_path / "short", (1, 1))), SPEC, clips.space)
    assert measure(Offset(clips), normalizer, [(alone, ABOUT)]) == []


def test_a_long_dataset_is_measured_at_some_steps(
    clips: Clips, normalizer: Normalizer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(section, "SAMPLES", 5)
    monkeypatch.setattr(section, "CHUNKS", 2)
    engine = Offset(clips)
    (found,) = measure(engine, normalizer, [(clips, ABOUT)])
    assert found.samples == 5 and [own.starts for own in found.tracks] == [[0, 12], [0, 18]]
    assert len(engine.asked) == 5 + 4


def much_worse(measured: OpenLoop) -> OpenLoop:
    errors = {**measured.unit.errors, PREDICTED: np.full((6, 2), 9.0)}
    return replace(measured, unit=replace(measured.unit, errors=errors))


def row(body: str, name: str) -> list[str]:
    """The cells of a dimension."""
    line = body[body.index(f'<th scope="row">{name}') :]
    cells = re.findall(r"<td[^>]*><div>(.*?)</div>", line[: line.index("</tr>")])
    return [re.sub(r"<[^>]*>", "", cell) for cell in cells]


def test_the_section_says_which_episodes_and_has_every_number(measured: OpenLoop) -> None:
    body = open_loop([measured]).body
    assert body.count(ABOUT) == 1 and "At 32 of their steps" in body and "Robot robot" not in body
    assert "a chunk of 6 actions" in " ".join(body.split()) and "0.6 s at 10 Hz" in body
    assert "Open-loop error is not success." in body
    x = row(body, "0 x (delta)")
    assert float(x[0]) == pytest.approx(0.5, rel=1e-2) and float(x[4]) == float(x[5]) == float(x[0])
    assert x[6] == "1.00"
    titles = re.findall(r'aria-label="([^"]+)"', body)
    assert titles[:3] == [
        "mean error over dimensions, unit range",
        "error in unit range",
        "against the better baseline",
    ]
    assert titles[3:] == [f"{name} of Episode {n}" for n in (0, 2) for name in ("x", "grip")]
    assert open_loop([measured]).body == body
    assert open_loop([measured, measured]).body.count("Robot robot") == 2


def test_a_dimension_that_a_guess_predicts_better_is_red(measured: OpenLoop) -> None:
    bad = re.findall(r'class="bad">', open_loop([measured]).body)
    errors = measured.physical
    worse = errors.by_dimension(PREDICTED)[0] >= min(errors.by_dimension(n)[0] for n in (PREVIOUS, MEAN))
    assert len(bad) == int(worse)
    poor = much_worse(measured)
    assert open_loop([poor]).body.count('class="bad">') == 2


def test_the_headline_compares_with_the_better_guess(measured: OpenLoop) -> None:
    head = open_loop_header("run", [measured])
    own, *others = (measured.unit.total(name) for name in (PREDICTED, PREVIOUS, MEAN))
    assert own < min(others) == others[1]
    assert head.headline == (
        f"Open-loop action error {own:.2g} in unit range, below the {others[1]:.2g} of the mean action"
    )
    assert head.subline.startswith(ABOUT) and "Not evaluated in closed loop" in head.subline
    poor = much_worse(measured)
    assert "not below the" in open_loop_header("run", [poor]).headline


def test_the_record_has_null_where_every_chunk_is_padded(measured: OpenLoop) -> None:
    padded = replace(
        measured,
        unit=replace(
            measured.unit,
            errors={
                name: np.vstack([own[:5], [[np.nan, np.nan]]]) for name, own in measured.unit.errors.items()
            },
            counts=np.array([3, 3, 3, 3, 3, 0]),
        ),
        correlation=np.array([1.0, np.nan]),
    )
    record = record_of(padded)
    assert record.errors["unit"][PREDICTED][5] == [None, None] and record.correlation == [1.0, None]
    assert record.names == ["x", "grip"] and record.kinds == ["delta", "gripper"] and record.counts[-1] == 0
    assert record.means[PREDICTED] == pytest.approx(padded.unit.total(PREDICTED))
    assert "nan" not in open_loop([padded]).body.lower().replace("dominant", "")


def test_cells_of_a_map_are_red_above_nothing_and_blue_below() -> None:
    values = np.array([[1.0, 0.0, -0.5], [np.nan, 0.25, 0.0]])
    svg = heat_map("error", ["x", "a name that is much too long for a row"], values, "step")
    assert svg.count("fill: var(--red)") == 2 and svg.count("fill: var(--blue)") == 1
    assert "a name that is much t…" in svg and "opacity: 0.25" in svg


def test_a_track_of_one_step() -> None:
    svg = track("x", "Episode 0", np.zeros(1), [0], [np.zeros(1)], 0.1)
    assert 'aria-label="x of Episode 0"' in svg and "var(--orange)" in svg
