"""The config.yaml of released Light-WAM runs: every field read, fixed or known not to matter; all else is refused."""

from __future__ import annotations

from copy import deepcopy
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.optim.lr_scheduler import CosineAnnealingLR, LinearLR, SequentialLR
from wamkit_client.types import BadInput

from tests import official_run as official
from tests.official_run import LIBERO, REAL, ROBOTWIN, config, put, write_config
from wamkit.config import Run, diff
from wamkit.flow import Shift
from wamkit.policies.light_wam.official_config import read_config
from wamkit.recipes import recipe


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "config.yaml"


def read(path: Path, fields: dict[str, Any]) -> Run:
    return read_config(write_config(path, fields), recipe)


@pytest.mark.parametrize(
    ("fields", "name"), [(LIBERO, "libero_spatial"), (ROBOTWIN, "robotwin"), (REAL, "real_robot")]
)
def test_a_published_run_is_our_recipe_of_it(path, fields, name):
    """Two roads to the published settings: the specification's tables, and the released file."""
    run = read(path, config(fields))
    assert run.recipe == f"released_{name}"
    assert diff(recipe(name), run) == [f"recipe: {name} -> released_{name}"]
    assert run.policy.size == recipe(name).policy.size  # not the 5B model that the file shows


@pytest.mark.parametrize(
    ("folders", "suite"),
    [
        (["./data/libero_goal_no_noops_lerobot/"], "libero_goal"),
        (["/x/libero_10"], "libero_10"),
        (["/x/libero_100"], "libero"),
        (["/x/libero_spatial_a", "/x/libero_object_a"], "libero"),
        (["/x/kitchen"], "libero"),
    ],
)
def test_the_suite_is_the_datasets(path, folders, suite):
    fields = config(LIBERO)
    put(fields, "data.train.dataset_dirs", folders)
    run = read(path, fields)
    assert (run.suite, run.recipe) == (suite, f"released_{suite}")


def test_every_mapped_field_arrives(path):
    fields = config(LIBERO)
    changes = {
        "model.wam_adapter.adapter_layer_indices": [24, 5, 2, 11, 17],
        "model.wam_adapter.adapter_dim": 128,
        "model.wam_adapter.adapter_scale": 0.5,
        "model.wam_adapter.lora_rank": 32,
        "model.wam_adapter.lora_alpha": 16,
        "model.state_fusion_action_expert_config.token_pooling_num_heads": 4,
        "model.state_fusion_action_expert_config.token_pooling_num_queries": 3,
        "model.state_fusion_action_expert_config.per_layer_dim": 100,
        "model.state_fusion_action_expert_config.trunk_dim": 200,
        "model.state_fusion_action_expert_config.num_trunk_blocks": 2,
        "model.state_fusion_action_expert_config.step_pos_dim": 64,
        "model.video_latent_spatial_downsample_factor": 1,
        "model.loss.lambda_video": 0.25,
        "model.loss.lambda_action": 2.0,
        "model.loss.action_temporal_weighting.tail_weight": 0.5,
        "data.train.num_frames": 17,
        "data.train.processor.num_obs_steps": 17,
        "data.train.processor.norm_default_mode": "z-score",
        "data.train.shape_meta.images.0.key": "front",
        "data.train.processor.shape_meta.images.0.key": "front",
        "learning_rate": "3e-4",  # YAML takes it for a text
        "max_steps": 7000,
        "warmup_steps": 77,
        "weight_decay": 0.5,
        "gradient_accumulation_steps": 3,
        "seed": 0,
        "mixed_precision": "no",
        "model.video_scheduler.train_shift": 3.0,
        "model.video_scheduler.infer_shift": 2.0,
    }
    for name, value in changes.items():
        put(fields, name, value)
    run = read(path, fields)
    policy, expert = run.policy, run.policy.expert
    assert policy.adapters == replace(policy.adapters, layers=(2, 5, 11, 17, 24), dim=128, gamma=0.5)
    assert (policy.tuning.rank, policy.tuning.alpha) == (32, 16.0)
    assert (expert.heads, expert.queries, expert.level_dim, expert.trunk_dim) == (4, 3, 100, 200)
    assert (expert.trunk_blocks, expert.step_dim, policy.video_pool) == (2, 64, 1)
    assert (policy.video_weight, policy.action_weight, policy.time_precision) == (0.25, 2.0, "float32")
    assert (policy.step_weights.prefix, policy.step_weights.tail) == (8, 0.5)
    assert policy.video_shift == Shift(train=3.0, sample=2.0)
    assert (run.data.horizon, run.data.frame_offsets) == (16, (0, 4, 8, 12, 16))
    assert run.data.views == ("front", "wrist_image")
    assert (run.normalization.action, run.normalization.proprio) == ("z_score", "z_score")
    train = run.train
    assert (train.steps, train.warmup_steps, train.learning_rate, train.weight_decay) == (7000, 77, 3e-4, 0.5)
    assert (train.batch_size, train.accumulation, train.seed, train.precision) == (192, 3, 0, "fp32")


def test_files_of_the_former_package_are_the_same_run(path, monkeypatch):
    new = read(path, config(ROBOTWIN))
    monkeypatch.setattr(official, "PACKAGE", "fastwam")
    fields = config(ROBOTWIN)
    assert fields["model"]["_target_"] == "fastwam.runtime.create_fastwam"
    put(
        fields,
        "data.train.processor._target_",
        "fastwam.datasets.lerobot.processors.fastwam_processor.FastWAMProcessor",
    )
    # what the code learned later, absent from files that were written before
    fields["model"].pop("apply_video_latent_downsample_to_action_branch")
    for name in ("token_pooling_merge_dim", "token_pooling_merge_num_slots", "layer_feature_sources"):
        fields["model"]["state_fusion_action_expert_config"].pop(name)
    fields.pop("warmup_steps")
    fields.pop("warmup_ratio")
    train = replace(new.train, warmup_steps=25_000, warmup_start=1 / 25_000)  # 5 % of all steps
    assert read(path, fields) == replace(new, train=train)


def published_rates(learning_rate: float, steps: int, warmup: int) -> list[float]:
    """The released trainer's schedule, step by step, with torch's own schedulers."""
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=learning_rate)
    warmup = min(warmup, steps - 1)
    schedule: Any = CosineAnnealingLR(optimizer, T_max=steps - warmup, eta_min=0.01 * learning_rate)
    if warmup:
        rising = LinearLR(optimizer, start_factor=1 / warmup, end_factor=1.0, total_iters=warmup)
        schedule = SequentialLR(optimizer, [rising, schedule], milestones=[warmup])
    rates = []
    for _ in range(steps):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        schedule.step()
    return rates


@pytest.mark.parametrize(
    ("given", "ratio", "steps", "warmup"),
    [
        (1000, 0.05, 4000, 1000),
        (None, 0.05, 30_000, 1500),
        (None, 0.37, 2999, 1109),
        (0, 0.05, 1500, 0),
        (9000, 0.05, 1500, 1499),
    ],
)
def test_the_schedule_is_the_released_trainers(path, given, ratio, steps, warmup):
    fields = config(LIBERO)
    fields |= {"warmup_steps": given, "warmup_ratio": ratio, "max_steps": steps}
    train = read(path, fields).train
    assert (train.warmup_steps, train.steps) == (warmup, steps)
    published = published_rates(2e-4, steps, warmup)
    for step in {0, 1, 1000, max(warmup - 1, 0), warmup, (warmup + steps) // 2, steps - 1}:
        assert train.rates.rate(step) == pytest.approx(published[step], rel=1e-6), step


def test_a_share_of_all_steps_warms_up_where_the_launcher_left_it_null(path):
    """LIBERO with 150,000 steps: 2.67e-5 at step 1000, where a launcher's 1000 steps have reached 2e-4."""
    fields = config(LIBERO) | {"warmup_steps": None}
    train = read(path, fields).train
    assert train.warmup_steps == 7500
    rate = train.rates.rate(1000)
    assert (
        rate
        == pytest.approx(2e-4 * (1 / 7500 + (1 - 1 / 7500) * 1000 / 7500))
        == pytest.approx(2.669e-5, rel=1e-3)
    )


def test_weighting_that_is_off_weighs_every_step(path):
    fields = config(LIBERO)
    put(
        fields,
        "model.loss.action_temporal_weighting",
        {"enabled": False, "num_prefix_steps": None, "prefix_weight": 1.0, "tail_weight": 1.0},
    )
    weights = read(path, fields).policy.step_weights
    assert (weights.prefix, weights.weight) == (32, 1.0)


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("model.wam_adapter.dropout_path", 0.1, r"unknown field model.wam_adapter.dropout_path = 0.1"),
        (
            "data.train.shape_meta.images.0.crop",
            {"key": 3},
            r"unknown field data.train.shape_meta.images.0.crop.key = 3",
        ),
        ("augmentation", {"crop": True}, r"unknown field augmentation.crop = True"),
        ("data.train.processor.delta", None, r"unknown field data.train.processor.delta = None"),
        ("model._target_", "lightwam.runtime.create_idm", r"model._target_ is 'lightwam.runtime.create_idm'"),
        ("model.video_backbone_type", "wan2_2_ti2v", r"is 'wan2_2_ti2v'; expected one of \['wan2_1_t2v'\]"),
        ("model.wam_adapter.use_backbone_lora", False, r"use_backbone_lora is False; expected True"),
        ("model.wam_adapter.use_backbone_lora", 1, r"use_backbone_lora is 1; expected True"),
        ("model.wam_adapter.lora_target_modules", ["ffn.0"], r"is \['ffn.0'\]; expected \['self_attn.q'"),
        ("model.wam_adapter.lora_rank", 64.5, r"lora_rank is 64.5; expected a whole number"),
        ("model.wam_adapter.adapter_layer_indices", ["8"], r"expected a list of int"),
        ("model.wam_adapter.adapter_layer_indices", None, r"expected a list"),
        (
            "model.state_fusion_action_expert_config.feature_sources",
            ["adapted", "delta"],
            r"expected \['adapted'\]",
        ),
        ("model.state_fusion_action_expert_config.token_pooling_type", "mean", r"expected 'learned_query'"),
        ("model.video_dit_config.video_attention_mask_mode", "bidirectional", r"expected 'first_frame_ca"),
        ("model.loss.use_first_frame_residual_video_target", True, r"expected False"),
        ("model.loss.action_temporal_weighting.num_prefix_steps", None, r"num_prefix_steps is null"),
        ("model.proprio_dim", 14, r"model.proprio_dim is 14; expected 8"),
        ("model.action_dit_config.action_dim", 14, r"action_dim is 14; expected 7"),
        ("model.tokenizer_max_len", 512, r"context_len is 128; expected 512"),
        ("data.train.video_size", [384, 320], r"video_size is \[384, 320\]; expected \[224, 448\]"),
        ("data.train.concat_multi_camera", "vertical", r"'vertical' of a RobotVideoDataset"),
        ("data.train.shape_meta.images.0.shape", [3, 96, 96], r"expected one shape for all cameras"),
        ("data.train.processor.shape_meta.images.0.key", "top", r"key is 'top'; expected 'image'"),
        ("data.train.processor.num_output_cameras", 1, r"num_output_cameras is 1; expected 2"),
        ("data.train.processor.norm_default_mode", "q01/q99", r"one of \['min/max', 'z-score'\]"),
        ("data.train.processor.delta_action_dim_mask", {"default": [False] * 7}, r"expected \[True, True"),
        ("data.train.processor.train_transforms.1.size", [256, 256], r"expected \[224, 224\]"),
        ("data.train.global_sample_stride", 2, r"global_sample_stride is 2; expected 1"),
        ("lr_scheduler_type", "constant", r"expected 'cosine'"),
        ("mixed_precision", "fp16", r"expected one of \['bf16', 'no'\]"),
        ("learning_rate", "${rate}", r"learning_rate is '\$\{rate\}'; expected a number"),
    ],
)
def test_what_we_cannot_be_or_do_not_know_is_named(path, name, value, message):
    fields = config(LIBERO)
    put(fields, name, value)
    with pytest.raises(BadInput, match=message) as error:
        read(path, fields)
    assert str(error.value).startswith(f"{path}: ")


def test_fields_that_do_not_matter_may_say_anything_or_lack(path):
    fields = config(ROBOTWIN)
    expected = read(path, fields)
    for name in ("num_workers", "wandb", "resume", "max_grad_norm", "num_epochs"):
        put(fields, name, "anything")
    put(fields, "data.val", None)
    put(fields, "data.train.latent_cache_dir", None)
    put(fields, "model.video_dit_config.hidden_dim", 1536)
    put(fields, "hydra", {"run": {"dir": "."}})
    fields.pop("train_visualization")
    assert read(path, fields) == expected


@pytest.mark.parametrize("name", ["model", "data.train.num_frames", "model.wam_adapter.lora_alpha", "seed"])
def test_a_missing_field_is_named(path, name):
    fields = deepcopy(config(LIBERO))
    *folders, last = name.split(".")
    inside = fields
    for folder in folders:
        inside = inside[folder]
    inside.pop(last)
    with pytest.raises(BadInput, match=rf"{name}\S* is missing; expected the resolved config.yaml"):
        read(path, fields)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("model: [", "not a YAML file"),
        ("- model", "expected the fields of a run, got list"),
        ("", "expected the fields of a run, got NoneType"),
        ("!!python/object/apply:os.system ['true']", "not a YAML file"),
    ],
)
def test_other_files_are_refused(path, text, message):
    path.write_text(text)
    with pytest.raises(BadInput, match=message):
        read_config(path, recipe)
    with pytest.raises(BadInput, match="no such file"):
        read_config(path.with_name("other.yaml"), recipe)
