"""A page whose pieces are missing or damaged is one message that names the piece, and leaves no page behind."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from wamkit.cli import main
from wamkit.data.lerobot.writer import Writer

PRETRAINED = Path(__file__).parents[2] / "pretrained" / "metaworld3"
Break = Callable[[Path], None]


def remove(name: str) -> Break:
    return lambda root: (root / name).unlink()


def write(name: str, content: bytes) -> Break:
    def apply(root: Path) -> None:
        (root / name).write_bytes(content)

    return apply


def change(name: str, **values: object) -> Break:
    """Other values in a JSON file; a value that is `...` is taken out."""

    def apply(root: Path) -> None:
        tree = json.loads((root / name).read_text()) | values
        (root / name).write_text(json.dumps({key: value for key, value in tree.items() if value is not ...}))

    return apply


PROVENANCE = "run/provenance.json"
RESULTS = "run/eval/metaworld3/results.json"
BROKEN: dict[str, tuple[Break, tuple[str, ...]]] = {
    "no run": (lambda root: shutil.rmtree(root / "run"), ("run: run.json is missing",)),
    "cut results": (write(RESULTS, b'{"format'), (RESULTS, "is damaged")),
    "no dataset": (lambda root: shutil.rmtree(root / "dataset"), ("dataset/meta/info.json: is missing",)),
    "no provenance": (remove(PROVENANCE), ("provenance.json is missing",)),
    "binary provenance": (write(PROVENANCE, b"\xff\xfe\x00"), (PROVENANCE, "not a text file")),
    "cut provenance": (write(PROVENANCE, b'{"revision": "a'), (PROVENANCE, "restore it from a copy")),
    "a list": (write(PROVENANCE, b"[1]"), (PROVENANCE, "the content: ")),
    "no parameters": (change(PROVENANCE, parameters=...), (PROVENANCE, "parameters: field required")),
    "no cpu": (change(PROVENANCE, machine={}), (PROVENANCE, "machine.cpu: field required")),
    "no steps": (change(PROVENANCE, dataset={"episodes": 3}), (PROVENANCE, "dataset.steps: field required")),
    "states": (change(PROVENANCE, initial_states=[{"task": "a"}]), (PROVENANCE, "initial_states.0.seed")),
    "NaN action": (
        lambda root: nan_action(root / "dataset"),
        ("file-000.parquet: action is nan in episode 1, step 2, dimension 0",),
    ),
    "another robot": (change("dataset/meta/info.json", robot_type="other"), ("unknown embodiment 'other'",)),
    "no metrics": (remove("run/metrics.jsonl"), ("metrics.jsonl: missing",)),
}


def nan_action(root: Path) -> None:
    file = root / "data/chunk-000/file-000.parquet"
    table = pq.read_table(file)
    actions = np.stack(table["action"].to_numpy())
    actions[5 + 2, 0] = np.nan
    at = table.column_names.index("action")
    pq.write_table(table.set_column(at, "action", pa.array(list(actions))), file)


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run, an evaluation without recordings, and a dataset without names of dimensions."""
    root = tmp_path_factory.mktemp("sound")
    shutil.copytree(PRETRAINED, root / "run")
    results = json.loads((root / "run/eval/published/results.json").read_text())
    for episode in results["episodes"]:
        episode["recording"] = ""
    (root / RESULTS).parent.mkdir()
    (root / RESULTS).write_text(json.dumps(results))
    vector = {"dtype": "float32", "shape": [4], "names": None}
    picture = {"dtype": "video", "shape": [32, 32, 3]}
    views = json.loads((root / "run/run.json").read_text())["data"]["views"]
    features = {"action": vector, "observation.state": vector}
    features |= {f"observation.images.{view}": picture for view in views}
    writer, random = (
        Writer.create(root / "dataset", 80, "metaworld_sawyer", features),
        np.random.default_rng(0),
    )
    for length in (5, 6):
        columns = {name: random.uniform(-0.5, 0.5, (length, 4)) for name in ("action", "observation.state")}
        frames = np.zeros((length, 32, 32, 3), np.uint8)
        writer.add_episode(columns, {view: frames for view in views}, "reach")
    writer.finalize()
    return root


def report(root: Path, *words: str) -> int:
    return main(["report", str(root / "run"), "--dataset", str(root / "dataset"), *words])


def sections(page: Path) -> list[str]:
    return re.findall(r'<section id="(\w+)"', page.read_text())


def test_a_dataset_without_names_gives_a_page(sound: Path) -> None:
    assert report(sound) == 0
    page = sound / "run/report.html"
    labels = re.findall(r'aria-label="(\d)"', page.read_text())
    assert labels == ["0", "1", "2", "3"] * 2  # of actions and of proprio
    page.unlink()


def test_results_that_are_named_must_be_there(sound: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert report(sound, "--results", str(sound / "elsewhere")) == 2
    error = " ".join(capsys.readouterr().err.split())
    assert "elsewhere/results.json is missing; expected the results.json of an evaluation" in error


def test_a_run_that_was_not_evaluated_has_a_page(sound: Path, tmp_path: Path) -> None:
    root = Path(shutil.copytree(sound, tmp_path / "run"))
    shutil.rmtree(root / "run/eval")
    assert report(root) == 0
    page = root / "run/report.html"
    shown = sections(page)
    assert not {"success", "rollouts"} & {*shown} and {"future", "attention", "training", "data"} <= {*shown}
    text = page.read_text()
    assert "Not evaluated in closed loop (wamkit eval)" in text and "episodes solved" not in text
    assert "wamkit report" in text  # repeats it


def test_without_a_dataset_it_shows_what_it_can(
    sound: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root = Path(shutil.copytree(sound, tmp_path / "run"))
    shutil.rmtree(root / "run/eval")
    assert main(["report", str(root / "run")]) == 0
    assert sections(root / "run/report.html") == ["training", "facts"]
    for name, words in (
        ("data", "shows a dataset; name one with --dataset"),
        ("future", "needs episodes to look at; name a dataset with --dataset"),
        ("success", "needs an evaluation (wamkit eval); name its folder with --results"),
        ("subgoal", "predicts no subgoal by a latent action"),
    ):
        assert main(["report", str(root / "run"), "--sections", name]) == 2
        assert words in " ".join(capsys.readouterr().err.split())


def test_the_evaluation_of_the_runs_suite_is_shown_else_the_only_one(
    sound: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root = Path(shutil.copytree(sound, tmp_path / "run"))
    own = root / RESULTS
    published = root / "run/eval/published/results.json"
    assert own.exists() and published.exists()
    page = root / "run/report.html"
    assert report(root, "--sections", "success", "facts") == 0
    assert "eval/metaworld3/results.json" in page.read_text()
    own.unlink()
    assert report(root, "--sections", "success", "facts") == 0  # its recordings are not beside it
    assert "eval/published/results.json" in page.read_text()
    shutil.copytree(published.parent, root / "run/eval/other")
    assert report(root) == 0
    assert "success" not in sections(page)
    said = " ".join(capsys.readouterr().out.split())
    assert "has several results: name one of other, published with --results to show it" in said


@pytest.mark.parametrize("piece", BROKEN)
def test_what_is_missing_or_damaged_is_one_message(
    piece: str, sound: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root = Path(shutil.copytree(sound, tmp_path / "broken"))
    apply, words = BROKEN[piece]
    apply(root)
    before = sorted(root.rglob("*"))
    assert report(root) == 2
    error = " ".join(capsys.readouterr().err.split())
    assert "Traceback" not in error and all(word in error for word in words), error
    assert sorted(root.rglob("*")) == before  # neither a page nor a part of one


def test_inspecting_a_run_whose_provenance_is_damaged(
    sound: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root = Path(shutil.copytree(sound, tmp_path / "broken"))
    change(PROVENANCE, dataset={})(root)
    assert main(["inspect", str(root / "run")]) == 2
    assert "provenance.json: dataset.episodes: field required" in " ".join(capsys.readouterr().err.split())


@pytest.mark.parametrize("words", [[], ["--recipe", "metaworld3"]])
def test_inspecting_a_dataset_names_what_is_wrong_with_it(
    words: list[str], sound: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root = Path(shutil.copytree(sound / "dataset", tmp_path / "dataset"))
    nan_action(root)
    out = ["--out", str(tmp_path / "page.html")] if words else []
    assert main(["inspect", str(root), *words, *out]) == 2
    error = " ".join(capsys.readouterr().err.split())
    assert "file-000.parquet: action is nan in episode 1, step 2, dimension 0; correct the value" in error
    assert not (tmp_path / "page.html").exists()
