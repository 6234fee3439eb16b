"""What columns are taken for by their names, and the flags that messages propose."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from wamkit_client.types import BadInput

from tests.data.test_clips import SPACE, SPEC
from tests.renamed import OPENPI, rename
from wamkit.commands.columns import pairs
from wamkit.data.check import check, remarks
from wamkit.data.clips import Clips
from wamkit.data.conventions import columns_flag, proposal, view_flag
from wamkit.data.joined import open_datasets
from wamkit.data.lerobot.columns import named
from wamkit.data.lerobot.dataset import Dataset
from wamkit.data.lerobot.files import Info
from wamkit.stages.tables import dataset_table

VECTOR = {"dtype": "float32", "shape": [7], "names": None}
IMAGE = {"dtype": "video", "shape": [48, 64, 3]}


def info(numbers: str, cameras: str = "") -> Info:
    """A dataset with these columns and cameras."""
    features: dict[str, Any] = dict.fromkeys(numbers.split(), VECTOR) | dict.fromkeys(cameras.split(), IMAGE)
    return Info("v2.1", 15, features, 1, 1, 1, "", 1000)


DROID = "exterior_image_1_left exterior_image_2_left wrist_image_left"
AGIBOT = "observation.images.head observation.images.hand_left observation.images.head_depth"


@pytest.mark.parametrize(
    ("numbers", "cameras", "columns", "views"),
    [
        ("action observation.state", "observation.images.top", {}, ["top"]),  # LeRobot
        ("action state actions observation.state", "", {}, []),
        (
            "state actions timestamp",
            "wrist_image image",
            {"action": "actions", "proprio": "state"},
            ["image", "wrist_image"],
        ),
        (
            "joint_position gripper_position actions",
            DROID,
            {"action": "actions", "proprio": "joint_position+gripper_position"},
            ["exterior_image_1_left", "exterior_image_2_left", "wrist_image_left"],
        ),
        (
            "actions.joint.position actions.end.position actions.effector.position observation.states.joint.position "
            "observation.states.effector.position",
            AGIBOT,
            {
                "action": "actions.joint.position+actions.effector.position",
                "proprio": "observation.states.joint.position+observation.states.effector.position",
            },
            ["head", "hand_left"],
        ),
        (
            "action.arm action.hand state.arm",
            "observation.images.ego_view",
            {"action": "action.arm+action.hand", "proprio": "state.arm"},
            ["ego_view"],
        ),
        ("my_command joint_angles", "", {"action": "my_command", "proprio": "joint_angles"}, []),
    ],
)
def test_names_of_many_projects(numbers, cameras, columns, views):
    meta = info(numbers, cameras)
    found = proposal(meta)
    assert (found.columns, list(found.views), found.missing) == (columns, views, ())
    assert set(found.reasons) == {"action", "proprio", *views}
    names = named(meta, found.columns)
    assert {"action", "observation.state"} <= set(names.features)
    if columns:
        words = columns_flag(columns).removeprefix("--data.columns ").strip("'")
        assert pairs([words]) == columns


def test_depth_is_no_view():
    meta = info("action", "range front")
    depth = meta.features | {"range": IMAGE | {"info": {"video.is_depth_map": True}}}
    assert proposal(replace(meta, features=depth)).views == ("front",)
    assert proposal(replace(meta, features=depth | {"front": IMAGE | {"info": None}})).views == ("front",)


def test_a_guess_is_a_question_and_nothing_is_better_than_a_wrong_one():
    found = proposal(info("my_command"))
    assert found.reasons["action"].endswith("?") and found.missing == ("proprio",)
    found = proposal(info("left_command right_command reward"))
    assert found.missing == ("action", "proprio") and not found.columns


@pytest.mark.parametrize(
    ("cameras", "views", "flag"),
    [
        ("image wrist_image", ("front", "wrist"), "--data.views front=image wrist=wrist_image"),
        ("wrist_image image", ("gripperPOV", "corner2"), "--data.views gripperPOV=wrist_image corner2=image"),
        ("observation.images.top image", ("front", "top"), "--data.views front=image top"),
        ("image", ("front", "wrist"), ""),
    ],
)
def test_a_camera_for_every_view(cameras, views, flag):
    assert view_flag(info("action", cameras), views) == flag


@pytest.fixture(scope="module")
def openpi(recorded: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The recording in openpi's columns; do not change it."""
    return rename(Path(shutil.copytree(recorded, tmp_path_factory.mktemp("openpi") / "data")), OPENPI)


def test_a_run_that_does_not_fit_is_told_the_flags(openpi: Path) -> None:
    named_views = replace(SPEC, columns={"top": "image", "wrist": "wrist_image"})
    for spec, message in (
        (SPEC, r"or give --data.views wrist=wrist_image top=image. `wamkit init .* writes a recipe that"),
        (
            named_views,
            r"column 'action' is missing; give --data.columns action=actions,proprio=state \(columns of",
        ),
        (
            replace(named_views, columns={**named_views.columns, "action": "actions"}),
            r"'observation.state' is missing; give --data.columns action=actions,proprio=state, or --data.proprio",
        ),
        (
            replace(SPEC, columns={**named_views.columns, "action": "actions", "proprio": "actions"}),
            r"proprio=actions has 3 dimension\(s\), the recipe expects 2; .*: --data.columns 'proprio=actions\[0:2",
        ),
    ):
        with pytest.raises(BadInput, match=message):
            Clips(open_datasets([openpi], spec.columns), spec, SPACE)


def test_a_column_that_no_one_can_guess_is_asked_for(recorded: Path, tmp_path: Path) -> None:
    names = {"action": "left", "observation.state": "right"}
    path = rename(Path(shutil.copytree(recorded, tmp_path / "data")), names)
    with pytest.raises(
        BadInput, match=r"say where it is: --data.columns action=COLUMN \(columns of numbers: left, right"
    ):
        Clips(Dataset.open(path), SPEC, SPACE)
    [problem] = check(path)
    assert "say which it is: --data.columns action=COLUMN, of left, right, next.success" in str(problem)
    assert "record" not in str(problem)
    assert remarks(path) == [
        "meta/info.json: no 'observation.state'; it trains policies without proprio only"
    ]
    assert "left, right, next.success" in cells(path)["columns"]


def cells(path: Path) -> dict[str, str]:
    """The table of `wamkit data info`."""
    return dict(zip(*(map(str, column.cells) for column in dataset_table(path).columns), strict=True))


def test_check_and_info_of_openpi_columns(openpi: Path) -> None:
    assert check(openpi) == []
    [remark] = remarks(openpi)
    assert "action is 'actions' (as in openpi), proprio is 'state' (as in openpi)" in remark
    assert remark.endswith("train with --data.columns action=actions,proprio=state")
    shown = cells(openpi)
    assert shown["to read it"] == "--data.columns action=actions,proprio=state"
    assert shown["cameras"] == "image 32x48, wrist_image 32x48"
    assert shown["action range"].startswith("x -") and "grip" in shown["action range"]


def test_a_still_dimension_is_found_in_columns_of_any_name(openpi: Path, tmp_path: Path) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    path = Path(shutil.copytree(openpi, tmp_path / "data"))
    file = path / "data/chunk-000/file-000.parquet"
    table = pq.read_table(file)
    at = table.column_names.index("actions")
    still = [[row[0], row[1], 0.5] for row in table["actions"].to_pylist()]
    pq.write_table(table.set_column(at, table.field(at), pa.array(still, table.schema.field(at).type)), file)
    assert "action dimension 2 (grip) is always 0.5" in "\n".join(map(str, check(path)))
