"""A sample of every fourth step: what is encoded and trained on; reports look at every step all the same."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from wamkit_client.types import BadInput

from tests import tiny_dataset
from tests.tiny_dataset import RUN
from tests.train.test_loop import equal, weights
from wamkit.config import load_provenance
from wamkit.data.cache import Cache, read_fingerprint
from wamkit.stages.inspection import inspect
from wamkit.stages.report import judged, report
from wamkit.stages.run import NO_FILE, encode, open_clips, train

CPU = torch.device("cpu")
LENGTHS = (9, 12, 8)
FOURTH = replace(RUN, data=replace(RUN.data, sample_every=4), train=replace(RUN.train, steps=2, save_every=2))


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_dataset.write(tmp_path_factory.mktemp("every") / "dataset", LENGTHS)


@pytest.fixture(scope="module")
def trained(dataset: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    run_dir = tmp_path_factory.mktemp("every") / "run"
    train(FOURTH, [dataset], NO_FILE, run_dir, CPU)
    return run_dir


def test_a_cache_has_a_quarter_and_trains_the_same(dataset: Path, trained: Path, tmp_path: Path) -> None:
    encode(FOURTH, [dataset], tmp_path / "cache", CPU)
    [clips] = open_clips(FOURTH, [dataset])
    assert [int(name.split(":")[1]) for name in clips.ids] == [0, 4, 8, 0, 4, 8, 0, 4]
    cache = Cache.open(tmp_path / "cache", read_fingerprint(tmp_path / "cache"), FOURTH.data.hz)
    assert list(cache.ids) == clips.ids
    train(FOURTH, [dataset], tmp_path / "cache", tmp_path / "run", CPU)
    assert equal(weights(tmp_path / "run"), weights(trained))
    for every in (1, 3):
        other = replace(FOURTH, data=replace(FOURTH.data, sample_every=every))
        with pytest.raises(BadInput, match="window"):
            train(other, [dataset], tmp_path / "cache", tmp_path / "other", CPU)


def test_pages_show_every_step(dataset: Path, trained: Path, tmp_path: Path) -> None:
    [(clips, _)] = judged(FOURTH, load_provenance(trained), [dataset])
    assert [len(own) for own in clips.numbers] == list(LENGTHS)
    report(trained, tmp_path / "report.html", datasets=[dataset])
    inspect(FOURTH, [dataset], trained, tmp_path / "inspection.html")
    assert all((tmp_path / page).stat().st_size > 100_000 for page in ("report.html", "inspection.html"))
