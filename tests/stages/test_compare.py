"""Comparisons: rows share data and steps, are done once whoever does them, and are tested against each other."""

from __future__ import annotations

import fcntl
import json
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from math import sqrt
from pathlib import Path

import pytest
from wamkit_client import suites
from wamkit_client.types import BadInput

from tests.client.waiting import waiting_suite
from tests.processes import Running
from tests.test_bad_input import record, refused
from wamkit.cli import main
from wamkit.config import Run, Source
from wamkit.recipes import recipe
from wamkit.stages import compare as comparing
from wamkit.stages import cost
from wamkit.stages import run as stages
from wamkit.stages.compare import compare, pairings, pairs
from wamkit.stages.rows import Comparison, check, samples_of
from wamkit.train import loop

RECIPES = ("metaworld3", "metaworld3_fast_wam")
FURTHER = "metaworld3_further"
SMALL = (
    "--train.steps",
    "2",
    "--train.warmup-steps",
    "2",
    "--train.batch-size",
    "4",
    "--eval.processes",
    "1",
)


def words(folder: Path, *recipes: str, seeds: tuple[str, ...] = ("0",)) -> list[str]:
    paths = [f"--{name}={folder / name}" for name in ("dataset", "cache", "out")]
    return ["compare", *recipes, "--seeds", *seeds, *paths, *SMALL]


@pytest.fixture(scope="module", autouse=True)
def no_simulator() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        for name in ("metaworld3", FURTHER):
            patch.setitem(suites.SUITES, name, waiting_suite(name))
        yield


@pytest.fixture(scope="module")
def seen() -> dict[str, list[tuple[str, ...]]]:
    """The ids of every training batch, by policy."""
    return {}


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory, seen: dict[str, list[tuple[str, ...]]]) -> Path:
    """A comparison of one recipe that was then extended by another; do not change it."""
    folder = tmp_path_factory.mktemp("compared")
    record(folder / "dataset")
    real = loop.optimize

    def spy(forward, batch, step, state, *how):
        seen.setdefault(type(state.policy).__name__, []).append(batch.ids)
        return real(forward, batch, step, state, *how)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(loop, "optimize", spy)
        patch.setattr(cost, "QUERY_ROUNDS", 1)
        patch.setattr(cost, "STEP_ROUNDS", 1)
        assert main(words(folder, "metaworld3")) == 0
        assert main(words(folder, *RECIPES)) == 0
    return folder


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_every_policy_sees_the_same_samples_at_every_step(finished, seen):
    assert len(seen["LightWAM"]) == 2 and all(len(set(ids)) == 4 for ids in seen["LightWAM"])
    assert seen["LightWAM"] == seen["FastWAM"]


def test_what_is_written(finished):
    out = finished / "out"
    comparison = json.loads((out / "comparison.json").read_text())
    assert comparison["format"] == "wamkit-comparison-1" and comparison["seeds"] == [0]
    assert comparison["steps"] == 2 and comparison["batch_size"] == 4
    assert comparison["suite"]["episodes"] == 2 and comparison["dataset"]["episodes"] == 2
    light, fast = comparison["arms"]
    assert (light["name"], light["kind"], fast["identity"]["variant"]) == (RECIPES[0], "light_wam", "fast")
    assert light["total"]["successes"] == 2 and light["total"]["trials"] == 4  # even seeds
    assert light["seeds"]["0"] == light["total"] and set(light["tasks"]) == {"stay", "rest"}
    assert light["parameters"]["total"] > 3e6 and light["query_ms"] > 0 and fast["step_seconds"] > 0
    (pair,) = comparison["pairs"]
    assert (pair["first"], pair["second"], pair["trials"], pair["p_value"]) == (*RECIPES, 4, 1.0)
    for row in comparison["rows"]:
        assert row["run"] == json.loads((out / row["name"] / "run.json").read_text())
        assert row["trained"]["revision"] and row["measured"]["machine"]["cpu"] and row["weights"]
    page = (out / "comparison.html").read_text()
    assert "squared error of the regressed chunk" in page and "predicted velocity" in page
    assert all(name in page for name in RECIPES) and comparison["command"].split(" --out")[0] in page
    assert "--train.steps 2" in comparison["command"] and "--seeds 0" in comparison["command"]


def test_finished_rows_are_left_alone(finished, monkeypatch, capsys):
    for module, name in (
        (stages, "encode"),
        (stages, "train"),
        (comparing, "loaded"),
        (comparing, "measure"),
    ):
        monkeypatch.setattr(module, name, None)
    before = contents(finished)
    assert main(words(finished, *RECIPES)) == 0
    assert contents(finished) == before
    said = capsys.readouterr().out
    assert "2/2 metaworld3_fast_wam_seed0: 2 of 4 solved" in said and "comparison.html" in said


def test_a_further_suite_is_measured_without_training_again(finished, tmp_path, monkeypatch, capsys):
    folder = Path(shutil.copytree(finished, tmp_path / "copy"))
    before = contents(folder / "out")
    for name in ("encode", "train"):
        monkeypatch.setattr(stages, name, None)
    monkeypatch.setattr(comparing, "_train", lambda *_: None)
    assert main([*words(folder, *RECIPES), "--also", FURTHER]) == 0
    assert f"2/2 metaworld3_fast_wam_seed0: 2 of 4 solved in {FURTHER}" in capsys.readouterr().out
    after = contents(folder / "out")
    changed = {name for name in after if after[name] != before.get(name)}
    pages = {"comparison.json", "comparison.html"}
    assert pages < changed and all(f"eval/{FURTHER}/" in name for name in changed - pages)
    comparison = json.loads(after["comparison.json"])
    [other] = comparison["also"]
    assert other["suite"]["name"] == FURTHER and f"--also {FURTHER}" in comparison["command"]
    assert {name: rate["successes"] for name, rate in other["arms"].items()} == dict.fromkeys(RECIPES, 2)
    assert [(pair["first"], pair["second"], pair["trials"]) for pair in other["pairs"]] == [(*RECIPES, 4)]
    assert f"<h3>{FURTHER}</h3>" in after["comparison.html"].decode()


def test_a_row_of_another_process_is_left_to_it(finished, tmp_path, monkeypatch, capsys):
    folder = Path(shutil.copytree(finished, tmp_path / "copy"))
    row = folder / "out" / "metaworld3_seed0"
    shutil.rmtree(row)
    (folder / "out" / "comparison.html").unlink()
    holder = subprocess.Popen(
        [
            sys.executable,
            "-c",
            "import fcntl, sys; f = open(sys.argv[1], 'w'); fcntl.flock(f, fcntl.LOCK_EX); print('mine', flush=True);"
            " input()",
            str(folder / "out" / ".metaworld3_seed0.lock"),
        ],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert holder.stdout.readline() == "mine\n"
    assert main(words(folder, *RECIPES)) == 0
    said = " ".join(capsys.readouterr().out.split())
    assert "metaworld3_seed0: another process works on it" in said and "the last one writes the page" in said
    assert not row.exists() and not (folder / "out" / "comparison.html").exists()
    holder.kill()  # a dead process has no claim
    holder.wait()
    assert main(words(folder, *RECIPES)) == 0
    assert (row / "eval" / "metaworld3" / "results.json").exists()
    assert (folder / "out" / "comparison.html").exists()


def test_only_one_process_writes_the_page(finished, tmp_path, capsys):
    folder = Path(shutil.copytree(finished, tmp_path / "copy"))
    (folder / "out" / "comparison.html").unlink()
    with (folder / "out" / ".page.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        assert main(words(folder, *RECIPES)) == 0
    assert "another process writes the page" in capsys.readouterr().out
    assert not (folder / "out" / "comparison.html").exists()


SHARE = """
import sys
from wamkit_client import suites
from tests.client.waiting import waiting_suite

if __name__ == "__main__":
    suites.SUITES["metaworld3"] = waiting_suite("metaworld3")
    from wamkit.cli import main
    sys.exit(main(sys.argv[1:]))
"""


def test_two_processes_share_the_rows(finished, tmp_path):
    for name in ("dataset", "cache"):
        shutil.copytree(finished / name, tmp_path / name)
    (tmp_path / "out").mkdir()
    shutil.copy(finished / "out" / "cost.json", tmp_path / "out")
    script = tmp_path / "share.py"
    script.write_text(SHARE)
    processes = [Running(["python", str(script), *words(tmp_path, *RECIPES)], tmp_path) for _ in range(2)]
    said = [process.end() for process in processes]
    assert [done.status for done in said] == [0, 0], said
    begun = [line for done in said for line in done.out.splitlines() if line.endswith("_seed0")]
    each_row_once = [f"{i}/2 {name}_seed0" for i, name in enumerate(RECIPES, 1)]
    assert sorted(begun) == each_row_once, said
    assert (tmp_path / "out" / "comparison.html").exists()
    assert len(json.loads((tmp_path / "out" / "comparison.json").read_text())["rows"]) == 2


def test_another_comparison_in_the_same_folder(finished, capsys):
    before = contents(finished / "out")
    error = refused(capsys, [*words(finished, *RECIPES), "--train.learning-rate", "1e-3"])
    assert "rows.json" in error and "metaworld3_seed0: train.learning_rate: 0.0009 -> 0.001" in error
    assert "episodes: 2 -> 3" in refused(capsys, [*words(finished, *RECIPES), "--episodes", "3"])
    assert "metaworld3_fast_wam_seed0 is not asked for" in refused(capsys, words(finished, "metaworld3"))
    other = replace_dataset(finished)
    error = refused(capsys, [*words(finished, *RECIPES), "--dataset", str(other)])
    assert "dataset: " in error and "another comparison" in error
    assert contents(finished / "out") == before


def replace_dataset(finished: Path) -> Path:
    """The same recording with another instruction."""
    other = finished.parent / "other"
    return other if other.exists() else record(other, task="Press two buttons")


@pytest.mark.parametrize(
    ("ours", "theirs", "name"),
    [
        ('"max_steps": 16', '"max_steps": 17', "suite.max_steps = 17, asked for 16"),
        (
            '"chunk_seconds": 0.2',
            '"chunk_seconds": 0.1',
            "policy.run.data.chunk_seconds = 0.1, asked for 0.2",
        ),
        ('"replan_steps": 8', '"replan_steps": 4', "config.replan_steps = 4, asked for 8"),
    ],
)
def test_rows_measured_otherwise(finished, tmp_path, capsys, ours, theirs, name):
    """By hand, into the folder that the comparison would fill."""
    folder = Path(shutil.copytree(finished, tmp_path / "copy"))
    path = folder / "out" / "metaworld3_seed0" / "eval" / "metaworld3" / "results.json"
    assert ours in path.read_text()
    path.write_text(path.read_text().replace(ours, theirs))
    error = refused(capsys, words(folder, *RECIPES))
    assert f"{path} belongs to an evaluation with {name}" in error and f"remove {path.parent}" in error


def test_a_score_of_other_settings_is_never_returned(finished, tmp_path, capsys):
    """Three Euler steps, then as trained; and the comparison that the run belongs to."""
    folder = Path(shutil.copytree(finished, tmp_path / "copy"))
    run = folder / "out" / "metaworld3_fast_wam_seed0"
    shutil.rmtree(run / "eval")
    eval_run = ["eval", str(run), "--eval.processes", "1"]
    assert main([*eval_run, "--policy.sample-steps", "3"]) == 0
    for again in (eval_run, words(folder, *RECIPES)):
        error = refused(capsys, again)
        assert "belongs to an evaluation with policy.run.policy.sample_steps = 3, asked for 1" in error
    assert main([*eval_run, "--policy.sample-steps", "3"]) == 0
    assert main([*eval_run, "--out", str(tmp_path / "trained")]) == 0


def test_words_that_make_no_comparison(tmp_path, capsys):
    assert "did you mean 'metaworld3_fast_wam_idm'" in refused(
        capsys, words(tmp_path, "metaworld3", "metaworld3_fast_wam_imd")
    )
    assert "at least one recipe" in refused(capsys, words(tmp_path))
    assert "at least one seed" in refused(capsys, words(tmp_path, "metaworld3", seeds=()))
    assert "every seed once" in refused(capsys, words(tmp_path, "metaworld3", seeds=("1", "1")))
    assert "every recipe once" in refused(capsys, words(tmp_path, "metaworld3", "metaworld3"))
    assert "--seeds" in refused(capsys, [*words(tmp_path, "metaworld3"), "--train.seed", "3"])
    error = refused(capsys, words(tmp_path, "metaworld3", "metaworld_mt10"))
    assert "metaworld_mt10 cannot be compared with metaworld3: suite is metaworld_mt10, expected" in error
    error = refused(capsys, [*words(tmp_path, "metaworld3"), "--also", "metaworld3+fog"])
    assert "asked for 'fog'" in error
    error = refused(capsys, [*words(tmp_path, "metaworld3"), "--also", FURTHER, "metaworld3"])
    assert f"every suite once; got metaworld3, {FURTHER}, metaworld3" in error
    assert list(tmp_path.iterdir()) == []


def test_a_dataset_that_does_not_fit_leaves_nothing_behind(tmp_path, capsys):
    record(tmp_path / "dataset", cameras=("corner2",))
    assert "gripperPOV" in refused(capsys, words(tmp_path, *RECIPES))
    assert not (tmp_path / "out").exists() and not (tmp_path / "cache").exists()


def asked(*runs: Run, seeds: tuple[int, ...] = (0, 1)) -> Comparison:
    return Comparison(runs, seeds, (Path("dataset"),), Path("cache"), Path("out"))


LIGHT, PLAIN, FAST, NO_VIDEO = (
    recipe(name)
    for name in ("metaworld3", "metaworld3_no_video", "metaworld3_fast_wam", "metaworld3_fast_wam_no_video")
)


@pytest.mark.parametrize(
    ("other", "message"),
    [
        (replace(FAST, train=replace(FAST.train, steps=3)), "train.steps is 3, expected 1700"),
        (replace(FAST, train=replace(FAST.train, batch_size=3)), "train.batch_size is 3, expected 16"),
        (
            replace(FAST, data=replace(FAST.data, chunk_seconds=0.1)),
            "data.chunk_seconds is 0.1, expected 0.2",
        ),
        (
            replace(FAST, normalization=replace(FAST.normalization, action="z_score")),
            "normalization.action is z_score, expected min_max",
        ),
    ],
    ids=lambda value: value if type(value) is str else "",
)
def test_recipes_that_do_not_fit_each_other(other, message):
    with pytest.raises(BadInput, match=f"metaworld3_fast_wam cannot be compared with metaworld3: {message}"):
        check(asked(LIGHT, other))


def test_equal_time_leaves_the_number_of_steps_to_the_recipes():
    other = replace(FAST, train=replace(FAST.train, steps=3))
    check(replace(asked(LIGHT, other), equal="time"))
    smaller = replace(other, train=replace(other.train, batch_size=3))
    with pytest.raises(BadInput, match=r"metaworld3: train\.batch_size is 3, expected 16\. "):
        check(replace(asked(LIGHT, smaller), equal="time"))


def test_policies_with_other_encoders_have_caches_of_their_own(finished, tmp_path):
    """The same samples at every step, from latents that differ."""
    shutil.copytree(finished / "dataset", tmp_path / "dataset")
    small = {"steps": 2, "warmup_steps": 2, "batch_size": 4}
    light, fast = (
        replace(run, train=replace(run.train, **small), eval=replace(run.eval, processes=1))
        for run in (
            LIGHT,
            replace(FAST, policy=replace(FAST.policy, text=replace(FAST.policy.text, length=5))),
        )
    )
    paths = {"datasets": (tmp_path / "dataset",), "cache": tmp_path / "cache", "out": tmp_path / "out"}
    asked = Comparison((light, fast), (0,), **paths)
    compared = compare(asked, "")
    [other] = (tmp_path / "out" / "caches").iterdir()
    rows = {row.run.recipe: row for row in asked.rows}
    assert asked.cached(rows["metaworld3"]) == tmp_path / "cache"
    assert asked.cached(rows["metaworld3_fast_wam"]) == other
    texts = [
        json.loads((folder / "fingerprint.json").read_text())["text"] for folder in (paths["cache"], other)
    ]
    assert texts == ["hashed-text:shake256:64x16:0.2", "hashed-text:shake256:64x5:0.2"]
    assert compared.samples.count == 48 and len(compared.samples.order) == 64
    assert all(arm.step_bytes > 4 * arm.parameters["trained"] for arm in compared.arms)


def test_other_samples_cannot_be_compared(finished):
    whole = replace(FAST, sources=(Source("half", FAST.data, FAST.actions, weight=0.5),))
    with pytest.raises(
        BadInput, match="metaworld3_fast_wam cannot be compared with metaworld3: its 48 samples"
    ):
        samples_of(replace(asked(LIGHT, whole), datasets=(finished / "dataset",)))


def test_who_is_compared_with_whom():
    kinds = {"a": "light", "b": "fast", "c": "light", "d": "fast", "e": "lawam"}
    assert pairings(kinds) == [("a", "b"), ("a", "c"), ("b", "d"), ("a", "e")]
    assert pairings({"a": "light"}) == []


def results(outcomes: str) -> dict[str, object]:
    """Episodes of one task: + solved, - not, x crashed."""
    status = {"+": "success", "-": "failure", "x": "error"}
    rows = [{"task": "stay", "seed": seed, "status": status[sign]} for seed, sign in enumerate(outcomes)]
    return {"episodes": rows}


def test_pairs_by_hand():
    """Twelve episodes of two seeds; one pair has a crash; five of the eleven others are solved by the first alone."""
    found = {
        "metaworld3_seed0": results("++++++"),
        "metaworld3_no_video_seed0": results("++---x"),
        "metaworld3_seed1": results("++++--"),
        "metaworld3_no_video_seed1": results("++----"),
    }
    (pair,) = pairs(asked(LIGHT, PLAIN), found)
    assert (pair.trials, pair.only_first, pair.only_second) == (11, 5, 0)
    assert pair.difference == -5 / 11
    assert pair.p_value == 2 * (1 / 2) ** 5
    loss, gain = 6 / 13, 1 / 13
    spread = 1.959964 * sqrt((loss + gain - (gain - loss) ** 2) / 13)
    assert pair.interval == pytest.approx((gain - loss - spread, gain - loss + spread))


def test_pairs_keep_seeds_apart():
    """Episodes of one initial state are as many as there are training seeds."""
    found = {
        "metaworld3_seed0": results("+-"),
        "metaworld3_no_video_seed0": results("-+"),
        "metaworld3_seed1": results("+-"),
        "metaworld3_no_video_seed1": results("+-"),
    }
    (pair,) = pairs(asked(LIGHT, PLAIN), found)
    assert (pair.trials, pair.only_first, pair.only_second, pair.p_value) == (4, 1, 1, 1.0)


def test_costs_are_measured_in_turns(monkeypatch):
    """Medians of the rounds after the warm-up; each job takes its turn in every round."""
    calls: list[str] = []
    now = [0.0]
    takes = {"a": iter([50.0, 1.0, 9.0, 2.0]), "b": iter([70.0, 4.0, 4.0, 5.0])}

    def job(name):
        calls.append(name)
        now[0] += next(takes[name])

    monkeypatch.setattr(cost.time, "perf_counter", lambda: now[0])
    medians = cost.in_turns({name: lambda name=name: job(name) for name in takes}, 3, lambda: None)
    assert medians == {"a": 2.0, "b": 4.0}
    assert "".join(calls) == "abababab"
