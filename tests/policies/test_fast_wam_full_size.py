"""The published Fast-WAM on the meta device: every name, shape and parameter count (spec 1, 4.2, 5); its recipes."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from wamkit.cli import main
from wamkit.config import diff
from wamkit.policies.fast_wam.convert import FORMAT
from wamkit.policies.fast_wam.policy import FastWAM
from wamkit.recipes import recipe
from wamkit.stages.plan import meta_batch, meta_policy, parts
from wamkit.wan.vae import WAN22

# recipe -> (proprio and action dims)
DIMS = {"libero_fast_wam": (8, 7), "robotwin_fast_wam": (14, 14)}


@pytest.fixture(scope="module")
def policies() -> dict[str, FastWAM]:
    return {name: meta_policy(recipe(name)) for name in DIMS}


@pytest.fixture(scope="module")
def published() -> dict[str, Any]:
    return json.loads((Path(__file__).parents[1] / "golden" / "fastwam_keys.json").read_text())


def count(policy: FastWAM, *prefixes: str) -> int:
    return sum(p.numel() for name, p in policy.named_parameters() if name.startswith(prefixes))


def test_parameter_counts(policies, published):
    policy, counts = policies["libero_fast_wam"], published["parameters"]
    assert count(policy, "dit.") == counts["video_branch"] == 4_999_787_712
    assert count(policy, "action.") == counts["action_branch_A7"] == 1_020_886_023
    assert count(policy, "dit.", "action.") == counts["mixture_A7"] == 6_020_673_735
    assert count(policy, "dit.blocks.7.") == counts["video_block"] == 163_656_704
    assert count(policy, "action.blocks.7.") == counts["action_block"] == 33_600_512
    rows = {part.name: part for part in parts(recipe("libero_fast_wam"), policy)}
    assert rows["video codec"].parameters == counts["vae_frozen"] == 704_688_668
    assert rows["video codec"].trainable == 0
    assert count(policy, "proprio_encoder.") == 36_864


def test_what_is_trained(policies):
    for policy in policies.values():
        trained = {name for name, p in policy.named_parameters() if p.requires_grad}
        assert trained == policy.state_dict().keys()


@pytest.mark.parametrize("name", DIMS)
def test_every_name_and_shape_of_the_released_files(policies, published, name):
    proprio_dim, action_dim = DIMS[name]
    dims = {"A": action_dim, "P": proprio_dim}

    def expand(shape: list[int | str]) -> list[int]:
        return [dims[x] if isinstance(x, str) else x for x in shape]

    expected = {
        key.replace("{i}", str(i)): expand(row["shape"])
        for key, row in published["mot"].items()
        for i in range(row["count"])
    }
    official = FORMAT.write(policies[name], step=1)
    assert {key: list(x.shape) for key, x in official["mot"].items()} == expected
    assert len(expected) == 825 + 824
    assert {key: list(x.shape) for key, x in official["proprio_encoder"].items()} == {
        key: expand(shape) for key, shape in published["envelope"]["proprio_encoder"].items()
    }
    assert official.keys() == published["envelope"].keys() - {"optimizer"}


@pytest.mark.parametrize("name", DIMS)
def test_structure_is_read_off_the_file(policies, name):
    config = recipe(name).policy
    other = replace(config, size=replace(config.size, width=8, ffn=8, layers=1), action_width=8, action_ffn=8)
    found = FORMAT.structure(FORMAT.write(policies[name], step=1), other, "a.pt")
    assert found.config == policies[name].config
    assert (found.dims["proprio_dim"], found.dims["action_dim"]) == DIMS[name]


def test_latent_statistics(published):
    normalisation = published["vae_latent_normalisation"]
    assert list(WAN22.latent_mean) == normalisation["mean"]
    assert list(WAN22.latent_std) == normalisation["std"]


@pytest.mark.parametrize(
    ("name", "grid", "hz", "mode"),
    [("libero_fast_wam", (14, 28), 20, "min_max"), ("robotwin_fast_wam", (24, 20), 50, "z_score")],
)
def test_recipes_see_the_published_windows(name, grid, hz, mode):
    run = recipe(name)
    batch = meta_batch(run)
    size = run.train.batch_size
    assert batch.inputs["present"].shape == (size, 48, 1, *grid)
    assert batch.inputs["future"].shape == (size, 48, 2, *grid)
    assert batch.inputs["context"].shape == (size, 128, 4096)
    assert batch.actions.shape == (size, 32, DIMS[name][1])
    assert run.data.frame_offsets == tuple(range(0, 33, 4))
    assert run.data.hz == hz and run.normalization.action == run.normalization.proprio == mode


@pytest.mark.parametrize("name", DIMS)
def test_ours_differs_from_the_published_recipe_where_it_says(name):
    changes = {change.split(":")[0] for change in diff(recipe(name), recipe(f"{name}_ours"))}
    assert changes == {
        "normalization.statistics",
        "eval.preprocessing",
        "policy.noise",
        "policy.start.action",
        "policy.time_precision",
        "recipe",
        "train.clip_norm",
        "train.decayed",
    }


def test_the_plan_is_counted_without_memory(capsys):
    assert main(["train", "libero_fast_wam", "--plan"]) == 0
    printed = capsys.readouterr().out
    for number in ("4,999,787,712", "1,020,886,023", "36,864", "704,688,668", "6,020,710,599", "224x448"):
        assert number in printed
