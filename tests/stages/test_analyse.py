"""`wamkit analyse` on a trained latent world model: records that are read back strictly, pages, and clear errors."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.policies.tiny_lawam_world import PAIR_RUN, PAIRS
from tests.tiny_dataset import write
from wamkit.analysis.rollout import CURVES
from wamkit.cli import main
from wamkit.io.records import read_record
from wamkit.report.analyses import HeatmapRecord, RolloutRecord
from wamkit.stages.run import NO_FILE, train

PRETRAINED = Path(__file__).parents[2] / "pretrained" / "metaworld3"


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a dataset and a run; commands write elsewhere."""
    folder = tmp_path_factory.mktemp("analysed")
    write(folder / "dataset", (9, 12, 21, 3), spec=PAIRS, size=40)
    run = replace(PAIR_RUN, train=replace(PAIR_RUN.train, steps=2))
    train(run, [folder / "dataset"], NO_FILE, folder / "run", torch.device("cpu"))
    return folder


def analyse(folder: Path, kind: str, *more: str) -> int:
    return main(["analyse", kind, str(folder / "run"), "--dataset", str(folder / "dataset"), *more])


def refused(capsys: pytest.CaptureFixture[str], folder: Path, kind: str, *more: str) -> str:
    capsys.readouterr()
    assert analyse(folder, kind, *more) == 2
    return " ".join(capsys.readouterr().err.split())


def test_a_rollout_is_a_record_and_a_page(trained, tmp_path):
    assert analyse(trained, "rollout", "--out", str(tmp_path), "--least", "2") == 0
    record = read_record(tmp_path / "rollout.json", RolloutRecord, "")
    assert record.format == "wamkit-rollout-1" and (record.steps, record.seconds) == (4, 0.4)
    assert record.remaining == [3, 3, 1, 1, 1]  # episodes of 9, 12 and 21 steps; the shortest has no pair
    assert set(record.curves) == {"all", "moving"} and set(record.curves["all"]) == set(CURVES)
    assert all(len(curve) == 2 for own in record.curves.values() for curve in own.values())
    assert all(-1 <= value.low <= value.mean <= value.high <= 1 for value in record.curves["all"]["inferred"])
    assert record.codes.count == 2 + 2 + 5 and len(record.codes.variance) == 4
    assert 0 <= record.effect.same_place <= 1 and len(record.transfer.sizes) == len(record.transfer.tasks)
    assert record.origin.policy["kind"] == "lawam_world" and record.origin.revision
    assert record.origin.dataset["episodes"] == 4 and record.origin.machine["cpu"]
    page = (tmp_path / "rollout.html").read_text()
    assert page.count('<svg class="plot"') == 4 and "https://" not in page and "record.origin" not in page
    again = tmp_path / "again"
    assert analyse(trained, "rollout", "--out", str(again), "--least", "2") == 0
    both = [json.loads((folder / "rollout.json").read_text()) for folder in (tmp_path, again)]
    assert both[0]["curves"] == both[1]["curves"] and both[0]["effect"] == both[1]["effect"]


def test_a_heat_map_is_a_record_arrays_and_a_page(trained, tmp_path):
    words = ("--out", str(tmp_path), "--episode", "2", "--anchor", "1,2", "--chunks", "2")
    assert analyse(trained, "heatmap", *words) == 0
    record = read_record(tmp_path / "heatmap.json", HeatmapRecord, "")
    assert (record.anchor, record.starts, record.steps, record.episode) == ((1, 2), [0, 12], 4, "2")
    arrays = np.load(tmp_path / "heatmap.npz")
    assert set(arrays) == {
        f"{kind}_{name}" for kind in ("alike", "components") for name in ("now", "truth", "oracle")
    }
    assert arrays["alike_now"].shape == (2, 4, 4) and arrays["components_truth"].shape == (2, 4, 4, 3)
    assert arrays["alike_now"][0, 1, 2] == pytest.approx(1)  # the anchor is a patch of the first frame
    page = (tmp_path / "heatmap.html").read_text()
    assert len(re.findall("<h3>step ", page)) == 2 and page.count("<img") == 2 * (3 * 3 - 1)


def test_what_cannot_be_analysed(trained, tmp_path, capsys):
    out = ("--out", str(tmp_path / "out"))
    error = refused(capsys, trained, "rollout", *out)
    assert "3 episodes are longer than 4 steps, expected at least 50" in error and "--least" in error
    assert "grid is 4 rows of 4 patches" in refused(capsys, trained, "heatmap", "--anchor", "4,0", *out)
    assert "expected a row and a column" in refused(capsys, trained, "heatmap", "--anchor", "4", *out)
    assert "there are 4, numbered from 0" in refused(capsys, trained, "heatmap", "--episode", "4", *out)
    error = refused(capsys, trained, "heatmap", "--episode", "3", *out)
    assert "episode 3 has 3 steps, expected more than the 4" in error
    assert main(["analyse", "rollout", str(PRETRAINED), "--dataset", str(trained / "dataset"), *out]) == 2
    error = " ".join(capsys.readouterr().err.split())
    assert "light_wam has no latent world model" in error
    assert not (tmp_path / "out").exists()
