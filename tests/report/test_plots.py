"""Plots, curves and histograms."""

from __future__ import annotations

import json
import re
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest
from wamkit_client.types import BadInput

from tests.policies.tiny_policy import tiny_config, tiny_policy
from wamkit.data.lerobot.dataset import Dataset
from wamkit.data.lerobot.writer import Writer
from wamkit.data.normalize import Normalizer, dataset_stats
from wamkit.report.distributions import distributions, distributions_of
from wamkit.report.plots import VARIABLES, curves, histogram, running_mean, smoothed
from wamkit.report.training import read_history, read_metrics, training


def test_running_mean() -> None:
    values = np.array([1.0, 3.0, 5.0, 7.0])
    assert running_mean(values, 1).tolist() == values.tolist()
    assert running_mean(values, 2).tolist() == [1.0, 2.0, 4.0, 6.0]


@pytest.mark.parametrize(
    "svg",
    [
        curves("a < b & c", smoothed(range(1, 101), np.linspace(1, 0.01, 100).tolist()), "step", log=True),
        curves("one point", smoothed([20], [0.5]), "step"),
        curves("nothing moves", smoothed([20, 40], [0.0, 0.0]), "step"),
        histogram("wide", np.random.default_rng(0).normal(size=500), (-2.0, 2.0)),
        histogram("one value", np.full(10, 3.0), (3.0, 3.0)),
    ],
)
def test_a_plot_is_well_formed_and_takes_the_pages_colours(svg: str) -> None:
    ElementTree.fromstring(svg.replace("xlink:href", "href"))
    assert not any(stand_in in svg for stand_in in VARIABLES) and "var(--blue)" in svg
    own = re.findall(r"(?:stroke|fill|color): (#\w+)", svg)
    assert own == [], "a colour that is not the page's"
    assert "http" not in svg and "<metadata" not in svg and "font-family" not in svg


def test_plots_repeat_and_their_ids_do_not_collide() -> None:
    first, again = (curves("loss", smoothed([1, 2, 3], [3.0, 2.0, 1.0]), "step") for _ in range(2))
    other = curves("lr", smoothed([1, 2, 3], [3.0, 2.0, 1.0]), "step")
    assert first == again
    ids = [set(re.findall(r'id="([^"]+)"', svg)) for svg in (first, other)]
    assert ids[0] and not ids[0] & ids[1]


def test_histogram_bars_are_shares() -> None:
    svg = histogram("x", np.array([0.0, 0.0, 0.0, 1.0]), (0.0, 1.0), bins=4)
    bars = re.findall(r'<path d="([^"]+)"[^>]*style="fill: var\(--blue\)', svg)
    heights = []
    for bar in bars:
        y = [float(number) for number in re.findall(r"[-\d.]+", bar)[1::2]]
        heights.append(max(y) - min(y))
    assert len(heights) == 4 and heights[1] == heights[2] == 0
    assert heights[0] == pytest.approx(3 * heights[3], rel=1e-3) and "60 %" in svg


def write_metrics(folder: Path, rows: list[dict[str, float]], tail: str = "") -> None:
    (folder / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows) + tail)


ROWS = [
    {
        "step": s,
        "loss": 2 / s,
        "loss/video": 1 / s,
        "loss/action": 1 / s,
        "grad_norm": 1.0,
        "lr": 1e-4,
        "new": 3.0,
    }
    for s in (20, 40, 60)
]


def test_every_column_has_a_curve_losses_first(tmp_path: Path) -> None:
    write_metrics(tmp_path, ROWS)
    body = training(read_history(tmp_path)).body
    titles = re.findall(r'aria-label="([^"]+)"', body)
    assert titles == [
        "total loss, weighted",
        "action loss",
        "video loss",
        "gradient norm before clipping",
        "learning rate",
        "new",
    ]
    assert "60 optimiser steps" in body


def test_a_line_cut_off_at_the_end_is_not_a_row(tmp_path: Path) -> None:
    write_metrics(tmp_path, ROWS, '{"step": 80, "lo')
    assert read_metrics(tmp_path / "metrics.jsonl") == ROWS


def test_broken_metrics_are_named(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match=r"metrics\.jsonl: missing"):
        read_history(tmp_path)
    write_metrics(tmp_path, [])
    with pytest.raises(BadInput, match=r"metrics\.jsonl: no row"):
        read_history(tmp_path)
    for tail in (
        "[1]\n",
        '{"step": "many"}\n',
        '{"step": 80, "loss": null}\n',
        "[" * 100_000 + "\n",
        "\udcff\n",
    ):
        write_metrics(tmp_path, ROWS)
        with (tmp_path / "metrics.jsonl").open("ab") as file:
            file.write(tail.encode(errors="surrogateescape"))
        with pytest.raises(BadInput, match=r"metrics\.jsonl: line 4 is not JSON of numbers by name"):
            read_history(tmp_path)
    write_metrics(tmp_path, ROWS, '{"step": 80}\n')
    with pytest.raises(BadInput, match=r"metrics\.jsonl: line 4 has other columns than the first"):
        read_history(tmp_path)
    write_metrics(tmp_path, ROWS, "{oh\n")
    with pytest.raises(BadInput, match=r"metrics\.jsonl: line 4 is not JSON"):
        read_history(tmp_path)


def test_the_normalisers_range_is_marked(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    features = {
        "action": {"dtype": "float32", "shape": [2], "names": ["dx", "grip"]},
        "observation.state": {"dtype": "float32", "shape": [3], "names": ["x", "y", "z"]},
    }
    writer = Writer.create(tmp_path / "data", fps=10.0, robot_type="robot", features=features)
    columns = {"action": rng.normal(size=(30, 2)), "observation.state": rng.normal(size=(30, 3))}
    columns = {name: rows.astype(np.float32) for name, rows in columns.items()}
    writer.add_episode(columns=columns, videos={}, task="slide it")
    writer.finalize()
    dataset = Dataset.open(tmp_path / "data")
    modes = {"action": "min_max", "proprio": "z_score"}
    action, proprio = distributions_of(
        dataset, Normalizer.fit({"robot": dataset_stats(dataset, dataset.episodes)}, modes)
    )
    assert action.names == ("dx", "grip") and np.array_equal(action.values, columns["action"])
    assert np.allclose(action.low, columns["action"].min(axis=0), atol=1e-5)
    assert np.allclose(action.high, columns["action"].max(axis=0), atol=1e-5)
    assert np.allclose((proprio.low + proprio.high) / 2, columns["observation.state"].mean(axis=0), atol=1e-5)
    body = distributions([action, proprio]).body
    assert re.findall(r'aria-label="([^"]+)"', body) == ["dx", "grip", "x", "y", "z"]
    assert "30 frames; lines at mean ± one standard deviation" in body
    with pytest.raises(BadInput, match="unknown embodiment"):
        distributions_of(dataset, tiny_policy_normalizer("another"))


def tiny_policy_normalizer(name: str) -> Normalizer:
    policy = tiny_policy(tiny_config())
    return Normalizer.fit({name: policy.normalizer.stats["robot"]}, policy.normalizer.modes)
