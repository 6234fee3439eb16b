"""From datasets with columns of other names to a run: caches, mixtures, subsets, held-out episodes, cameras of any
size."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from wamkit_client.types import BadInput

from tests import tiny_dataset
from tests.renamed import rename
from wamkit.cli import main
from wamkit.commands.overrides import changed
from wamkit.config import Source, from_json, load_normalizer, load_run, to_json
from wamkit.data.lerobot.writer import Writer
from wamkit.data.samples import read_all
from wamkit.io.weights import WEIGHTS
from wamkit.stages.run import NO_FILE, encode, fit_normalizer, open_clips, train, training_samples
from wamkit.subset import Subset
from wamkit.train.metrics import read_rows

RUN = replace(tiny_dataset.RUN, eval=replace(tiny_dataset.RUN.eval, replan_steps=4))
CPU = torch.device("cpu")
VIEW = RUN.data.views[0]
NAMES = {"action": "actions", "observation.state": "state"} | {
    f"observation.images.{view}": f"cam_{view}" for view in RUN.data.views
}
COLUMNS = {"action": "actions", "proprio": "state"} | {view: f"cam_{view}" for view in RUN.data.views}
OWN = replace(RUN, data=replace(RUN.data, columns=COLUMNS))


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """The same two recordings with the usual names, and with others; do not change them."""
    root = tmp_path_factory.mktemp("columns")
    usual = tiny_dataset.write(root / "usual", (21, 17, 9, 12))
    return usual, rename(Path(shutil.copytree(usual, root / "own")), NAMES)


def losses(run_dir: Path) -> list[float]:
    return [row["loss"] for row in read_rows(run_dir)]


def test_the_same_run_by_other_names(folders: tuple[Path, Path], tmp_path: Path) -> None:
    """Cached and not, bit for bit; what was read is saved with the run."""
    for asked, folder, name in ((RUN, folders[0], "usual"), (OWN, folders[1], "own")):
        run = replace(asked, train=replace(asked.train, log_every=1))
        encode(run, [folder], tmp_path / "cache" / name, CPU)
        train(run, [folder], tmp_path / "cache" / name, tmp_path / name, CPU)
        train(run, [folder], NO_FILE, tmp_path / f"{name}_fresh", CPU)
    assert losses(tmp_path / "usual") == losses(tmp_path / "own") == losses(tmp_path / "own_fresh")
    assert load_run(tmp_path / "own").data.columns == COLUMNS
    assert load_normalizer(tmp_path / "own").to_json() == load_normalizer(tmp_path / "usual").to_json()
    other = replace(OWN, data=replace(OWN.data, columns=COLUMNS | {"proprio": "state[0:3]"}))
    with pytest.raises(BadInput, match="columns: expected"):
        train(other, [folders[1]], tmp_path / "cache" / "own", tmp_path / "other", CPU)


def test_a_cache_of_some_episodes_is_refused_for_others(folders: tuple[Path, Path], tmp_path: Path) -> None:
    some = replace(RUN, data=replace(RUN.data, only=Subset(episodes=("1:",)), held_out=0.3))
    encode(some, [folders[0]], tmp_path / "cache", CPU)
    train(some, [folders[0]], tmp_path / "cache", tmp_path / "run", CPU)
    about = json.loads((tmp_path / "run/provenance.json").read_text())["dataset"]
    assert (about["episodes"], about["steps"]) == (3, 38) and len(about["held_out"]) == 1
    kept = {"1", "2", "3"}.difference(about["held_out"])
    counts = {"1": 17, "2": 9, "3": 12}
    assert load_normalizer(tmp_path / "run").stats["robot"]["action"].count == sum(counts[e] for e in kept)
    with pytest.raises(BadInput, match="only: expected"):
        train(
            replace(some, data=replace(some.data, only=Subset(episodes=("0:3",)))),
            [folders[0]],
            tmp_path / "cache",
            tmp_path / "other",
            CPU,
        )


def test_datasets_with_weights_and_columns_from_the_command_line(
    folders: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    second = Path(shutil.copytree(folders[1], tmp_path / "second"))
    recipe = tmp_path / "own_recipe.py"
    recipe.write_text("from tests.test_own_columns import RUN\n\n\ndef recipe():\n    return RUN\n")
    words = [
        "train",
        str(recipe),
        "--dataset",
        str(folders[1]),
        "--dataset",
        str(second),
        "--weights",
        "1",
        "3",
    ]
    columns = ["--data.columns", "action=actions,proprio=state"]
    views = ["--data.views", *(f"{view}=cam_{view}" for view in RUN.data.views)]
    subset = ["--episodes", "0:3", "--train.held-out", "0.3", "--out", str(tmp_path / "run")]
    assert main([*words, *columns, *views, *subset, "--plan"]) == 0
    planned = " ".join(capsys.readouterr().out.replace("│", " ").split())
    assert "columns action=actions, front=cam_front, proprio=state" in planned
    assert "only episodes 0:3" in planned and "held out 0.3 of the episodes: 2 of 6" in planned
    assert main([*words, *columns, *views, *subset]) == 0
    run = load_run(tmp_path / "run")
    assert [source.data for source in run.sources] == [run.data] * 2
    assert (run.data.columns, run.data.only, run.data.held_out) == (COLUMNS, Subset(("0:3",)), 0.3)
    clips = open_clips(run, [folders[1], second])
    assert [[e.index for e in own.episodes] for own in clips] == [[e.index for e in clips[0].episodes]] * 2
    assert len(clips[0].episodes) == 2 and len(clips[0].held_out().episodes) == 1


def sources(**changes: Subset) -> tuple[Source, Source]:
    """The same robot, recorded under two sets of names."""
    return (
        Source("usual", replace(RUN.data, **changes), RUN.actions, robot="robot"),
        Source("own", replace(OWN.data, **changes), RUN.actions, robot="robot", weight=2.0),
    )


def test_datasets_of_one_robot_with_other_names_each(folders: tuple[Path, Path]) -> None:
    run = replace(RUN, sources=sources())
    assert from_json(to_json(run), "run.json") == run
    clips = open_clips(run, list(folders))
    normalizer = fit_normalizer(run, clips)
    alone = fit_normalizer(RUN, open_clips(RUN, [folders[0]]))
    assert normalizer.stats["robot"]["action"].count == 2 * alone.stats["robot"]["action"].count
    np.testing.assert_allclose(
        normalizer.stats["robot"]["proprio"].std, alone.stats["robot"]["proprio"].std, rtol=1e-12
    )
    mixture = training_samples(run, clips, RUN.policy.encoder(RUN.data), NO_FILE)
    found = read_all(mixture, [3, len(clips[0]) + 3])
    assert torch.equal(found.actions[0], found.actions[1])
    other = replace(run.sources[1], data=replace(OWN.data, chunk_seconds=0.2))
    with pytest.raises(BadInput, match="another rate, window or meaning"):
        fit_normalizer(run, open_clips(replace(run, sources=(run.sources[0], other)), list(folders)))


def test_a_command_line_chooses_episodes_of_every_source(folders: tuple[Path, Path]) -> None:
    run = replace(RUN, sources=sources())
    asked = changed(run, {"data.only.episodes": ("1:",), "data.held_out": 0.4})
    assert [source.data.held_out for source in asked.sources] == [0.4, 0.4]
    assert {e.index for own in open_clips(asked, list(folders)) for e in own.dataset.episodes} == {1, 2, 3}
    assert asked.sources[1].data.columns == COLUMNS
    with pytest.raises(
        BadInput, match=r"the sources of run tiny \(usual, own\) have columns and cameras of their"
    ):
        changed(run, {"data.columns": {"action": "actions"}})


def test_cameras_of_any_size(tmp_path: Path) -> None:
    """Those of a dataset may differ, and those of the sources of a run; one source has one size."""
    spec = replace(RUN.data, views=("scene", "hand"), canvas="horizontal")
    run = replace(RUN, data=spec)
    for name, scene, hand in (("one", (48, 64), (32, 32)), ("two", (90, 160), (20, 36))):
        sizes = {"scene": scene, "hand": hand}
        features = {
            f"observation.images.{view}": {"dtype": "video", "shape": [*size, 3]}
            for view, size in sizes.items()
        } | {
            "action": {"dtype": "float32", "shape": [spec.action_dim], "names": None},
            "observation.state": {"dtype": "float32", "shape": [spec.proprio_dim], "names": None},
        }
        writer, rng = Writer.create(tmp_path / name, spec.hz, "robot", features), np.random.default_rng(0)
        columns = {
            "action": rng.normal(size=(12, spec.action_dim)).astype(np.float32),
            "observation.state": rng.normal(size=(12, spec.proprio_dim)).astype(np.float32),
        }
        videos = {view: rng.integers(0, 256, (12, *size, 3), np.uint8) for view, size in sizes.items()}
        writer.add_episode(columns, videos, "go")
        writer.finalize()
    folders = [tmp_path / "one", tmp_path / "two"]
    clips = open_clips(run, folders)
    assert clips[0].firsts == [0, 12]
    assert {tuple(clips[0].sample(i).clip.views["hand"].shape[2:4]) for i in (0, 12)} == {(32, 32), (20, 36)}
    for stage in (partial(train, run, folders, NO_FILE), partial(encode, run, folders)):
        with pytest.raises(
            BadInput,
            match=r"sample two/0:0 has images of 90x160, and one/0:0 of 48x64; .* of their own, with --weights",
        ):
            stage(tmp_path / "out", CPU)
    alike = tuple(Source(name, spec, RUN.actions) for name in ("one", "two"))
    for each, where in ((replace(run, sources=alike), folders), (run, folders[:1])):
        train(each, where, NO_FILE, tmp_path / f"run{len(where)}", CPU)
        assert (tmp_path / f"run{len(where)}" / WEIGHTS).exists()
