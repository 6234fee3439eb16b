"""Runs are saved whole, read strictly and changed by path."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
import torch
from wamkit_client.types import BadInput

from wamkit.cli import run_command
from wamkit.commands.overrides import changed, split_overrides
from wamkit.config import (
    build_policy,
    diff,
    from_json,
    load_normalizer,
    load_run,
    save_normalizer,
    save_run,
    to_json,
)
from wamkit.data.normalize import Normalizer
from wamkit.recipes import RECIPES, recipe
from wamkit.stages.plan import activations, memory, meta_batch, meta_policy, parts
from wamkit.types import Inputs


@pytest.mark.parametrize("name", RECIPES)
def test_a_run_survives_being_saved(name):
    run = recipe(name)
    assert run.recipe == name
    assert from_json(to_json(run), "here") == run


def test_an_unknown_key_is_refused_with_its_path():
    tree = json.loads(to_json(recipe("metaworld3")))
    tree["policy"]["adapters"]["gama"] = 1.0
    with pytest.raises(BadInput, match=r"run\.json.*policy\.adapters\.gama"):
        from_json(json.dumps(tree), "run.json")


def test_a_missing_key_is_refused_with_its_path():
    tree = json.loads(to_json(recipe("metaworld3")))
    del tree["data"]["hz"]
    with pytest.raises(BadInput, match=r"data\.hz"):
        from_json(json.dumps(tree), "run.json")


def test_values_change_by_path():
    run = recipe("metaworld3")
    own, overrides = split_overrides(
        ["metaworld3", "--train.steps", "70", "--out", "x", "--policy.objective", "action_only", "--plan"]
    )
    assert own == ["metaworld3", "--out", "x", "--plan"]
    new = changed(run, overrides, "train")
    assert (new.train.steps, new.policy.objective) == (70, "action_only")
    assert diff(run, new) == [
        "policy.objective: cotrain_one_pass -> action_only",
        f"train.steps: {run.train.steps} -> 70",
    ]


@pytest.mark.parametrize(
    ("words", "own"),
    [
        ("--train.steps 100 metaworld3", "metaworld3"),
        ("--train.steps=100 metaworld3 --plan", "metaworld3 --plan"),
        ("metaworld3 --train.betas 0.9 0.99 --out x", "metaworld3 --out x"),
        ("--train.betas 0.9 0.99 metaworld3", "metaworld3"),
        ("--train.learning_rate -1 a b --dataset d", "a b --dataset d"),
        ("a --policy.tuning.base weights b --policy.start.base weights c", "a b c"),
        ("--policy.adapters.layers 1 3 5 --out x a", "--out x a"),
        ("--data.whole-windows False a --train.compile True", "a"),
        ("--train.bettas 0.9 0.99 a --train.stepps=3 b", "a b"),
        ("a --train.steps --out x", "a --out x"),
        ("-h --train.steps 3 -h", "-h -h"),
    ],
)
def test_a_changed_value_takes_its_own_words_and_no_more(words, own):
    theirs, overrides = split_overrides(words.split())
    assert theirs == own.split()
    assert sorted(theirs + overrides) == sorted(words.split())


def test_a_true_or_false_is_said_in_words():
    run = recipe("real_robot")
    new = changed(run, ["--data.whole-windows", "False", "--train.compile", "True"], "train")
    assert diff(run, new) == ["data.whole_windows: True -> False", "train.compile: False -> True"]


def test_a_misspelt_path_is_answered_with_the_right_one(capsys):
    with pytest.raises(SystemExit) as stop:
        changed(recipe("metaworld3"), ["--policy.objectiv", "action_only"], "eval")
    assert stop.value.code == 2
    error = capsys.readouterr().err
    assert "--policy.objective" in error and "wamkit eval --help" in error


def test_a_directory_keeps_its_run(tmp_path):
    run = recipe("metaworld3")
    save_run(run, tmp_path)
    save_run(run, tmp_path)
    with pytest.raises(BadInput, match=r"train\.steps"):
        save_run(replace(run, train=replace(run.train, steps=3)), tmp_path)
    assert load_run(tmp_path) == run


def test_the_normaliser_of_a_run_is_its_own(tmp_path):
    run = recipe("metaworld3")
    policy = meta_policy(run)
    save_run(run, tmp_path)
    save_normalizer(policy.normalizer, tmp_path)
    path = tmp_path / "normalizer.json"
    written = path.stat().st_mtime_ns
    save_normalizer(policy.normalizer, tmp_path)
    assert path.stat().st_mtime_ns == written
    assert load_normalizer(tmp_path).to_json() == policy.normalizer.to_json()
    tree = json.loads(path.read_text())
    for name, values in tree["stats"]["plan"]["action"].items():
        tree["stats"]["plan"]["action"][name] = values if name == "count" else values[:3]
    path.write_text(json.dumps(tree))
    with pytest.raises(
        BadInput, match=r"normalizer\.json: has dimensions {'action': 3.*its run has {'action': 4"
    ):
        load_normalizer(tmp_path)
    with pytest.raises(BadInput, match="has other statistics: of another dataset"):
        save_normalizer(policy.normalizer, tmp_path)
    for name, load in (("normalizer.json", load_normalizer), ("run.json", load_run)):
        (tmp_path / name).write_bytes(b"\xff\x00\x80")
        with pytest.raises(BadInput, match=rf"{name}: not a text file"):
            load(tmp_path)


def test_the_full_size_plan_is_counted_without_memory(capsys):
    assert run_command(["train", "libero_spatial", "--plan"]) == 0
    printed = capsys.readouterr().out
    for number in ("1,986,819,434", "441,031,543", "1,418,895,360", "87,490,560", "2,373,888", "351,028,791"):
        assert number in printed


def test_planned_activations_are_those_of_a_real_batch():
    """The meta device counts what a real forward pass keeps, but for the attention kernel's own notes."""
    run = recipe("metaworld3")
    run = replace(run, train=replace(run.train, batch_size=2))
    policy = meta_policy(run)
    batch = meta_batch(run, policy)
    real = build_policy(run, Normalizer.from_json(policy.normalizer.to_json(), "plan"))
    inputs = Inputs(**{name: torch.zeros(tensor.shape) for name, tensor in vars(batch.inputs).items()})
    names = ("actions", "action_is_pad", "frame_is_pad")
    tensors = {name: torch.zeros_like(getattr(batch, name), device="cpu") for name in names}
    kept = activations(real, replace(batch, inputs=inputs, **tensors), "fp32")
    planned = memory(run, policy)
    assert planned.activations == pytest.approx(kept, rel=0.1)
    assert planned.optimizer == 8 * sum(part.trainable for part in parts(policy))
