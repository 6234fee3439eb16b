"""Fine-tuning: a run that begins with the weights of another, its normalizer kept or refitted, also when resumed."""

from __future__ import annotations

import json
import re
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from wamkit_client.types import BadInput

from tests import tiny_dataset
from tests.policies import tiny_fast_wam
from tests.policies.tiny_policy import SPEC
from tests.stages.test_held_out import lawam_runs
from tests.tiny_dataset import RUN
from tests.train.test_loop import equal, lasting, weights
from wamkit.cli import main
from wamkit.commands import training
from wamkit.config import Normalization, Run, build_policy, load_normalizer
from wamkit.data.actions import ActionSpace
from wamkit.io.files import sha256
from wamkit.io.weights import run_weights
from wamkit.stages.run import NO_FILE, train
from wamkit.stages.start import NormalizerOf, start_of
from wamkit.train.checkpoint import trained_tensors

CPU = torch.device("cpu")
TUNED = replace(RUN, recipe="tuned", train=replace(RUN.train, steps=4, log_every=1, save_every=2, seed=5))


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Datasets `old` and `new` of one robot and `hand` of another; `base`, a run trained on `old`."""
    folder = tmp_path_factory.mktemp("lab")
    for seed, (name, robot) in enumerate((("old", "robot"), ("new", "robot"), ("hand", "hand"))):
        tiny_dataset.write(folder / name, (12, 9), seed=seed, robot=robot)
    train(RUN, [folder / "old"], NO_FILE, folder / "base", CPU)
    return folder


def tuned(
    lab: Path,
    out: Path,
    run: Run = TUNED,
    init: Path = Path("base"),
    keeps: NormalizerOf = "kept",
    data: str = "new",
) -> Path:
    train(run, [lab / data], NO_FILE, out, CPU, NO_FILE, lab / init if init != NO_FILE else init, keeps)
    return out


def normalizer(run_dir: Path) -> str:
    return load_normalizer(run_dir).to_json()


def provenance(run_dir: Path) -> dict[str, Any]:
    return json.loads((run_dir / "provenance.json").read_text())


def test_training_begins_with_the_weights_and_the_run_says_of_which(
    lab: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    policy = build_policy(TUNED, load_normalizer(lab / "base"))
    start = start_of(lab / "base", "kept", TUNED, tmp_path)
    start.initialize(policy, TUNED)
    found, expected = trained_tensors(policy), run_weights(lab / "base")
    assert found.keys() == expected.keys() and all(torch.equal(found[name], expected[name]) for name in found)
    out = tuned(lab, tmp_path / "run")
    assert provenance(out)["init"] == {
        "run": str(lab / "base"),
        "recipe": "tiny",
        "weights": sha256(lab / "base/weights.safetensors"),
        "normalizer": "kept",
    }
    assert f"begins with the weights of {lab / 'base'} (recipe tiny)" in capsys.readouterr().out
    assert "init" not in provenance(lab / "base")
    fresh = tuned(lab, tmp_path / "fresh", init=NO_FILE)
    assert not equal(weights(out), weights(fresh))


def test_the_normalizer_is_kept_or_refitted(lab: Path, tmp_path: Path) -> None:
    kept, refitted = tuned(lab, tmp_path / "kept"), tuned(lab, tmp_path / "refitted", keeps="refitted")
    fresh = tuned(lab, tmp_path / "fresh", init=NO_FILE)
    assert normalizer(kept) == normalizer(lab / "base") != normalizer(fresh)
    assert normalizer(refitted) == normalizer(fresh)
    assert provenance(refitted)["init"]["normalizer"] == "refitted"
    other = tuned(lab, tmp_path / "hand", keeps="refitted", data="hand")
    assert load_normalizer(other).embodiments == ("hand",)


def test_what_differs_from_the_other_run_is_said(
    lab: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    slower = replace(TUNED, policy=replace(TUNED.policy, video_weight=0.5))
    tuned(lab, tmp_path, slower)
    assert "(recipe tiny); other than there: policy.video_weight: 1.0 -> 0.5" in capsys.readouterr().out


def test_an_interrupted_run_goes_on_without_the_flags_and_without_the_other_run(
    lab: Path, tmp_path: Path
) -> None:
    whole = tuned(lab, tmp_path / "whole")
    shutil.copytree(lab / "base", tmp_path / "base")
    for flags in (
        {"init": NO_FILE},
        {"init": tmp_path / "base"},  # elsewhere, the same weights
        {"init": lab / "base"},
    ):
        cut = shutil.copytree(whole, tmp_path / "cut")
        shutil.rmtree(cut / "checkpoints/step_000004")
        (cut / "weights.safetensors").unlink()
        record = cut / "provenance.json"
        record.write_text(record.read_text().replace(str(lab / "base"), str(tmp_path / "gone")))
        tuned(lab, cut, **flags)
        assert lasting(cut) == lasting(whole) and equal(weights(cut), weights(whole))
        assert normalizer(cut) == normalizer(lab / "base")
        shutil.rmtree(cut)


def test_a_run_stopped_before_its_first_checkpoint_needs_the_other_run(lab: Path, tmp_path: Path) -> None:
    whole = tuned(lab, tmp_path / "whole")
    cut = shutil.copytree(whole, tmp_path / "cut", ignore=shutil.ignore_patterns("checkpoints", "weights.*"))
    tuned(lab, cut, init=NO_FILE)
    assert equal(weights(cut), weights(whole))
    gone = shutil.copytree(
        whole, tmp_path / "gone", ignore=shutil.ignore_patterns("checkpoints", "weights.*")
    )
    record = gone / "provenance.json"
    record.write_text(record.read_text().replace(str(lab / "base"), str(tmp_path / "moved")))
    with pytest.raises(BadInput, match=r"was begun with --init .*moved, whose weights are missing or others"):
        tuned(lab, gone, init=NO_FILE)
    tuned(lab, gone)  # where it lies now
    assert equal(weights(gone), weights(whole))


def test_a_run_is_resumed_as_it_was_begun(lab: Path, tmp_path: Path) -> None:
    out = tuned(lab, tmp_path / "run")
    tuned(lab, out)  # finished
    with pytest.raises(
        BadInput, match=r"was begun with --init .*base --init-normalizer kept; omit the flags"
    ):
        tuned(lab, out, keeps="refitted")
    with pytest.raises(BadInput, match=r"was begun with --init .*base"):
        tuned(lab, out, init=tuned(lab, tmp_path / "other", init=NO_FILE))
    with pytest.raises(BadInput, match=r"other: was begun without --init; omit the flags"):
        tuned(lab, tmp_path / "other")
    with pytest.raises(BadInput, match=r"run: is --out too; omit the flag to resume"):
        tuned(lab, out, init=out)


def test_what_is_no_run_directory_is_named(lab: Path, tmp_path: Path) -> None:
    file, folder = tmp_path / "step_055000.pt", tmp_path / "hub"
    torch.save({"step": 1}, file)
    folder.mkdir()
    convert = re.escape("`wamkit convert light-wam FILE RUN --recipe RECIPE --stats STATISTICS`")
    for path, what in ((file, "is a file"), (folder, "has no run.json"), (tmp_path / "no", "does not exist")):
        with pytest.raises(BadInput, match=rf"--init {path}: {what}; expected a run directory .*{convert}"):
            tuned(lab, tmp_path / "run", init=path)
    begun = shutil.copytree(lab / "base", tmp_path / "begun")
    (begun / "weights.safetensors").unlink()
    with pytest.raises(
        BadInput, match=r"begun: weights.safetensors is missing; training writes it at its end"
    ):
        tuned(lab, tmp_path / "run", init=begun)
    another = replace(TUNED, policy=tiny_fast_wam.tiny_config())
    with pytest.raises(
        BadInput, match=r"base: is of light_wam, recipe tuned is of fast_wam; name a run of fast"
    ):
        tuned(lab, tmp_path / "run", another)
    assert not (tmp_path / "run").exists()


def test_another_architecture_is_told_key_by_key_and_value_by_value(lab: Path, tmp_path: Path) -> None:
    policy = replace(
        TUNED.policy,
        adapters=replace(TUNED.policy.adapters, layers=(1, 2)),
        expert=replace(TUNED.policy.expert, queries=5),
    )
    with pytest.raises(BadInput) as caught:
        tuned(lab, tmp_path / "run", replace(TUNED, policy=policy))
    message = str(caught.value)
    assert f"--init {lab / 'base'}: does not fit LightWAM" in message
    assert re.search(r"\d+ missing: dit\.adapters\.2\.", message)
    assert re.search(r"\d+ unexpected: dit\.adapters\.0\.", message)
    assert re.search(r"of another shape: \S+ \[.*\] instead of \[.*\]", message)
    assert (
        "The runs differ: policy.adapters.layers: [0, 1] -> [1, 2]; policy.expert.queries: 3 -> 5" in message
    )
    assert "Give recipe tuned those values, or name another run" in message
    assert not (tmp_path / "run").exists()


def test_weights_that_are_not_finite_are_refused(lab: Path, tmp_path: Path) -> None:
    broken = shutil.copytree(lab / "base", tmp_path / "broken")
    tensors = weights(broken)
    next(iter(tensors.values())).flatten()[0] = torch.nan
    save_file(tensors, broken / "weights.safetensors")
    (broken / "weights.json").unlink()
    with pytest.raises(BadInput, match=r"1 of the weights are not finite"):
        tuned(lab, tmp_path / "run", init=broken)


def test_a_kept_normalizer_must_fit_the_robot(lab: Path, tmp_path: Path) -> None:
    with pytest.raises(
        BadInput, match=r"normalizer knows robot 'robot', and .*hand is of 'hand'.*--init-normalizer refitted"
    ):
        tuned(lab, tmp_path / "run", data="hand")
    wide = replace(SPEC, action_dim=3)
    tiny_dataset.write(tmp_path / "wide", (12, 9), spec=wide)
    space = ActionSpace(("x", "y", "grip"), ("delta", "delta", "gripper"))
    with pytest.raises(
        BadInput, match=r"dimensions \{'action': 2, 'proprio': 3\} of 'robot', the run has \{'action': 3"
    ):
        tuned(lab, tmp_path / "run", replace(TUNED, data=wide, actions=space), data=str(tmp_path / "wide"))
    scored = replace(TUNED, normalization=Normalization("z_score", "min_max"))
    with pytest.raises(
        BadInput, match=r"give --normalization.action min_max --normalization.proprio min_max, or"
    ):
        tuned(lab, tmp_path / "run", scored)
    binary = replace(TUNED, normalization=Normalization(gripper="binary"))
    with pytest.raises(
        BadInput, match=r"rules \{\} for dimensions of 'robot', the run has \{1: 'binary'\}; change --norm"
    ):
        tuned(lab, tmp_path / "run", binary)
    assert not (tmp_path / "run").exists()


def test_other_dimensions_need_another_head(lab: Path, tmp_path: Path) -> None:
    """Refitting does not help where the weights are of another width."""
    wide = replace(SPEC, action_dim=3)
    tiny_dataset.write(tmp_path / "wide", (12, 9), spec=wide)
    run = replace(TUNED, data=wide, actions=ActionSpace(("x", "y", "z"), ("delta",) * 3))
    with pytest.raises(BadInput, match=r"of another shape: expert\..*data.action_dim: 2 -> 3"):
        tuned(lab, tmp_path / "run", run, keeps="refitted", data=str(tmp_path / "wide"))


def test_both_stages_of_lawam(tmp_path: Path) -> None:
    """The policy's world model begins as the other policy left it, not as stage 1 did."""
    stage1, policy = lawam_runs(tmp_path)
    data = [tiny_dataset.write(tmp_path / "data", (12, 9, 10), spec=stage1.data)]
    stage1, policy = (replace(run, data=replace(run.data, held_out=0.0)) for run in (stage1, policy))
    train(stage1, data, NO_FILE, tmp_path / "stage1", CPU)
    train(policy, data, NO_FILE, tmp_path / "policy", CPU)
    for run, init in ((stage1, tmp_path / "stage1"), (policy, tmp_path / "policy")):
        again = build_policy(replace(run, train=replace(run.train, seed=9)), load_normalizer(init))
        start_of(init, "kept", run, tmp_path / "again").initialize(again, run)
        found, expected = trained_tensors(again), run_weights(init)
        assert found.keys() == expected.keys()
        assert all(torch.equal(found[name], expected[name]) for name in found)
    train(policy, data, NO_FILE, tmp_path / "tuned", CPU, NO_FILE, tmp_path / "policy")
    assert provenance(tmp_path / "tuned")["init"]["recipe"] == "tiny_lawam"


def test_from_the_command_line(
    lab: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    run = replace(TUNED, eval=replace(TUNED.eval, replan_steps=4))
    monkeypatch.setattr(training, "recipe", lambda name: run)
    out = tmp_path / "run"
    words = ["train", "tuned", f"--dataset={lab / 'new'}", f"--out={out}", f"--init={lab / 'base'}"]
    assert main([*words, f"--stats={lab / 'stats.json'}"]) == 2
    assert "--stats: the normalizer of --init is kept" in capsys.readouterr().err
    assert main([*words[:-1], "--init-normalizer", "refitted"]) == 2
    assert "--init-normalizer: there is no --init" in capsys.readouterr().err
    assert main([*words, "--plan"]) == 0
    assert main([*words, "--plan", "--policy.expert.queries=7"]) == 2
    assert "does not fit LightWAM" in capsys.readouterr().err and not out.exists()
    assert main([*words, "--init-normalizer", "refitted"]) == 0
    assert provenance(out)["init"]["normalizer"] == "refitted"
    assert main(words) == 2
    assert "--init-normalizer refitted; omit the flags to resume it" in capsys.readouterr().err
    assert main(words[:-1]) == 0  # finished
