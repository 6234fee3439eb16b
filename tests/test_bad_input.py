"""Wrong input through the command line: one clear error, exit status 2, no traceback, nothing written is lost."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from wamkit.cli import main
from wamkit.data.lerobot.writer import Writer

CAMERAS = ("corner2", "gripperPOV")
STEPS = 24
SMALL = ["--train.steps", "2", "--train.warmup-steps", "2", "--train.batch-size", "4"]


def record(
    root: Path, cameras: tuple[str, ...] = CAMERAS, action_dim: int = 4, task: str = "Press a button"
) -> Path:
    """Two episodes that look like Meta-World's, from no simulator."""
    video = {"dtype": "video", "shape": [64, 64, 3]}
    features = {f"observation.images.{camera}": video for camera in cameras}
    features |= {
        "action": {"dtype": "float32", "shape": [action_dim], "names": None},
        "observation.state": {"dtype": "float32", "shape": [4], "names": None},
    }
    writer = Writer.create(root, 80, "metaworld_sawyer", features)
    rng = np.random.default_rng(0)
    for _ in range(2):
        columns = {
            "action": rng.uniform(-1, 1, (STEPS, action_dim)).astype(np.float32),
            "observation.state": rng.uniform(-1, 1, (STEPS, 4)).astype(np.float32),
        }
        pixels = rng.integers(0, 256, (STEPS, 1, 1, 3), dtype=np.uint8)
        views = {camera: np.broadcast_to(pixels, (STEPS, 64, 64, 3)).copy() for camera in cameras}
        writer.add_episode(columns, views, task)
    writer.finalize()
    return root


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a dataset, its cache and a run of two steps; do not change it."""
    folder = tmp_path_factory.mktemp("trained")
    record(folder / "dataset")
    assert main(["encode", "metaworld3", *where(folder)[:4]]) == 0
    assert main(["train", "metaworld3", *where(folder), *SMALL]) == 0
    return folder


@pytest.fixture
def copy(trained: Path, tmp_path: Path) -> Path:
    """The same folder, to break."""
    return Path(shutil.copytree(trained, tmp_path / "copy"))


def where(folder: Path) -> list[str]:
    return [
        "--dataset",
        str(folder / "dataset"),
        "--cache",
        str(folder / "cache"),
        "--out",
        str(folder / "run"),
    ]


def refused(capsys: pytest.CaptureFixture[str], words: list[str]) -> str:
    """The one error of a command that must be refused, on one line."""
    capsys.readouterr()
    assert main(words) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ") and "Traceback" not in error
    return " ".join(error.split())


def test_a_dataset_without_language(trained, tmp_path, capsys):
    dataset = record(tmp_path / "mute")
    path = dataset / "meta" / "tasks.parquet"
    tasks = pq.read_table(path)
    column = next(name for name in tasks.column_names if name != "task_index")
    silent = tasks.set_column(tasks.schema.get_field_index(column), column, [[""] * len(tasks)])
    pq.write_table(silent.replace_schema_metadata(tasks.schema.metadata), path)
    error = refused(
        capsys, ["encode", "metaworld3", "--dataset", str(dataset), "--cache", str(tmp_path / "cache")]
    )
    assert "told what to do in words" in error and "meta/tasks" in error


def test_a_missing_camera(tmp_path, capsys):
    dataset = record(tmp_path / "one_eye", cameras=("corner2",))
    error = refused(
        capsys, ["encode", "metaworld3", "--dataset", str(dataset), "--cache", str(tmp_path / "cache")]
    )
    assert "gripperPOV" in error and "corner2" in error


def test_another_action_dimension(trained, tmp_path, capsys):
    dataset = record(tmp_path / "seven", action_dim=7)
    flags = ["--dataset", str(dataset), "--cache", str(trained / "cache"), "--out", str(tmp_path / "run")]
    error = refused(capsys, ["train", "metaworld3", *flags, *SMALL])
    assert "7" in error and "4" in error and "action" in error
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("name", ["run.json", "normalizer.json", "weights.safetensors"])
@pytest.mark.parametrize("damage", ["missing", "truncated"])
def test_a_damaged_run_directory(copy, capsys, name, damage):
    path = copy / "run" / name
    content = path.read_bytes()
    path.unlink()
    if damage == "truncated":
        path.write_bytes(content[: len(content) // 2])
    error = refused(capsys, ["eval", str(copy / "run"), "--episodes", "1"])
    assert name in error


def test_a_folder_that_is_no_run(tmp_path, capsys):
    assert "run.json" in refused(capsys, ["eval", str(tmp_path)])


def test_a_cache_of_another_codec(copy, capsys):
    path = copy / "cache" / "fingerprint.json"
    fingerprint = json.loads(path.read_text())
    path.write_text(path.read_text().replace("block-cosine-", "block-cosine-other-"))
    assert json.loads(path.read_text()) != fingerprint
    words = ["train", "metaworld3", *where(copy)[:4], "--out", str(copy / "new"), *SMALL]
    error = refused(capsys, words)
    assert "codec" in error and "block-cosine-other-" in error
    assert not (copy / "new").exists()


def test_a_cache_of_another_window(copy, capsys):
    words = ["train", "metaworld3", *where(copy)[:4], "--out", str(copy / "new"), *SMALL]
    error = refused(capsys, [*words, "--data.chunk-seconds", "0.1"])
    assert "window" in error and "actions 8" in error and "actions 16" in error
    assert not (copy / "new").exists()


def test_a_run_directory_of_another_run(copy, capsys):
    before = (copy / "run" / "weights.safetensors").read_bytes()
    error = refused(capsys, ["train", "metaworld3", *where(copy), *SMALL, "--train.learning-rate", "1e-3"])
    assert "train.learning_rate: 0.0009 -> 0.001" in error
    assert (copy / "run" / "weights.safetensors").read_bytes() == before


def test_a_finished_run_is_left_alone(copy):
    files = [copy / "run" / name for name in ("weights.safetensors", "metrics.jsonl", "run.json")]
    before = [path.read_bytes() for path in files]
    assert main(["train", "metaworld3", *where(copy), *SMALL]) == 0
    assert [path.read_bytes() for path in files] == before


def test_an_unknown_suite_task_or_recipe(tmp_path, capsys):
    assert "metaworld3" in refused(capsys, ["collect", "metaworld4", "--out", str(tmp_path / "d")])
    assert "reach-v3" in refused(capsys, ["collect", "metaworld:wave-v3", "--out", str(tmp_path / "d")])
    assert "metaworld_mt10" in refused(capsys, ["train", "metaworld11"])
    assert not (tmp_path / "d").exists()


def test_no_dataset(tmp_path, capsys):
    error = refused(
        capsys, ["encode", "metaworld3", "--dataset", str(tmp_path / "no"), "--cache", str(tmp_path / "c")]
    )
    assert str(tmp_path / "no") in error


def test_recipe_values_where_there_is_no_recipe(tmp_path, capsys):
    assert "--train.steps" in refused(capsys, ["data", "check", str(tmp_path), "--train.steps", "3"])


def test_a_full_size_run_without_its_weights(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    from wamkit_client.types import BadInput

    from wamkit.recipes import recipe
    from wamkit.stages.plan import meta_policy

    run = recipe("libero_spatial")
    with pytest.raises(BadInput, match=r"weights/Wan2.1-T2V-1.3B.*hf download"):
        run.policy.encoder(run.data, "training")
    with pytest.raises(BadInput, match=r"weights/Wan2.1-T2V-1.3B"):
        meta_policy(run).load_frozen()


@pytest.mark.parametrize(
    ("flag", "value", "says"),
    [
        ("--policy.variant", "fats", "did you mean 'fast'? There are fast, joint"),
        ("--policy.sample-steps", "0", "policy.sample_steps: expected at least 1, got 0"),
    ],
)
def test_a_fast_wam_that_cannot_be(copy, capsys, flag, value, says):
    words = ["train", "metaworld3_fast_wam", *where(copy)[:4], "--out", str(copy / "new"), *SMALL]
    assert says in refused(capsys, [*words, flag, value])
    assert not (copy / "new").exists()


def test_training_fast_wam_where_a_light_wam_lies(copy, capsys):
    before = (copy / "run" / "weights.safetensors").read_bytes()
    error = refused(capsys, ["train", "metaworld3_fast_wam", *where(copy), *SMALL])
    assert "policy.kind: light_wam -> fast_wam" in error
    assert (copy / "run" / "weights.safetensors").read_bytes() == before


def test_weights_of_a_light_wam_under_the_name_of_a_fast_wam(copy, capsys):
    from wamkit.config import to_json
    from wamkit.recipes import recipe

    (copy / "run" / "run.json").write_text(to_json(recipe("metaworld3_fast_wam")))
    error = refused(capsys, ["eval", str(copy / "run"), "--episodes", "1"])
    assert "weights.safetensors: does not fit the policy" in error and "action." in error


@pytest.mark.parametrize(
    ("asked", "says"),
    [
        (["--policy.variant", "idm"], "trained without video"),
        (["--data.chunk-seconds", "0.4"], "32 actions are asked for, the policy was trained to predict 16"),
        (["--data.chunk-seconds", "0.1", "--policy.action-width", "64"], "policy.action_width: 128 -> 64"),
    ],
)
def test_what_a_trained_policy_cannot_be_asked_for(copy, capsys, asked, says):
    run = str(copy / "blind")
    words = ["train", "metaworld3_fast_wam_no_video", *where(copy)[:4], "--out", run, *SMALL]
    assert main(words) == 0
    assert says in refused(capsys, ["eval", run, "--episodes", "1", *asked])
    assert not (copy / "blind" / "eval").exists()
