"""Some episodes of a dataset: by number, by task, by success."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from wamkit_client.types import BadInput

from tests.data import recording
from tests.data.test_clips import SPACE, SPEC
from wamkit.data.clips import Clips
from wamkit.data.joined import open_datasets
from wamkit.data.lerobot.columns import NO_COLUMNS
from wamkit.data.lerobot.dataset import Dataset
from wamkit.data.lerobot.writer import Writer
from wamkit.subset import Subset


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Six episodes of two tasks, of which 1 and 4 failed; do not change it."""
    root = tmp_path_factory.mktemp("subset") / "data"
    writer = Writer.create(root, recording.FPS, "testbot", recording.FEATURES)
    for episode in range(6):
        length = recording.LENGTHS[episode % 3]
        columns = recording.columns(episode, length)
        columns["next.success"] &= episode not in (1, 4)
        videos = {camera: recording.pictures(episode, length, camera) for camera in ("top", "wrist")}
        extra = {"solved": bool(episode % 2), "seed": episode + 5}
        writer.add_episode(columns, videos, recording.TASKS[episode % 3], extra)
    writer.finalize()
    return root


@pytest.mark.parametrize(
    ("only", "expected"),
    [
        (Subset(), [0, 1, 2, 3, 4, 5]),
        (Subset(episodes=("1:3", "5")), [1, 2, 5]),
        (Subset(episodes=("4:",)), [4, 5]),
        (Subset(episodes=(":2", "0")), [0, 1]),
        (Subset(tasks=("open the drawer",)), [1, 4]),
        (Subset(tasks=("push*",)), [0, 2, 3, 5]),
        (Subset(tasks=("1",)), [1, 4]),
        (Subset(success="next.success"), [0, 2, 3, 5]),
        (Subset(success="solved"), [1, 3, 5]),
        (Subset(("0:4",), ("push the button",), "solved"), [3]),
    ],
)
def test_which_episodes_are_read(dataset: Path, only: Subset, expected: list[int]) -> None:
    opened = open_datasets([dataset], NO_COLUMNS, only)
    assert [episode.index for episode in opened.episodes] == expected
    clips = Clips(opened, SPEC, SPACE)
    assert {name.partition(":")[0] for name in clips.ids} == set(map(str, expected))
    assert clips.sample(0).id == f"{expected[0]}:0"


@pytest.mark.parametrize(
    ("only", "message"),
    [
        (
            Subset(episodes=("0:7",)),
            r"data.only.episodes 0:7: the dataset has episodes 0 to 5; give a range within 0:6",
        ),
        (Subset(episodes=("6",)), r"has episodes 0 to 5"),
        (Subset(episodes=("3:3",)), r"has episodes 0 to 5"),
        (Subset(episodes=("0-3",)), r"'0-3' is no number or range; give 7, 0:200, 100: or :50"),
        (Subset(episodes=("",)), r"'' is no number or range"),
        (
            Subset(tasks=("open the door",)),
            r"no task 'open the door'; did you mean 'open the drawer'\? .* 2 tasks: 0 'push the button'; 1 'open the",
        ),
        (Subset(tasks=("7",)), r"no task '7'"),
        (Subset(tasks=("lift*",)), r"no task 'lift\*'"),
        (
            Subset(success="succes"),
            r"no column 'succes'; .*it has action, observation.state, next.success, .*solved",
        ),
        (Subset(success="action"), r"column 'action' of episode 0 is not true or false"),
        (Subset(success="seed"), r"column 'seed' of episode 0 is not true or false"),
        (
            Subset(episodes=("1",), success="next.success"),
            r"none of 6 episodes is left \(data.only: episodes 1; success next.success\); ask for others",
        ),
    ],
)
def test_what_cannot_be_asked_for(dataset: Path, only: Subset, message: str) -> None:
    with pytest.raises(BadInput, match=message):
        open_datasets([dataset], NO_COLUMNS, only)


def test_each_dataset_of_several_has_its_own_episodes(dataset: Path, recorded: Path) -> None:
    opened = open_datasets([dataset, recorded], NO_COLUMNS, Subset(episodes=("1:3",)))
    assert [opened.label(episode.index) for episode in opened.episodes] == [
        "data/1",
        "data/2",
        "dataset/1",
        "dataset/2",
    ]


def test_success_in_the_list_of_episodes_of_an_older_version(tmp_path: Path) -> None:
    source = Path(__file__).parent / "fixtures" / "v2.1"
    path = Path(shutil.copytree(source, tmp_path / "data"))
    assert Dataset.open(path).episode_columns == ()
    episodes = path / "meta/episodes.jsonl"
    rows = [json.loads(line) for line in episodes.read_text().splitlines()]
    extended = [row | {"success": bool(row["episode_index"]), "marks": [1]} for row in rows]
    episodes.write_text("".join(json.dumps(row) + "\n" for row in extended))
    assert Dataset.open(path).episode_columns == ("success",)
    opened = open_datasets([path], NO_COLUMNS, Subset(success="success"))
    assert [episode.index for episode in opened.episodes] == [1]


def test_conditions_in_words() -> None:
    assert Subset().described == ""
    only = Subset(("0:3", "7"), ("pick*", "open the drawer"), "next.success")
    assert only.described == "episodes 0:3 7; tasks 'pick*' 'open the drawer'; success next.success"
