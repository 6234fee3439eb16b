"""Flags reach what they are for, and flags that cannot go together are refused."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import pytest
from wamkit_client.suites import suite

from wamkit import robotwin
from wamkit.cli import main
from wamkit.config import load_run
from wamkit.stages import collect, evaluation, tables
from wamkit.stages import run as stages

PRETRAINED = Path(__file__).parents[1] / "pretrained" / "metaworld3"
TASKS = ["drawer-open-v3", "window-open-v3"]


class Reached(Exception):
    """The work would begin here."""


@pytest.fixture
def asked(monkeypatch):
    """The arguments that collection, training and evaluation were called with."""
    calls: list[tuple] = []

    def reached(*arguments: object) -> None:
        calls.append(arguments)
        raise Reached

    monkeypatch.setattr(collect, "collect", reached)
    monkeypatch.setattr(evaluation, "measure", reached)
    monkeypatch.setattr(stages, "train", reached)
    return calls


def refused(capsys: pytest.CaptureFixture[str], *words: str) -> str:
    assert main(list(words)) == 2
    return " ".join(capsys.readouterr().err.split())


@pytest.mark.parametrize("word", ["--episodes", "--trials"])
def test_some_tasks_of_a_suite_are_evaluated(asked, tmp_path, word):
    words = ["eval", str(PRETRAINED), "--tasks", "1-2", word, "5", "--out", str(tmp_path)]
    with pytest.raises(Reached):
        main([*words, "--eval.replan-steps", "4"])
    _, chosen, config, out, *_ = asked[0]
    assert [task.name for task in chosen.tasks] == TASKS
    assert (chosen.episodes, config.replan_steps, out) == (5, 4, tmp_path)


def test_all_tasks_of_a_suite_are_evaluated(asked, tmp_path):
    with pytest.raises(Reached):
        main(["eval", str(PRETRAINED), "--out", str(tmp_path)])
    assert asked[0][1] == suite("metaworld3")


def test_a_suite_of_another_rate_than_the_policys_is_refused(asked, tmp_path, capsys):
    says = refused(
        capsys, "eval", str(PRETRAINED), "--suite", "libero_object", "--out", str(tmp_path / "new")
    )
    assert "suite libero_object executes 20 actions per second, and the policy acts at 80 Hz" in says
    assert not asked


def test_results_say_what_the_policy_acted_as(asked, tmp_path):
    words = ["eval", str(PRETRAINED), "--out", str(tmp_path)]
    for more in ([], ["--data.chunk-seconds", "0.1"]):
        with pytest.raises(Reached):
            main([*words, *more])
    trained, shorter = (facts for _, _, _, _, facts, _ in asked)
    assert "asked" not in trained and shorter["asked"] == ["data.chunk_seconds: 0.2 -> 0.1"]
    assert set(trained["run"]) == {"policy", "data", "actions", "normalization"}
    assert (trained["run"]["data"]["chunk_seconds"], shorter["run"]["data"]["chunk_seconds"]) == (0.2, 0.1)


def test_datasets_are_named_one_by_one_before_and_after_the_recipe(asked, tmp_path):
    out = str(tmp_path / "run")
    with pytest.raises(Reached):
        main(["train", "--dataset", "goal", "libero_fast_wam", "--dataset", "object", "--out", out])
    run, datasets, *_ = asked[0]
    assert (run.recipe, datasets) == ("libero_fast_wam", (Path("goal"), Path("object")))


def test_some_tasks_of_a_suite_are_demonstrated(asked, tmp_path):
    with pytest.raises(Reached):
        main(["collect", "metaworld3", "--tasks", "2", TASKS[0], "--out", str(tmp_path)])
    chosen, out, config, _ = asked[0]
    assert [task.name for task in chosen.tasks] == TASKS
    assert (out, config.episodes) == (tmp_path, 40)


@pytest.mark.parametrize(
    ("tasks", "says"),
    [(["drawer-open"], "did you mean 'drawer-open-v3'"), (["0", "3"], "tasks 0 to 2, asked for 3")],
)
def test_a_task_that_is_not_there(asked, tmp_path, capsys, tasks, says):
    out = str(tmp_path / "new")
    assert says in refused(capsys, "eval", str(PRETRAINED), "--out", out, "--tasks", *tasks)
    assert says in refused(capsys, "collect", "metaworld3", "--out", out, "--tasks", *tasks)
    assert not asked and not (tmp_path / "new").exists()


@pytest.mark.parametrize("words", [["eval", str(PRETRAINED)], ["collect", "metaworld3"]], ids=lambda w: w[0])
def test_liberos_assets_are_named_to_every_process(asked, tmp_path, monkeypatch, words):
    monkeypatch.setenv("WAMKIT_LIBERO_ASSETS", "elsewhere")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(Reached):
        main([*words, "--out", "new"])
    assert os.environ["WAMKIT_LIBERO_ASSETS"] == "elsewhere"
    with pytest.raises(Reached):
        main([*words, "--out", "new", "--libero-assets", "assets"])
    assert os.environ["WAMKIT_LIBERO_ASSETS"] == str(tmp_path / "assets")


def test_robotwins_suites_are_measured_in_its_checkout(tmp_path, monkeypatch, capsys):
    calls = []
    monkeypatch.setattr(robotwin, "evaluate", lambda *arguments: calls.append(arguments) or {})
    monkeypatch.setattr(tables, "results_table", str)
    words = ["eval", str(PRETRAINED), "--robotwin", "../RoboTwin", "--out", str(tmp_path)]
    assert "none of RoboTwin's" in refused(capsys, *words)
    assert main([*words, "--suite", "robotwin_clean", "--trials", "3"]) == 0
    assert main([*words, "--suite", "robotwin_randomized", "--tasks", "0-1", "--eval.processes", "1"]) == 0
    run = load_run(PRETRAINED)
    one = replace(run, eval=replace(run.eval, processes=1))
    names = ",".join(task.name for task in robotwin.find_suite("robotwin_clean").tasks[:2])
    assert calls == [
        (PRETRAINED, run, "robotwin_clean", 3, tmp_path, Path("../RoboTwin")),
        (PRETRAINED, one, f"robotwin_randomized:{names}", 0, tmp_path, Path("../RoboTwin")),
    ]


@pytest.mark.parametrize("flags", [["--tasks", "0"], ["--trials", "3"], ["--suite", "metaworld_mt10"]])
def test_a_repeated_result_has_its_own_protocol(capsys, flags):
    error = refused(capsys, "eval", str(PRETRAINED), "--like", "results.json", *flags)
    assert "--like repeats suite, tasks and episodes" in error


def test_inspecting_what_is_nothing(tmp_path, capsys):
    assert "neither a run directory (run.json) nor a dataset" in refused(capsys, "inspect", str(tmp_path))


def test_inspecting_a_run_with_what_it_has_already(tmp_path, capsys):
    run = str(PRETRAINED)
    assert "has its own recipe" in refused(capsys, "inspect", run, "--recipe", "metaworld3")
    assert "--out needs --dataset" in refused(capsys, "inspect", run, "--out", "page.html")
    assert "takes no recipe values" in refused(capsys, "inspect", run, "--train.steps", "3")


def test_a_released_light_wam_has_one_origin(capsys):
    words = ["convert", "light-wam", "step.pt", "run"]
    assert "needs --recipe" in refused(capsys, *words)
    both = ["--recipe", "libero_spatial", "--config", "config.yaml"]
    assert "give one of them" in refused(capsys, *words, *both)


@pytest.mark.parametrize(
    "words",
    [
        ["eval", str(PRETRAINED)],
        ["encode", "metaworld3", "--dataset", "d", "--cache", "c"],
        ["compare", "metaworld3", "--dataset", "d", "--cache", "c", "--out", "o"],
        ["convert", "fast-wam", "a.pt", "run", "--recipe", "libero_fast_wam"],
        ["convert", "latents", "a", "c", "--recipe", "libero_spatial", "--dataset", "d"],
    ],
    ids=lambda words: " ".join(words[:2]),
)
def test_a_misspelt_path_is_answered_with_the_right_one(capsys, words):
    for order in ([*words, "--train.stepps", "3"], [words[0], "--train.stepps=3", *words[1:]]):
        error = refused(capsys, *order)
        assert error.startswith(
            "error: --train.stepps: recipes have no such value; did you mean --train.steps?"
        )
