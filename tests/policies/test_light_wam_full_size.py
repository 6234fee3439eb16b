"""The published Light-WAM, on the meta device: every name, shape and parameter count (spec 1.1, 4.1)."""

from __future__ import annotations

import gzip
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tests.official_run import LIBERO as LIBERO_FILE
from tests.official_run import ROBOTWIN as ROBOTWIN_FILE
from tests.official_run import config, put, write_config
from wamkit.data.normalize import Normalizer
from wamkit.data.statistics import Stats
from wamkit.policies.light_wam.convert import FORMAT, NAMES, SECTIONS
from wamkit.policies.light_wam.official_config import read_config
from wamkit.policies.light_wam.policy import LightWAM, LightWAMConfig
from wamkit.recipes import recipe
from wamkit.stages.plan import meta_policy
from wamkit.types import DataSpec

# (proprio and action dims, canvas views) of the two published settings
LIBERO, ROBOTWIN = (8, 7), (14, 14)


def full_size(proprio_dim: int, action_dim: int) -> LightWAM:
    data = DataSpec(
        views=("image", "wrist_image"),
        canvas="horizontal",
        view_height=224,
        view_width=224,
        hz=20.0,
        frame_times=tuple(0.2 * i for i in range(9)),
        chunk_seconds=1.6,
        proprio_dim=proprio_dim,
        action_dim=action_dim,
    )
    stats = {"action": Stats.of(np.eye(action_dim)), "proprio": Stats.of(np.eye(proprio_dim))}
    normalizer = Normalizer.fit({"panda": stats}, {"action": "min_max", "proprio": "min_max"})
    with torch.device("meta"):
        return LightWAM(LightWAMConfig(), data, normalizer)


@pytest.fixture(scope="module")
def policies() -> dict[tuple[int, int], LightWAM]:
    return {dims: full_size(*dims) for dims in (LIBERO, ROBOTWIN)}


@pytest.fixture(scope="module")
def published() -> dict[str, Any]:
    return json.loads(
        gzip.decompress((Path(__file__).parents[1] / "golden/lightwam_keys.json.gz").read_bytes())
    )


def count(policy: LightWAM, *prefixes: str, trainable: bool = False) -> int:
    return sum(
        parameter.numel()
        for name, parameter in policy.named_parameters()
        if name.startswith(prefixes or "") and (parameter.requires_grad or not trainable)
    )


def codec() -> int:
    """Parameters of the frozen codec beside the policy."""
    with torch.device("meta"):
        modules = LightWAMConfig().encoder_modules()
    return sum(p.numel() for p in modules["video codec"].parameters())


@pytest.mark.parametrize(
    ("dims", "total", "trainable"),
    [(LIBERO, 1_986_819_434, 441_031_543), (ROBOTWIN, 1_986_887_025, 441_099_134)],
)
def test_totals(policies, dims, total, trainable):
    assert count(policies[dims]) + codec() == total
    assert count(policies[dims], trainable=True) == trainable


def test_parts(policies):
    policy, robotwin = policies[LIBERO], policies[ROBOTWIN]
    head, adapters = count(policy, "dit.head."), count(policy, "dit.adapters.")
    lora = sum(p.numel() for name, p in policy.dit.named_parameters() if "lora_" in name)
    assert head == 101_440
    assert adapters == 3 * 791_296 == 2_373_888
    assert lora == 30 * 2_916_352 == 87_490_560
    assert count(policy, "dit.") - head - adapters - lora == 1_418_895_360
    assert codec() == 126_892_531
    assert count(policy, "proprio_encoder.") == 36_864
    assert count(robotwin, "proprio_encoder.") == 61_440
    assert count(policy, "expert.") == 351_028_791
    assert count(robotwin, "expert.") == 351_071_806


@pytest.mark.parametrize(
    ("prefix", "parameters"),
    [
        ("dit.blocks.7.", 46_440_704 + 2_916_352),
        ("dit.patch_embedding.", 99_840),
        ("dit.text_embedding.", 8_653_824),
        ("dit.time_embedding.", 2_755_584),
        ("dit.time_projection.", 14_164_992),
        ("expert.poolers.1.", 9_474_064),
        ("expert.compressors.1.", 28_323_840),
        ("expert.fused_norm.", 27_648),
        ("expert.fused_proj.", 84_940_800),
        ("expert.trunk.", 75_522_048),
        ("expert.step_proj.", 39_334_400),
        ("expert.output_norm.", 12_288),
        ("expert.output.", 37_797_895),
    ],
)
def test_smaller_parts(policies, prefix, parameters):
    assert count(policies[LIBERO], prefix) == parameters


def shapes(official: dict[str, Any]) -> dict[str, dict[str, list[int]]]:
    return {section: {name: list(x.shape) for name, x in official[section].items()} for section in SECTIONS}


def test_every_name_and_shape_of_the_released_files(policies, published):
    libero = shapes(FORMAT.write(policies[LIBERO], step=60_000))
    assert libero["mot"] == published["mot"]
    assert libero["state_fusion_action_expert"] == published["state_fusion_action_expert"]
    assert libero["proprio_encoder"] == published["proprio_encoder"]["libero_8d"]
    assert {section: len(names) for section, names in libero.items()} == {
        "mot": 1443,
        "state_fusion_action_expert": 70,
        "proprio_encoder": 2,
    }
    robotwin = shapes(FORMAT.write(policies[ROBOTWIN], step=460_000))
    assert robotwin["mot"] == published["mot"]
    assert robotwin["state_fusion_action_expert"] == (
        published["state_fusion_action_expert"] | published["state_fusion_action_expert_action14"]
    )
    assert robotwin["proprio_encoder"] == published["proprio_encoder"]["robotwin_and_real_14d"]


def test_what_is_trained(policies, published):
    parameters = dict(policies[LIBERO].named_parameters())
    trained = {name for name, parameter in parameters.items() if parameter.requires_grad}
    mot = {NAMES.forward(f"mot.{name}") for name in published["trainable_mot_keys"]}
    rest = {name for name in parameters if name.startswith(("expert.", "proprio_encoder."))}
    assert trained == mot | rest


def test_structure_is_read_off_the_file(policies):
    for (proprio_dim, action_dim), policy in policies.items():
        found = FORMAT.structure(FORMAT.write(policy, step=0), LightWAMConfig(), "a.pt")
        assert found.config == policy.config
        assert (found.dims["proprio_dim"], found.dims["action_dim"]) == (proprio_dim, action_dim)


@pytest.mark.parametrize(("fields", "dims"), [(LIBERO_FILE, LIBERO), (ROBOTWIN_FILE, ROBOTWIN)])
def test_the_released_config_and_file_make_it(policies, tmp_path, fields, dims):
    """From config.yaml alone; every tensor of the file arrives, is used, and goes back as it came."""
    run = read_config(write_config(tmp_path / "config.yaml", config(fields)), recipe)
    policy, official = meta_policy(run), FORMAT.write(policies[dims], step=60_000)
    assert FORMAT.fill(policy, official, "a.pt") == 60_000
    assert count(policy) == count(policies[dims])
    back = FORMAT.write(policy, step=60_000)
    assert shapes(back) == shapes(official)


def test_a_config_with_other_adapters_makes_a_policy_with_those(tmp_path, published):
    """The released LIBERO runs are named query_adapted_layer5_02: perhaps five adapters."""
    layers = [2, 8, 14, 20, 26]
    fields = config(LIBERO_FILE)
    put(fields, "model.wam_adapter.adapter_layer_indices", layers)
    policy = meta_policy(read_config(write_config(tmp_path / "config.yaml", fields), recipe))
    official = FORMAT.write(policy, step=1)
    found = shapes(official)
    assert len(found["mot"]) == 1425 + 5 * 6 and len(found["state_fusion_action_expert"]) == 70 + 2 * 16
    for name, shape in published["mot"].items():
        if "wam_adapters" not in name:
            assert found["mot"][name] == shape
    start = "mixtures.video.wam_adapters."
    assert {name.removeprefix(start).split(".")[0] for name in found["mot"] if name.startswith(start)} == {
        str(layer) for layer in layers
    }
    assert found["state_fusion_action_expert"]["fused_proj.weight"] == [6144, 5 * 4608]
    near = LightWAMConfig()
    again = FORMAT.structure(official, near, "a.pt").config
    assert again.adapters.layers == tuple(layers)
    assert replace(again, adapters=near.adapters) == near
