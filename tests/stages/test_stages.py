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
    "no results": (remove(RESULTS), (RESULTS, "is missing; expected the results.json of an evaluation")),
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


def report(root: Path) -> int:
    return main(["report", str(root / "run"), "--dataset", str(root / "dataset")])


def test_a_dataset_without_names_gives_a_page(sound: Path) -> None:
    assert report(sound) == 0
    page = sound / "run/report.html"
    labels = re.findall(r'aria-label="(\d)"', page.read_text())
    assert labels == ["0", "1", "2", "3"] * 2  # of actions and of proprio
    page.unlink()


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
