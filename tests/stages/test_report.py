"""The page of a run without a simulator: which episodes it looks at, and what it says of every kind of policy."""

from __future__ import annotations

import json
import re
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from tests import tiny_dataset
from tests.policies.tiny_fast_wam import tiny_config as tiny_fast_wam
from tests.policies.tiny_policy import SPEC
from tests.test_bad_input import refused
from wamkit.analysis.open_loop import BASELINES, PREDICTED
from wamkit.cli import main
from wamkit.config import Run, Source, load_provenance
from wamkit.data.actions import ActionSpace
from wamkit.io.records import read_record
from wamkit.report.analyses import ImaginationRecord
from wamkit.report.imagination import CODED, IMAGINED, ONE_WINDOW, STILL
from wamkit.report.open_loop import ReportRecord
from wamkit.stages.run import NO_FILE, train
from wamkit.wan.encoders import HashedTextConfig

CPU = torch.device("cpu")
LENGTHS = (24, 30, 22, 27, 25)
HELD_OUT = replace(
    tiny_dataset.RUN,
    suite="",
    data=replace(tiny_dataset.RUN.data, held_out=0.4),
    train=replace(tiny_dataset.RUN.train, steps=4, log_every=1, held_out_every=2),
)


def trained(run: Run, datasets: list[Path], out: Path) -> Path:
    train(run, datasets, NO_FILE, out, CPU)
    return out


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`dataset`, and `run`, which held two of its five episodes out; do not change them."""
    made = tmp_path_factory.mktemp("report")
    trained(HELD_OUT, [tiny_dataset.write(made / "dataset", LENGTHS)], made / "run")
    return made


@pytest.fixture(scope="module")
def page(folder: Path) -> str:
    """Of both."""
    assert report(folder / "run", folder / "dataset", folder / "page.html") == 0
    return (folder / "page.html").read_text()


def report(run: Path, dataset: Path, out: Path, *words: str) -> int:
    return main(["report", str(run), "--dataset", str(dataset), "--out", str(out), *words])


def sections(page: str) -> list[str]:
    return re.findall(r'<section id="(\w+)"', page)


def test_a_run_without_a_suite_has_everything_but_success(page: str) -> None:
    assert sections(page) == ["open_loop", "future", "attention", "training", "data", "facts"]
    assert "Not evaluated in closed loop (wamkit eval)" in page and "No episode was recorded" not in page
    assert re.search(r'class="headline">Open-loop action error [\d.]+ in unit range, (not )?below the ', page)


def test_it_looks_at_the_episodes_that_were_held_out(page: str, folder: Path) -> None:
    held_out = load_provenance(folder / "run")["dataset"]["held_out"]
    assert len(held_out) == 2
    assert page.count(f"These episodes were held out of training: {', '.join(sorted(held_out))}.") >= 3
    (shown,) = read_record(folder / "page.json", ReportRecord, "").open_loop
    assert shown.episodes == sorted(held_out) and "held out of training" in shown.about
    assert {*re.findall(r"<h3>Episode (\d)", page)} == {*held_out}


def test_the_numbers_stand_beside_the_page(folder: Path, page: str) -> None:
    record = read_record(folder / "page.json", ReportRecord, "")
    (shown,) = record.open_loop
    assert record.command.startswith("wamkit report ") and record.command in page.replace("&#39;", "'")
    assert (shown.robot, shown.names, shown.kinds) == ("robot", ["x", "grip"], ["delta", "gripper"])
    steps = sum(LENGTHS[int(label)] - 1 for label in shown.episodes)
    assert shown.samples == steps and shown.counts == [steps - 2 * k for k in range(6)]
    for unit in ("physical", "unit"):
        assert [*shown.errors[unit]] == [PREDICTED, *BASELINES]
        assert all(len(table) == 6 and len(table[0]) == 2 for table in shown.errors[unit].values())
    weighted = [
        sum(count * row[i] for count, row in zip(shown.counts, shown.errors["unit"][PREDICTED], strict=True))
        / sum(shown.counts)
        for i in range(2)
    ]
    assert shown.means[PREDICTED] == pytest.approx(sum(weighted) / 2)


def test_the_same_run_gives_the_same_page(folder: Path, page: str, tmp_path: Path) -> None:
    assert report(folder / "run", folder / "dataset", tmp_path / "again.html") == 0
    assert (tmp_path / "again.html").read_text() == page
    assert (tmp_path / "again.json").read_bytes() == (folder / "page.json").read_bytes()


def test_what_was_measured_of_held_out_episodes_is_drawn(page: str, folder: Path) -> None:
    assert (folder / "run" / "held_out.jsonl").read_text().count("\n") == 2
    assert "held-out action error, unit range" in re.findall(r'aria-label="([^"]+)"', page)
    assert "held-out episodes" in page[page.index('id="training"') :]


def copied(folder: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(folder / "run", tmp_path / "run"))


def test_overfitting_and_closed_loop_are_said(folder: Path, tmp_path: Path) -> None:
    run = copied(folder, tmp_path)
    steps = range(100, 700, 100)
    metrics = [{"step": s, "loss": 100 / s} for s in steps]
    errors = [{"step": s, "loss": 1.0, "action_error": 0.1 + abs(s - 200) / 1000} for s in steps]
    solved = [{"step": s, "successes": s // 100, "trials": 10} for s in (300, 600)]
    for name, rows in (("metrics", metrics), ("held_out", errors), ("closed_loop", solved)):
        (run / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert main(["report", str(run)]) == 0
    page = (run / "report.html").read_text()
    assert sections(page) == ["training", "facts"] and not (run / "report.json").exists()
    assert "overfitting: on held-out episodes the action error was 0.1000 at step 200" in page
    titles = re.findall(r'aria-label="([^"]+)"', page)
    assert titles[:2] == ["held-out action error, unit range", "episodes solved in closed loop, %"]
    assert "Trained for 600 steps: loss 1 to 0.167" in page


@pytest.mark.parametrize("name", ["held_out", "closed_loop"])
def test_a_damaged_history_is_named(
    name: str, folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = copied(folder, tmp_path)
    (run / f"{name}.jsonl").write_text('{"step": 2}\n{oh\n')
    error = refused(capsys, ["report", str(run)])
    assert f"{name}.jsonl: line 2 is not JSON of numbers by name" in error


def test_where_nothing_was_held_out_it_says_so(folder: Path, tmp_path: Path) -> None:
    run = replace(HELD_OUT, data=tiny_dataset.RUN.data)
    trained(run, [folder / "dataset"], tmp_path / "run")
    assert report(tmp_path / "run", folder / "dataset", tmp_path / "page.html") == 0
    page = (tmp_path / "page.html").read_text()
    assert (
        "episodes that the policy was trained on: none was held out, as --train.held-out 0.05 would" in page
    )
    (shown,) = read_record(tmp_path / "page.json", ReportRecord, "").open_loop
    assert shown.episodes == ["0", "1", "2", "3", "4"]


def test_of_another_dataset_every_episode_is_looked_at(folder: Path, tmp_path: Path) -> None:
    """Also of one episode, of which no share could be held out."""
    other = tiny_dataset.write(tmp_path / "other", (26,), seed=3)
    assert report(folder / "run", other, tmp_path / "page.html") == 0
    (shown,) = read_record(tmp_path / "page.json", ReportRecord, "").open_loop
    assert shown.episodes == ["0"]
    assert f"episodes of {other}, which is not the dataset that the run says it was trained on" in shown.about


def test_another_dataset_may_have_other_names(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    other = renamed(tiny_dataset.write(tmp_path / "other", (26,), seed=3))
    asked = ["report", str(folder / "run"), "--dataset", str(other), "--out", str(tmp_path / "page.html")]
    assert "action" in refused(capsys, asked)
    asked += ["--sections", "open_loop", "facts", "--data.columns", "action=actions"]
    assert main(asked) == 0
    assert "--data.columns action=actions" in (tmp_path / "page.html").read_text()
    assert "takes no recipe values" in refused(capsys, [*asked, "--train.steps", "3"])


def renamed(dataset: Path) -> Path:
    """Its actions in a column "actions"."""
    import pyarrow.parquet as pq

    for path in dataset.glob("data/**/*.parquet"):
        table = pq.read_table(path)
        names = ["actions" if name == "action" else name for name in table.column_names]
        pq.write_table(table.rename_columns(names).replace_schema_metadata(None), path)
    info = json.loads((dataset / "meta/info.json").read_text())
    info["features"]["actions"] = info["features"].pop("action")
    (dataset / "meta/info.json").write_text(json.dumps(info))
    return dataset


def test_a_fast_wam(folder: Path, tmp_path: Path) -> None:
    policy = tiny_fast_wam(text=HashedTextConfig(width=16, length=8))
    run = trained(replace(HELD_OUT, policy=policy), [folder / "dataset"], tmp_path / "run")
    assert report(run, folder / "dataset", tmp_path / "page.html") == 0
    assert {"open_loop", "future"} <= {*sections((tmp_path / "page.html").read_text())}


ARM = Source("arms", SPEC, ActionSpace(("x", "grip"), ("delta", "gripper")), robot="arm")
HAND = Source(
    "hands",
    replace(
        SPEC,
        views=("top", "palm"),
        hz=5.0,
        frame_times=(0.0, 0.2, 0.4, 0.6, 0.8),
        chunk_seconds=0.8,
        proprio_dim=1,
        action_dim=4,
    ),
    ActionSpace(("a", "b", "c", "d"), ("absolute",) * 4),
    robot="hand",
)


def test_robots_of_a_mixture_are_measured_one_by_one(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Other rates, cameras, dimensions and chunks."""
    run = replace(HELD_OUT, data=replace(SPEC, action_dim=4), actions=HAND.actions, sources=(ARM, HAND))
    datasets = [
        tiny_dataset.write(tmp_path / "arm", (21, 17), robot="arm"),
        tiny_dataset.write(tmp_path / "hand", (15, 9), robot="hand", spec=HAND.data, seed=1),
    ]
    trained(run, datasets, tmp_path / "run")
    words = ["report", str(tmp_path / "run"), *(f"--dataset={path}" for path in datasets)]
    assert main(words) == 0
    arm, hand = read_record(tmp_path / "run/report.json", ReportRecord, "").open_loop
    assert (arm.robot, arm.hz, arm.names) == ("arm", 10.0, ["x", "grip"]) and len(arm.counts) == 6
    assert (hand.robot, hand.hz, hand.names) == ("hand", 5.0, ["a", "b", "c", "d"]) and len(hand.counts) == 4
    page = (tmp_path / "run/report.html").read_text()
    assert "Robot arm" in page and "Robot hand" in page
    error = refused(capsys, [*words, "--data.columns", "action=actions"])
    assert "run tiny has several sources (arms, hands), each with its own columns" in error


def test_weights_that_were_released_have_no_curves(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = copied(folder, tmp_path)
    (run / "metrics.jsonl").unlink()
    facts = json.loads((run / "provenance.json").read_text())
    facts["released"] = {"file": "step.pt"}
    facts["dataset"]["fingerprint"] = "unknown"
    (run / "provenance.json").write_text(json.dumps(facts))
    assert report(run, folder / "dataset", tmp_path / "page.html") == 0
    page = (tmp_path / "page.html").read_text()
    assert sections(page) == ["open_loop", "future", "attention", "data", "facts"]
    assert main(["report", str(run)]) == 0
    assert "Released weights, not evaluated" in (run / "report.html").read_text()
    error = refused(capsys, ["report", str(run), "--sections", "training"])
    assert "these weights were released without that" in error


def test_episodes_too_short_to_judge(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    short = tiny_dataset.write(tmp_path / "short", (1, 1))
    assert report(folder / "run", short, tmp_path / "page.html") == 0
    page = (tmp_path / "page.html").read_text()
    assert "open_loop" not in sections(page) and "fewer than the window of 16" in page
    asked = ["report", str(folder / "run"), "--dataset", str(short), "--sections", "open_loop"]
    assert "needs an episode with at least two samples, and the dataset has none" in refused(capsys, asked)
    asked = ["report", str(folder / "run"), "--sections", "open_loop"]
    assert "section 'open_loop': shows a dataset; name one with --dataset" in refused(capsys, asked)


def test_a_dataset_that_does_not_fit_the_run_is_refused(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    faster = tiny_dataset.write(tmp_path / "fast", (26,), spec=replace(SPEC, hz=20.0))
    out = tmp_path / "page.html"
    error = refused(capsys, ["report", str(folder / "run"), "--dataset", str(faster), "--out", str(out)])
    assert "20 frames per second" in error and not out.exists() and not out.with_suffix(".json").exists()


def test_episodes_are_imagined_beyond_a_window(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Of the two held-out episodes, of 23 and 29 steps where a window has 16; the same again with the same command."""
    flags = ("--dataset", str(folder / "dataset"), "--least", "2")
    words = ["analyse", "imagination", str(folder / "run"), *flags, "--out", str(tmp_path)]
    assert main(words) == 0
    record = read_record(tmp_path / "imagination.json", ImaginationRecord, "make it again")
    assert record.window == 16 and record.steps == [4, 8, 12, 16, 20] and set(record.remaining) == {2}
    assert list(record.errors) == [IMAGINED, ONE_WINDOW, STILL, CODED]
    assert record.errors[CODED][0].mean < record.errors[STILL][0].mean
    html = (tmp_path / "imagination.html").read_text()
    assert "after 2 s of imagining" in html and "were held out of training" in html
    assert record.origin.command.startswith("wamkit analyse imagination")
    assert main([*words, "--least", "1"]) == 0
    again = read_record(tmp_path / "imagination.json", ImaginationRecord, "make it again")
    assert again.errors[IMAGINED][:5] == record.errors[IMAGINED] and again.remaining == [2, 2, 2, 2, 2, 1, 1]
    assert main([*words, "--least", "3"]) == 2
    assert "2 episodes are longer than a window of 16 steps, expected at least 3" in capsys.readouterr().err
