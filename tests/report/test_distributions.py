"""A histogram for every dimension of a dataset, however it names them."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from tests.data import recording
from wamkit.data.check import check
from wamkit.data.lerobot.dataset import Dataset
from wamkit.data.normalize import Normalizer, dataset_stats
from wamkit.report.distributions import distributions, distributions_of
from wamkit.report.page import Header, write_page
from wamkit.stages.tables import dataset_table

NAMES = {
    "list": (["x", "y", "grip"], ("x", "y", "grip")),
    "null": (None, ("0", "1", "2")),
    "motors": ({"motors": ["x", "y", "grip"]}, ("x", "y", "grip")),
    "too few": (["x"], ("0", "1", "2")),
    "too many": (["x", "y", "z", "grip"], ("0", "1", "2")),
}


@pytest.fixture(scope="module", params=NAMES)
def named(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, tuple[str, ...]]:
    """A dataset whose action names are written as the parameter says, and what a reader is to see."""
    written, expected = NAMES[request.param]
    root = recording.write(tmp_path_factory.mktemp("named") / "dataset")
    info = json.loads((root / "meta/info.json").read_text())
    info["features"]["action"]["names"] = written
    info["features"]["observation.state"].pop("names")
    (root / "meta/info.json").write_text(json.dumps(info))
    return root, expected


def test_the_page_has_a_histogram_per_dimension(named: tuple[Path, tuple[str, ...]], tmp_path: Path) -> None:
    root, expected = named
    dataset = Dataset.open(root)
    normalizer = Normalizer.fit(
        {dataset.robot_type: dataset_stats(dataset, dataset.episodes)},
        {"action": "min_max", "proprio": "min_max"},
    )
    action, proprio = distributions_of(dataset, normalizer)
    assert (action.names, proprio.names) == (expected, ("0", "1"))
    page = tmp_path / "page.html"
    write_page(page, Header("title", "headline", "subline"), [distributions([action, proprio])])
    html = page.read_text()
    assert html.count("<svg") == 5
    assert re.findall(r'<svg[^>]*aria-label="([^"]*)"', html) == [*expected, "0", "1"]


def test_check_and_info_take_the_same_names(named: tuple[Path, tuple[str, ...]]) -> None:
    root, expected = named
    assert check(root) == []
    facts = dict(zip(*(column.cells for column in dataset_table(root).columns), strict=True))
    words = re.findall(r"[a-z]+", str(facts["action range"]).replace("e-", ""))
    assert words == [name for name in expected if name.isalpha()]
