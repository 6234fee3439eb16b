"""Runs are saved whole, read strictly and changed by path."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
import torch
from wamkit_client.types import BadInput

from wamkit.cli import main
from wamkit.config import (
    build_policy,
    from_json,
    load_normalizer,
    load_run,
    save_normalizer,
    save_run,
    to_json,
)
from wamkit.data.normalize import Normalizer
from wamkit.draws import Draws
from wamkit.recipes import RECIPES, recipe
from wamkit.stages.kept import Kept
from wamkit.stages.plan import memory, meta_batch, meta_policy, parts


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


def test_a_policy_is_built_for_its_seed_and_leaves_the_callers_generator_alone():
    run = recipe("metaworld3")
    normalizer = meta_policy(run).normalizer
    before = torch.get_rng_state()
    one = build_policy(run, normalizer)
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(123)
    again = build_policy(run, normalizer)
    assert all(torch.equal(x, again.get_parameter(name)) for name, x in one.named_parameters())


def test_the_full_size_plan_is_counted_without_memory(capsys):
    assert main(["train", "libero_spatial", "--plan"]) == 0
    printed = capsys.readouterr().out
    for number in ("1,986,819,434", "441,031,543", "1,418,895,360", "87,490,560", "2,373,888", "351,028,791"):
        assert number in printed


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_planned_activations_are_those_of_a_real_batch(precision: str) -> None:
    run = recipe("metaworld3")
    run = replace(run, train=replace(run.train, batch_size=2, precision=precision))
    policy, batch = meta_policy(run), meta_batch(run)
    planned = memory(run, policy)
    real = build_policy(run, Normalizer.from_json(policy.normalizer.to_json(), "plan")).train()
    kept = Kept((*real.parameters(), *real.buffers()))
    zeros = batch.map(lambda x: torch.zeros_like(x, device="cpu"), batch.ids)
    with kept.watching(), torch.autocast("cpu", torch.bfloat16, enabled=precision == "bf16"):
        real(zeros, Draws.of(torch.Generator(), 2))
    assert planned.activations == pytest.approx(kept.bytes, rel=0.01)
    assert planned.optimizer == 8 * sum(part.trainable for part in parts(run, policy))
