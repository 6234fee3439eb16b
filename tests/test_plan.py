"""`wamkit train --plan`: a verdict on memory, and the errors that training would give."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from tests.test_bad_input import record, refused
from wamkit.cli import main
from wamkit.config import Run
from wamkit.recipes import recipe
from wamkit.stages import fit as module
from wamkit.stages.fit import OTHER, Place, fit, this_place
from wamkit.stages.plan import memory, meta_policy


def small(**train: object) -> Run:
    run = recipe("metaworld3")
    return replace(run, train=replace(run.train, batch_size=12, **train))


def of(total: int) -> Place:
    """A place in which a step of `total` bytes just fits."""
    return Place("there", int(total / (1 - OTHER)) + 1)


def counted(run: Run) -> int:
    return memory(run, meta_policy(run)).total


def test_a_step_that_fits():
    run = small()
    found = fit(run, meta_policy(run), of(counted(run)))
    assert found.fits and found.accumulation == 1
    assert found.sentence() == f"yes, {found.need.total / 2**30:.2g} of {found.place.size / 2**30:.2g} GiB"


@pytest.mark.parametrize("parts", [2, 3, 12])
def test_the_fewest_parts_that_fit(parts):
    run = small()
    need = counted(replace(run, train=replace(run.train, accumulation=parts)))
    found = fit(run, meta_policy(run), of(need))
    assert (found.fits, found.accumulation, found.reduced.total) == (False, parts, need)
    assert found.sentence().startswith("no, ")
    assert f"; with --train.accumulation {parts}: {need / 2**30:.2g} GiB" in found.sentence()


def test_parts_that_a_run_has_are_not_offered_again():
    run = small(accumulation=3)
    need = counted(replace(run, train=replace(run.train, accumulation=6)))
    assert fit(run, meta_policy(run), of(need)).accumulation == 6


def test_where_nothing_helps_it_is_said_what_takes_the_memory():
    run = small()
    alone = counted(replace(run, train=replace(run.train, accumulation=12)))
    found = fit(run, meta_policy(run), of(alone - 2**20))
    assert not found.reduced_fits and found.accumulation == 12
    assert "even with --train.accumulation 12, one sample at a time: " in found.sentence()
    assert "train a smaller policy, or on a device of more memory" in found.sentence()


def test_one_sample_cannot_be_parted():
    run = small()
    run = replace(run, train=replace(run.train, batch_size=1))
    found = fit(run, meta_policy(run), Place("there", 2**20))
    assert not found.fits and not found.reduced_fits and found.accumulation == 1


def test_the_moving_average_is_counted():
    run = small(average_decay=0.0)
    averaged = memory(replace(run, train=replace(run.train, average_decay=0.9)), meta_policy(run))
    assert averaged.average == averaged.gradients > 0
    assert averaged.total - counted(run) == averaged.average


def test_every_sample_may_be_of_the_larger_kind():
    """Of samples that are drawn to have more tokens, as many are counted as there can be."""
    names = ("metaworld3_fast_wam_optional_idm", "metaworld3_fast_wam_idm")
    optional, every = (memory(run, meta_policy(run)).activations for run in map(recipe, names))
    assert optional == pytest.approx(every, rel=0.02)


def test_this_machine_has_no_more_than_its_group_may_use(tmp_path, monkeypatch):
    limit = tmp_path / "memory.max"
    monkeypatch.setattr(module, "GROUP_LIMIT", limit)
    cpu = torch.device("cpu")
    whole = this_place(cpu)
    for text, expected in (("max\n", whole.size), (f"{2**28}\n", 2**28)):
        limit.write_text(text)
        assert this_place(cpu).size == expected


def plain(printed: str) -> str:
    """A table without its lines, on one line."""
    return " ".join(printed.replace("│", " ").split())


def test_the_verdict_is_printed(capsys):
    assert main(["train", "libero_spatial", "--plan", "--memory", "80"]) == 0
    assert "fits 80 GiB no, 80 of 80 GiB; with --train.accumulation 2: 45 GiB" in plain(
        capsys.readouterr().out
    )
    assert main(["train", "metaworld3", "--plan", "--device", "cpu"]) == 0
    assert "fits this CPU yes, " in plain(capsys.readouterr().out)


@pytest.mark.parametrize(
    ("given", "wrong"),
    [
        ({"action_dim": 6}, "action"),
        ({"cameras": ("front",)}, "corner2"),
    ],
)
def test_a_dataset_that_does_not_fit_is_refused_as_in_training(tmp_path: Path, capsys, given, wrong):
    dataset = str(record(tmp_path / "dataset", **given))
    words = ["train", "metaworld3", "--dataset", dataset, "--out", str(tmp_path / "run")]
    planned = refused(capsys, [*words, "--plan"])
    assert planned == refused(capsys, words) and wrong in planned


def test_a_dataset_that_is_not_there_is_refused(tmp_path: Path, capsys):
    words = ["train", "metaworld3", "--plan", "--dataset", str(tmp_path / "nowhere")]
    assert "nowhere" in refused(capsys, words)


def test_a_file_of_statistics_that_is_not_there_is_refused(tmp_path: Path, capsys):
    dataset = str(record(tmp_path / "dataset"))
    words = ["train", "metaworld3", "--plan", "--dataset", dataset, "--stats", str(tmp_path / "nowhere.json")]
    assert "nowhere.json" in refused(capsys, words)


def test_memory_is_of_a_plan(capsys):
    assert "--memory: is for --plan" in refused(capsys, ["train", "metaworld3", "--memory", "80"])
    assert "expected GiB, above 0" in refused(capsys, ["train", "metaworld3", "--plan", "--memory", "-1"])
