"""Clips: each sample is the window of its step, in physical units, and misfits are refused at the door."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from wamkit_client.types import BadInput

from tests.data import recording
from wamkit.data.actions import ActionSpace
from wamkit.data.clips import Clips
from wamkit.data.lerobot.dataset import Dataset
from wamkit.types import DataSpec

SPEC = DataSpec(
    views=("wrist", "top"),
    canvas="horizontal",
    view_height=32,
    view_width=48,
    hz=10,
    frame_times=(0.0, 0.2, 0.4),
    chunk_seconds=0.6,
    proprio_dim=2,
    action_dim=3,
)
SPACE = ActionSpace(names=("x", "y", "grip"), kinds=("delta", "absolute", "gripper"))


@pytest.fixture
def clips(recorded: Path) -> Clips:
    return Clips(Dataset.open(recorded), SPEC, SPACE)


def test_every_step_is_a_sample(clips: Clips) -> None:
    assert len(clips) == sum(recording.LENGTHS)
    assert clips.ids == [
        f"{e}:{step}" for e, length in enumerate(recording.LENGTHS) for step in range(length)
    ]
    assert [clips.sample(i).id for i in range(len(clips))] == clips.ids


@pytest.mark.parametrize("whole", [False, True])
def test_every_third_step_is_a_sample(recorded: Path, whole: bool) -> None:
    """The samples of every step, but fewer; and the first step of each episode begins one."""
    spec = replace(SPEC, whole_windows=whole)
    each = Clips(Dataset.open(recorded), spec, SPACE)
    third = Clips(Dataset.open(recorded), replace(spec, sample_every=3), SPACE)
    assert third.ids == [each.ids[i] for own in each.numbers for i in own[::3]]
    assert len(third) == len(third.ids) < len(each) and third.firsts == [0]
    for i in range(len(third)):
        seen, known = third.sample(i), each.sample(each.ids.index(third.ids[i]))
        assert seen.id == known.id == third.ids[i]
        np.testing.assert_array_equal(seen.clip.views["top"], known.clip.views["top"])
        np.testing.assert_array_equal(seen.actions, known.actions)
        np.testing.assert_array_equal(seen.clip.proprio, known.clip.proprio)


def test_whole_windows_end_inside_their_episode(recorded: Path) -> None:
    """Six actions and a last frame four steps on: the last five steps of an episode begin no sample."""
    dataset = Dataset.open(recorded)
    clips = Clips(dataset, replace(SPEC, whole_windows=True), SPACE)
    assert clips.ids == [
        f"{e}:{step}" for e, length in enumerate(recording.LENGTHS) for step in range(length - 5)
    ]
    for i, name in enumerate(clips.ids):
        sample = clips.sample(i)
        assert sample.id == name and not sample.action_is_pad.any() and not sample.frame_is_pad.any()
    with pytest.raises(BadInput, match=rf"longest has {max(recording.LENGTHS)} steps"):
        Clips(dataset, replace(SPEC, whole_windows=True, chunk_seconds=5.0), SPACE)


def test_a_sample(clips: Clips) -> None:
    sample, columns = clips.sample(12 + 3), recording.columns(1, 9)  # episode 1, step 3
    assert sample.id == "1:3"
    assert list(sample.clip.views) == ["wrist", "top"]
    frames = clips.dataset.frames("top", 1, [3, 5, 7])
    np.testing.assert_array_equal(sample.clip.views["top"][0], frames)
    np.testing.assert_array_equal(sample.clip.proprio[0], columns["observation.state"][3])
    np.testing.assert_array_equal(sample.actions[0], columns["action"][3:9])
    assert sample.clip.instructions == ("open the drawer",) and sample.clip.embodiments == ("testbot",)
    assert not sample.action_is_pad.any() and not sample.frame_is_pad.any()
    assert sample.actions.dtype == sample.clip.proprio.dtype == torch.float32


def test_after_the_end(clips: Clips) -> None:
    sample, columns = clips.sample(12 + 7), recording.columns(1, 9)
    assert sample.frame_is_pad.tolist() == [[False, True, True]]
    assert sample.action_is_pad.tolist() == [[False, False, True, True, True, True]]
    last = columns["action"][8]
    expected = [*columns["action"][7:9], *[[0.0, last[1], last[2]]] * 4]
    np.testing.assert_array_equal(sample.actions[0], np.array(expected, np.float32))
    np.testing.assert_array_equal(sample.clip.views["top"][0, 1:], clips.dataset.frames("top", 1, [8, 8]))


def test_actions_after_the_end_may_be_targets(clips: Clips, recorded: Path) -> None:
    """They are the same "stay"; what is padding is still said."""
    supervised = Clips(Dataset.open(recorded), replace(SPEC, past_end="supervised"), SPACE)
    masked, sample = clips.sample(12 + 7), supervised.sample(12 + 7)
    assert torch.equal(sample.actions, masked.actions)
    assert torch.equal(sample.action_is_pad, masked.action_is_pad)
    assert masked.valid.tolist() == [[True, True, False, False, False, False]] and sample.valid.all()


def test_proprio_of_every_frame(recorded: Path) -> None:
    """It repeats the last past the end, as the frames do."""
    every = Clips(Dataset.open(recorded), replace(SPEC, frame_proprio=True), SPACE)
    states = recording.columns(1, 9)["observation.state"]
    found = every.sample(12 + 6).more["frame_proprio"]
    np.testing.assert_array_equal(found, states[None, [6, 8, 8]])
    none = Clips(Dataset.open(recorded), replace(SPEC, frame_proprio=True, proprio_dim=0), SPACE)
    assert none.sample(0).more["frame_proprio"].shape == (1, 3, 0)


def test_order_does_not_matter(clips: Clips, recorded: Path) -> None:
    order = np.random.default_rng(0).permutation(len(clips))
    shuffled = {int(i): clips.sample(int(i)) for i in order}
    for i, sample in enumerate(Clips(Dataset.open(recorded), SPEC, SPACE)):
        again = shuffled[i]
        assert torch.equal(sample.actions, again.actions)
        assert all(torch.equal(sample.clip.views[view], again.clip.views[view]) for view in SPEC.views)


def test_one_dimension_is_still_a_row(tmp_path: Path) -> None:
    """LeRobot stores vectors of length one as plain numbers."""
    from wamkit.data.lerobot.writer import Writer

    features = {
        "action": {"dtype": "float32", "shape": [1]},
        "observation.state": {"dtype": "float32", "shape": [1]},
    }
    camera = {"observation.images.top": {"dtype": "video", "shape": [32, 32, 3]}}
    writer = Writer.create(tmp_path / "dataset", 10, "testbot", features | camera)
    columns = {name: np.arange(5.0)[:, None] for name in features}
    writer.add_episode(columns, {"top": np.zeros((5, 32, 32, 3), np.uint8)}, "go")
    writer.finalize()
    spec = replace(SPEC, views=("top",), proprio_dim=1, action_dim=1)
    sample = Clips(Dataset.open(tmp_path / "dataset"), spec, ActionSpace(("x",), ("absolute",))).sample(1)
    assert sample.actions.tolist() == [[[1.0], [2.0], [3.0], [4.0], [4.0], [4.0]]]
    assert sample.clip.proprio.tolist() == [[1.0]]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"views": ("front", "top")}, r"camera 'front' is missing; the dataset has \['top', 'wrist'\]"),
        ({"hz": 20}, "10 frames per second, the recipe asks for 20 Hz"),
        ({"action_dim": 4}, r"action has 3 dimension\(s\), the recipe expects 4"),
        ({"proprio_dim": 4}, r"observation.state has 2 dimension\(s\), the recipe expects 4"),
    ],
)
def test_misfits(recorded: Path, change: dict, message: str) -> None:
    with pytest.raises(BadInput, match=message):
        Clips(Dataset.open(recorded), replace(SPEC, **change), SPACE)


def test_the_space_must_name_every_dimension(recorded: Path) -> None:
    with pytest.raises(BadInput, match="names 1 dimensions, the recipe has 3"):
        Clips(Dataset.open(recorded), SPEC, ActionSpace(("x",), ("delta",)))


def test_no_language(breakable: Path) -> None:
    pq.write_table(pa.table({"task_index": [0, 1], "task": ["push", " "]}), breakable / "meta/tasks.parquet")
    with pytest.raises(BadInput, match="task 1 has no instruction"):
        Clips(Dataset.open(breakable), SPEC, SPACE)
    with pytest.raises(IndexError):
        pq.write_table(pa.table({"task_index": [0], "task": ["push"]}), breakable / "meta/tasks.parquet")
        Clips(Dataset.open(breakable), SPEC, SPACE).sample(10_000)
    with pytest.raises(BadInput, match="episode 1 step 0: task 1 has no text"):
        Clips(Dataset.open(breakable), SPEC, SPACE).sample(12)


def test_a_sample_of_numbers_that_are_not_finite_is_refused(breakable: Path) -> None:
    """Also where the statistics come from elsewhere, and nothing else has read the column."""
    file = breakable / "data/chunk-000/file-000.parquet"
    table = pq.read_table(file)
    states = np.stack(table["observation.state"].to_numpy())
    states[12 + 4, 1] = np.inf
    at = table.column_names.index("observation.state")
    pq.write_table(table.set_column(at, "observation.state", pa.array(list(states))), file)
    clips = Clips(Dataset.open(breakable), SPEC, SPACE)
    clips.sample(0)
    with pytest.raises(BadInput, match=r"observation\.state is inf in episode 1, step 4, dimension 1"):
        clips.sample(12)
