"""Released Light-WAM checkpoints: bit-exact both ways, structure read off the file, misfits explained."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from wamkit_client.types import BadInput

from wamkit.data.normalize import Normalizer
from wamkit.data.statistics import Stats
from wamkit.policies.light_wam.convert import ENVELOPE, FORMAT, SECTIONS
from wamkit.policies.light_wam.policy import FullTuning, LightWAM, LightWAMConfig, LoRATuning
from wamkit.policies.light_wam.state_fusion import StateFusionConfig
from wamkit.types import DataSpec
from wamkit.wan.codec import BlockCodec
from wamkit.wan.dit import Adapters, WanSize
from wamkit.wan.encoders import BlockCodecConfig, HashedTextConfig
from wamkit.wan.vae import WanVAE

GOLDEN = Path(__file__).parents[1] / "golden" / "lightwam_seed1"
TINY = LightWAMConfig(
    codec=BlockCodecConfig(),
    text=HashedTextConfig(width=10, length=8),
    size=WanSize(width=24, ffn=40, heads=2, head_dim=12, layers=3, channels=48, text_dim=10, time_dim=16),
    tuning=LoRATuning(rank=2, alpha=4.0),
    adapters=Adapters(layers=(0, 2), dim=6),
    expert=StateFusionConfig(queries=3, heads=2, level_dim=20, trunk_dim=28, trunk_blocks=1, step_dim=12),
)
# the same but for everything that a file shows
OTHER = replace(
    TINY,
    size=replace(TINY.size, width=36, ffn=30, heads=3, layers=4, channels=16, text_dim=14, time_dim=20),
    tuning=LoRATuning(rank=3, alpha=6.0),
    adapters=Adapters(layers=(1, 2, 3), dim=5),
    expert=StateFusionConfig(queries=4, heads=2, level_dim=22, trunk_dim=26, trunk_blocks=2, step_dim=8),
)


def make(config: LightWAMConfig, seed: int, proprio_dim: int = 5, action_dim: int = 4) -> LightWAM:
    """A policy in which no parameter has a special value."""
    data = DataSpec(
        views=("image",),
        canvas="single",
        view_height=32,
        view_width=32,
        hz=10.0,
        frame_times=(0.0, 0.1, 0.2, 0.3, 0.4),
        chunk_seconds=0.8,
        proprio_dim=proprio_dim,
        action_dim=action_dim,
    )
    stats = {"action": Stats.of(np.eye(action_dim)), "proprio": Stats.of(np.eye(proprio_dim))}
    policy = LightWAM(config, data, Normalizer.fit({"r": stats}, {"action": "min_max", "proprio": "min_max"}))
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in policy.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator))
    return policy


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("config", [TINY, OTHER])
def test_round_trip_is_bit_exact(config, dtype, tmp_path):
    policy, other = make(config, 1).to(dtype), make(config, 2).to(dtype)
    torch.save(FORMAT.write(policy, step=12_500), tmp_path / "step_012500.pt")
    assert FORMAT.load(other, tmp_path / "step_012500.pt") == 12_500
    expected, got = policy.state_dict(), other.state_dict()
    assert expected.keys() == got.keys()
    assert all(torch.equal(expected[name], got[name]) for name in expected)

    again = torch.load(tmp_path / "step_012500.pt", weights_only=True)
    assert again["torch_dtype"] == str(dtype)
    back = FORMAT.write(other, step=12_500)
    for section in SECTIONS:
        assert list(back[section]) == list(again[section])
        assert all(torch.equal(back[section][name], again[section][name]) for name in again[section])


def test_structure_is_read_off_the_file():
    found = FORMAT.structure(FORMAT.write(make(OTHER, 1, proprio_dim=7, action_dim=3), step=0), TINY, "a.pt")
    assert (found.config, found.dims) == (OTHER, {"action_dim": 3, "proprio_dim": 7})


def golden_checkpoint() -> dict[str, Any]:
    """The committed vectors hold a whole small checkpoint of the released code."""
    tensors = load_file(GOLDEN.with_suffix(".safetensors"))
    start = {section: f"params/{section}/" for section in SECTIONS}
    return {
        section: {n.removeprefix(prefix): x for n, x in tensors.items() if n.startswith(prefix)}
        for section, prefix in start.items()
    } | {"step": 7, "torch_dtype": "torch.float32"}


def test_a_checkpoint_of_the_released_code(tmp_path):
    about = json.loads(GOLDEN.with_suffix(".json").read_text())["config"]
    official = golden_checkpoint()
    recipe = replace(
        TINY,
        size=replace(TINY.size, head_dim=about["attn_head_dim"]),
        tuning=LoRATuning(rank=1, alpha=about["lora_alpha"] / about["lora_rank"]),
        expert=replace(TINY.expert, heads=about["sf"]["token_pooling_num_heads"]),
    )
    found = FORMAT.structure(official, recipe, "golden.pt")
    size, expert = found.config.size, found.config.expert
    assert (size.width, size.ffn, size.heads, size.layers) == (64, 112, 2, 4)
    assert (size.channels, size.text_dim, size.time_dim) == (4, 40, about["freq_dim"])
    assert found.config.tuning == LoRATuning(rank=about["lora_rank"], alpha=about["lora_alpha"])
    assert found.config.adapters == Adapters((1, 3), about["adapter_dim"], 1.0)
    assert (expert.queries, expert.level_dim, expert.trunk_dim, expert.step_dim) == (4, 40, 56, 16)
    assert found.dims == {"action_dim": about["action_dim"], "proprio_dim": about["proprio_dim"]}

    torch.save(official, tmp_path / "golden.pt")
    policy = make(found.config, 3, **found.dims)
    assert FORMAT.load(policy, tmp_path / "golden.pt") == 7
    assert FORMAT.write(policy, 7).keys() == official.keys()
    for section in SECTIONS:
        back = FORMAT.write(policy, 7)[section]
        assert back.keys() == official[section].keys()
        assert all(torch.equal(back[name], x) for name, x in official[section].items())


def test_the_codec_is_no_part_of_the_policy_nor_of_the_file():
    policy = make(TINY, 1)
    assert not any(isinstance(module, BlockCodec | WanVAE) for module in policy.modules())
    official = FORMAT.write(policy, step=1)
    assert not any("codec" in name or "module" in name for section in SECTIONS for name in official[section])


def drop(section: str, name: str) -> Callable[[dict[str, Any]], object]:
    return lambda official: official[section].pop(name)


def add(section: str, name: str) -> Callable[[dict[str, Any]], object]:
    return lambda official: official[section].update({name: torch.ones(2)})


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (drop("mot", "mixtures.video.blocks.1.ffn.2.bias"), r"1 missing: dit.blocks.1.ffn.2.bias"),
        (
            drop("mot", "mixtures.video.blocks.1.ffn_lora_in.up_proj.weight"),
            r"1 missing: .*ffn.0.lora_up.weight",
        ),
        (drop("mot", "mixtures.video.wam_adapters.2.up_proj.bias"), r"1 missing: dit.adapters.2.up.bias"),
        (drop("mot", "mixtures.video.patch_embedding.weight"), r"lacks 'dit.patch_embedding.weight'"),
        (drop("proprio_encoder", "bias"), r"1 missing: proprio_encoder.bias"),
        (add("mot", "mixtures.video.head.extra"), r"1 unexpected: dit.head.extra"),
        (add("mot", "mixtures.action.head.weight"), r"'mot.mixtures.action.head.weight' is no part"),
        (add("state_fusion_action_expert", "extra"), r"1 unexpected: expert.extra"),
        (lambda official: official.pop("proprio_encoder"), r"not a Light-WAM checkpoint"),
        (lambda official: official.update(dit=official.pop("mot")), r"a video model alone is read by"),
        (lambda official: official.update(optimizer={}), r"not a Light-WAM checkpoint"),
        (lambda official: official.update(step=Path("x")), r"more than tensors"),
    ],
)
def test_misfits_are_named(change, message, tmp_path):
    official = FORMAT.write(make(TINY, 1), step=1)
    change(official)
    torch.save(official, tmp_path / "a.pt")
    with pytest.raises(BadInput, match=message):
        FORMAT.load(make(TINY, 2), tmp_path / "a.pt")


def test_another_structure_is_named_leaf_by_leaf(tmp_path):
    torch.save(FORMAT.write(make(OTHER, 1), step=1), tmp_path / "a.pt")
    with pytest.raises(BadInput) as error:
        FORMAT.load(make(TINY, 2), tmp_path / "a.pt")
    for leaf in (
        "size.layers is 4 in the file and 3 in the policy",
        "tuning.rank is 3",
        "expert.queries is 4",
    ):
        assert leaf in str(error.value)
    torch.save(FORMAT.write(make(TINY, 1, action_dim=6), step=1), tmp_path / "b.pt")
    with pytest.raises(
        BadInput, match="structure than the policy: action_dim is 6 in the file and 4 in the policy"
    ):
        FORMAT.load(make(TINY, 2), tmp_path / "b.pt")


def test_a_recipe_without_lora_cannot_take_a_released_file():
    with pytest.raises(BadInput, match='the recipe has tuning "full"'):
        FORMAT.structure(FORMAT.write(make(TINY, 1), step=0), replace(TINY, tuning=FullTuning()), "a.pt")


def test_names_of_neither_side_are_refused():
    with pytest.raises(BadInput, match=r"'mot.blocks.0.weight' is no part"):
        ENVELOPE.ours({"mot": {"blocks.0.weight": torch.ones(1)}, "state_fusion_action_expert": {}}, "a")


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"video_predicts": "clean"}, "policy.video_predicts is clean: released code knows velocity"),
        (
            {"size": replace(TINY.size, present_skip=True)},
            "policy.size.present_skip is True: released code knows False",
        ),
        (
            {"expert": replace(TINY.expert, reads_proprio=True)},
            "policy.expert.reads_proprio is True: released code knows False",
        ),
    ],
)
def test_what_released_code_does_not_know_is_neither_written_nor_read(
    changes: dict[str, Any], named: str
) -> None:
    with pytest.raises(BadInput, match=named):
        FORMAT.write(make(replace(TINY, **changes), 1), step=1)
    with pytest.raises(BadInput, match=f"a.pt: {named}"):
        FORMAT.structure(FORMAT.write(make(TINY, 1), step=1), replace(TINY, **changes), "a.pt")
