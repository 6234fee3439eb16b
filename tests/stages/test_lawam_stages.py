"""LaWAM through the stages: two trainings in order, compared with another kind of policy, its page, its analyses."""

from __future__ import annotations

import fcntl
import json
import re
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from wamkit_client import suites

from tests.client.waiting import waiting_suite
from tests.policies.tiny_lawam import PRIOR
from tests.test_bad_input import record, refused
from wamkit.cli import main
from wamkit.io.records import read_record
from wamkit.policies.lawam.latent_action import LatentSize
from wamkit.recipes import metaworld_lawam, metaworld_lawam_ablations
from wamkit.report.analyses import HeatmapRecord, RolloutRecord
from wamkit.stages import compare as comparing
from wamkit.stages import cost
from wamkit.stages import run as stages

ARMS = ("metaworld3", "metaworld3_lawam", "metaworld3_lawam_no_lawm")
WORLD = "metaworld3_lawam_world_seed0"
LATENT = LatentSize(16, 2, 24, inverse_layers=1, world_layers=1, code=8, positions="concatenated")
SMALL = {"steps": 2, "batch_size": 4, "warmup_steps": 1}


def small(run):
    """The recipe with tiny networks."""
    policy = replace(run.policy, latent=LATENT)
    if run.policy.kind == "lawam":
        prompt, size = (
            replace(run.policy.prompt, pixels=16),
            replace(PRIOR, vocabulary=run.policy.prior.vocabulary),
        )
        expert = replace(run.policy.expert, width=16, heads=2, ffn=24, layers=4)
        policy = replace(policy, prompt=prompt, prior=size, expert=expert, sample_steps=2)
    data = replace(run.data, frame_times=(0.0, 0.1))  # shorter than the shortest episode
    return replace(
        run, data=data, policy=policy, train=replace(run.train, **SMALL), eval=replace(run.eval, processes=1)
    )


@pytest.fixture(scope="module", autouse=True)
def small_recipes() -> Iterator[None]:
    """The recipes with tiny networks, in a world without a simulator."""
    whole, world = metaworld_lawam.metaworld3_lawam, metaworld_lawam.metaworld3_lawam_world
    with pytest.MonkeyPatch.context() as patch:
        for module in (metaworld_lawam, metaworld_lawam_ablations):
            patch.setattr(module, "metaworld3_lawam", lambda: small(whole()))
        patch.setattr(metaworld_lawam, "metaworld3_lawam_world", lambda: small(world()))
        for name in ("metaworld3", "metaworld3_smoke"):
            patch.setitem(suites.SUITES, name, waiting_suite(name))
        for name in ("QUERY_ROUNDS", "STEP_ROUNDS"):
            patch.setattr(cost, name, 1)
        yield


def words(folder: Path, *recipes: str) -> list[str]:
    paths = [f"--{name}={folder / name}" for name in ("dataset", "cache", "out")]
    flags = [f"--train.{name.replace('_', '-')}={value}" for name, value in SMALL.items()]
    return ["compare", *recipes, "--seeds", "0", *paths, *flags, "--eval.processes=1"]


@pytest.fixture(scope="module")
def compared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished comparison; do not change it."""
    folder = tmp_path_factory.mktemp("families")
    record(folder / "dataset")
    assert main(words(folder, *ARMS)) == 0
    return folder


def test_families_are_compared_on_the_same_samples(compared):
    out = compared / "out"
    comparison = json.loads((out / "comparison.json").read_text())
    light, whole, without = comparison["arms"]
    assert [arm["name"] for arm in comparison["arms"]] == list(ARMS) and light["earlier"] == []
    assert comparison["samples"]["count"] == 48 and len(comparison["samples"]["order"]) == 64
    for arm in (whole, without):
        (stage,) = arm["earlier"]
        assert (stage["recipe"], stage["steps"], stage["batch_size"]) == ("metaworld3_lawam_world", 2, 4)
        assert stage["step_seconds"] > 0 and stage["step_bytes"] > 0 and stage["parameters"]["trained"] > 0
        assert arm["query_ms"] > 0 and arm["step_bytes"] > 0
        assert arm["shown"]["canvas"] == '"separate"' and arm["shown"]["proprio_dim"] == "0"
    pairs = [(pair["first"], pair["second"]) for pair in comparison["pairs"]]
    assert pairs == [(ARMS[0], ARMS[1]), (ARMS[1], ARMS[2])]
    page = (out / "comparison.html").read_text()
    assert "before: metaworld3_lawam_world" in page and "trained once per seed" in page


def test_the_stage_before_is_trained_once_and_its_encoder_has_a_cache(compared):
    out = compared / "out"
    runs = {path.parent.name: json.loads(path.read_text()) for path in out.glob("*/run.json")}
    assert set(runs) == {WORLD, *(f"{name}_seed0" for name in ARMS)}
    for name in ARMS[1:]:
        assert runs[f"{name}_seed0"]["policy"]["world"] == str(out / WORLD)
    assert not (out / WORLD / "eval").exists()
    prints = [json.loads(path.read_text()) for path in (out / "caches").glob("*/fingerprint.json")]
    assert sorted("teacher" in found for found in prints) == [
        False,
        True,
    ]  # of both stages; the arms share theirs


def test_what_an_arm_starts_from_cannot_be_named(compared, tmp_path, capsys):
    """It would be replaced by the stage that is trained here."""
    error = refused(capsys, [*words(compared, "metaworld3_lawam"), "--policy.world", "elsewhere"])
    assert (
        "--policy.world: this command trains metaworld3_lawam_world, which metaworld3_lawam starts from"
        in error
    )
    demo = ["demo", "--policy", "lawam", "--policy.world", "elsewhere", "--out", str(tmp_path / "demo")]
    assert "--policy.world: this command trains metaworld3_lawam_world" in refused(capsys, demo)


def test_a_finished_comparison_with_two_stages_is_left_alone(compared, monkeypatch):
    for module, name in (
        (stages, "encode"),
        (stages, "train"),
        (comparing, "loaded"),
        (comparing, "measure"),
    ):
        monkeypatch.setattr(module, name, None)
    before = (compared / "out" / "comparison.json").read_bytes()
    assert main(words(compared, *ARMS)) == 0
    assert (compared / "out" / "comparison.json").read_bytes() == before


def test_a_finished_comparison_can_be_moved(compared, tmp_path):
    folder = Path(shutil.copytree(compared, tmp_path / "copy"))
    for name in ("comparison.json", "comparison.html", "cost.json"):
        (folder / "out" / name).unlink()
    assert main(words(folder, *ARMS)) == 0
    pages = [json.loads((path / "out" / "comparison.json").read_text()) for path in (compared, folder)]
    assert pages[0]["rows"][1]["weights"] == pages[1]["rows"][1]["weights"]
    assert pages[0]["samples"] == pages[1]["samples"]


def test_a_stage_of_another_process_is_left_to_it_with_what_starts_from_it(tmp_path, capsys):
    record(tmp_path / "dataset")
    (tmp_path / "out").mkdir()
    asked = words(tmp_path, "metaworld3_lawam")
    with (tmp_path / "out" / f".{WORLD}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        assert main(asked) == 0
    said = " ".join(capsys.readouterr().out.split())
    assert f"1/2 {WORLD}: another process works on it" in said
    assert f"another process works on {WORLD}, which it starts from" in said and "the last one writes" in said
    assert not (tmp_path / "out" / WORLD).exists() and not (tmp_path / "cache").exists()
    assert main(asked) == 0
    assert (tmp_path / "out" / "comparison.html").exists()
    assert (tmp_path / "cache" / "fingerprint.json").exists()  # has the latents of what is trained first
    assert len(list((tmp_path / "out" / "caches").iterdir())) == 1


def test_the_page_of_a_run_has_its_own_sections(compared, tmp_path, capsys):
    run, page = compared / "out" / "metaworld3_lawam_seed0", tmp_path / "page.html"
    words = ["report", str(run), "--dataset", str(compared / "dataset"), "--out", str(page)]
    assert main(words) == 0
    text = page.read_text()
    sections = re.findall(r'<section id="(\w+)"', text)
    assert sections == [
        "success",
        "rollouts",
        "open_loop",
        "subgoal",
        "latent",
        "training",
        "data",
        "facts",
    ]
    assert "nothing moves" in text and "oracle" in text and "same patches in every image" in text
    error = refused(capsys, [*words, "--sections", "success", "future"])
    assert "section 'future': this policy (metaworld3_lawam) imagines no video" in error


def test_without_rollouts_the_page_looks_at_demonstrations(compared, tmp_path):
    run = Path(shutil.copytree(compared / "out" / "metaworld3_lawam_seed0", tmp_path / "run"))
    shutil.rmtree(run / "eval")
    assert main(["report", str(run), "--dataset", str(compared / "dataset")]) == 0
    text = (run / "report.html").read_text()
    sections = re.findall(r'<section id="(\w+)"', text)
    assert sections == ["open_loop", "subgoal", "latent", "training", "data", "facts"]
    assert "oracle" in text and "Episode 1" in text and "No episode was recorded" not in text


def test_a_world_model_that_does_not_act_has_a_page_of_its_training(compared, tmp_path, capsys):
    page = tmp_path / "page.html"
    words = [
        "report",
        str(compared / "out" / WORLD),
        "--dataset",
        str(compared / "dataset"),
        "--out",
        str(page),
    ]
    assert main(words) == 0
    assert re.findall(r'<section id="(\w+)"', page.read_text()) == ["training", "data", "facts"]
    assert "Trained for 2 steps" in page.read_text()
    error = refused(capsys, [*words, "--sections", "open_loop"])
    assert "needs a policy, and metaworld3_lawam_world is a model that does not act" in error


def test_a_policy_is_analysed_with_its_own_guess(compared, tmp_path):
    run, dataset = compared / "out" / "metaworld3_lawam_seed0", compared / "dataset"
    asked = [str(run), "--dataset", str(dataset), "--out", str(tmp_path)]
    assert main(["analyse", "heatmap", *asked]) == 0
    shown = read_record(tmp_path / "heatmap.json", HeatmapRecord, "")
    assert set(shown.cosines) == {"now", "oracle", "predicted"} and shown.origin.policy["kind"] == "lawam"
    assert main(["analyse", "rollout", *asked, "--least", "2"]) == 0
    assert read_record(tmp_path / "rollout.json", RolloutRecord, "").steps == 8


def test_the_demo_trains_both_stages(tmp_path, monkeypatch):
    """All stages but the collector's, whose place a recorded dataset takes."""
    from wamkit.stages import demo

    monkeypatch.setattr(demo, "collect", lambda suite, dataset, wanted: record(dataset))
    out = tmp_path / "demo"
    assert main(["demo", "--policy", "lawam", "--smoke", "--out", str(out)]) == 0
    times = json.loads((out / "stages.json").read_text())
    trained = ["encode stage 1", "train stage 1", "encode", "train"]
    assert list(times) == ["collect", "check", *trained, "evaluate", "report"]
    assert json.loads((out / "run" / "run.json").read_text())["policy"]["world"] == str(
        out / "stage1" / "run"
    )
    assert 'id="subgoal"' in (out / "run" / "report.html").read_text()
