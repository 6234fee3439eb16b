"""Columns and cameras by other names: the same numbers and images, and what is not there is refused."""

from __future__ import annotations

import pickle
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from wamkit_client.types import BadInput

from tests.data import recording
from tests.data.test_clips import SPACE, SPEC
from tests.renamed import OPENPI, rename
from wamkit.data.clips import Clips
from wamkit.data.joined import open_datasets
from wamkit.data.lerobot.dataset import Dataset
from wamkit.data.normalize import dataset_stats

FIXTURES = Path(__file__).parent / "fixtures"
COLUMNS = {"action": "actions", "proprio": "state", "top": "image", "wrist": "wrist_image"}


@pytest.fixture(scope="module")
def openpi(recorded: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The recording in openpi's columns; do not change it."""
    return rename(Path(shutil.copytree(recorded, tmp_path_factory.mktemp("openpi") / "data")), OPENPI)


def test_the_same_samples_by_other_names(recorded: Path, openpi: Path) -> None:
    usual = Clips(Dataset.open(recorded), SPEC, SPACE)
    spec = replace(SPEC, columns=COLUMNS)
    other = Clips(open_datasets([openpi], spec.columns), spec, SPACE)
    assert other.dataset.cameras == ("top", "wrist")
    for i in (0, 15, len(usual) - 1):
        one, two = usual.sample(i), other.sample(i)
        assert torch.equal(one.actions, two.actions) and torch.equal(one.clip.proprio, two.clip.proprio)
        assert all(torch.equal(one.clip.views[view], two.clip.views[view]) for view in SPEC.views)
    stats = dataset_stats(other.dataset, other.episodes)
    np.testing.assert_array_equal(
        stats["proprio"].mean, dataset_stats(usual.dataset, usual.episodes)["proprio"].mean
    )


@pytest.mark.parametrize("fixture", ["v2.1", "v3.0", "v3.0-images"])
def test_every_version_and_images_in_data_files(fixture: str, tmp_path: Path) -> None:
    usual = Dataset.open(FIXTURES / fixture)
    renamed = rename(Path(shutil.copytree(FIXTURES / fixture, tmp_path / "data")), OPENPI)
    other = Dataset.open(renamed, COLUMNS)
    np.testing.assert_array_equal(other.column("action", 1), usual.column("action", 1))
    for camera in ("top", "wrist"):
        np.testing.assert_array_equal(other.frames(camera, 1, [3]), usual.frames(camera, 1, [3]))


def test_cameras_keep_their_names_unless_another_is_given(openpi: Path) -> None:
    assert Dataset.open(openpi).cameras == ("image", "wrist_image")
    for camera in ("wrist_image", "image"):
        assert camera in Dataset.open(openpi).cameras
    dataset = Dataset.open(openpi, {"front": "image"})
    assert set(dataset.cameras) == {"wrist_image", "front"} and dataset.camera_keys["front"] == "image"


def test_a_view_may_name_a_camera_without_its_prefix(recorded: Path) -> None:
    dataset = Dataset.open(recorded, {"front": "top"})
    assert dataset.camera_keys["front"] == "observation.images.top"


def test_parts_of_columns_and_several_joined(recorded: Path) -> None:
    joined = "observation.state[1]+action[0:2] + next.success+action[2:]"
    dataset = Dataset.open(recorded, {"proprio": joined})
    own = recording.columns(0, 12)
    expected = [own["observation.state"][:, 1:], own["action"][:, :2], own["next.success"][:, None]]
    found = dataset.column("observation.state", 0)
    np.testing.assert_array_equal(found, np.concatenate([*expected, own["action"][:, 2:]], axis=1))
    assert dataset.features["observation.state"]["shape"] == [5]
    assert dataset.features["observation.state"]["names"] is None  # next.success has no names
    named = Dataset.open(recorded, {"action": "action[2]+observation.state[:1]"})
    assert named.features["action"]["names"] == ["grip", "x"]
    assert not found.flags.writeable
    with pytest.raises(BadInput, match="has no episode 7"):
        dataset.column("observation.state", 7)


def test_names_reach_another_process(openpi: Path) -> None:
    dataset = pickle.loads(pickle.dumps(Dataset.open(openpi, COLUMNS)))
    assert dataset.column("action", 0).shape == (12, 3) and dataset.frames("top", 0, [0]).shape[0] == 1


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        (
            {"action": "action"},
            r"info.json: data.columns action=action: column 'action' is missing; .* did you ",
        ),
        ({"action": "action"}, r"did you mean 'actions'\? it has actions, state, next.success"),
        ({"action": "zzz"}, r"give another column; of numbers it has actions, state, next.success"),
        (
            {"action": "actions[0:4]"},
            r"column 'actions' has 3 dimension\(s\); give dimensions from 0 to below 3",
        ),
        ({"action": "actions[3]"}, r"as actions\[0:3\] or actions\[2\]"),
        ({"action": "actions[2:1]"}, r"has 3 dimension"),
        ({"action": "actions[]"}, r"has 3 dimension"),
        (
            {"proprio": "state+image"},
            r"column 'image' is of video, expected numbers; of numbers it has actions",
        ),
        ({"top": "wrist"}, r"data.views top=wrist: camera 'wrist' is missing; give another; did you mean"),
        (
            {"top": "state"},
            r"data.views top=state: column 'state' is of float32, expected images; give a camera",
        ),
    ],
)
def test_what_is_not_there_is_named(openpi: Path, columns: dict[str, str], message: str) -> None:
    with pytest.raises(BadInput, match=message):
        Dataset.open(openpi, columns)


def test_a_column_for_something_that_is_not_read() -> None:
    with pytest.raises(
        BadInput, match=r"data.columns: 'front' is none of action, proprio and the views \(wrist, top\)"
    ):
        replace(SPEC, columns={"front": "image"})
    with pytest.raises(BadInput, match=r"data.columns: no column for action; give one"):
        replace(SPEC, columns={"action": ""})
