"""The resolved `config.yaml` of a released Light-WAM run -> a Run of ours (Light-WAM spec 1-4.1).

Every field of the file, by its dotted path, stands in one of the tables below: it sets a value of ours (SETS), must
have a fixed value (MUST, MAY), repeats what others say (REPEATS) or does not matter (UNIMPORTANT). The few that make a
value of ours together are read by the functions behind the tables. Any other field is refused by name, since nobody
can tell what it means for the policy. What the file does not say (control rate, names of the action dimensions, replan
steps, number of processes, where frozen weights lie) is taken from the nearest recipe.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import replace
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Annotated, Any, NamedTuple

import yaml
from pydantic import Field, StrictBool, StrictInt, StrictStr, TypeAdapter
from wamkit_client.types import BadInput

from wamkit.data.canvas import canvas_size
from wamkit.io.differences import replaced
from wamkit.policies.light_wam.policy import LORA_LAYERS, StepWeights
from wamkit.wan.dit import SIZES


class Kind(NamedTuple):
    """What a field holds. read: a value of the file -> ours; raises ValueError, TypeError or KeyError for others."""

    expected: str
    read: Callable[[Any], Any]


def one_of(known: Mapping[str, Any]) -> Kind:
    """A name, which becomes what it means."""
    return Kind(f"one of {list(known)}", known.__getitem__)


FLAG = Kind("true or false", TypeAdapter(StrictBool).validate_python)
TEXT = Kind("text", TypeAdapter(StrictStr).validate_python)
TEXTS = Kind("a list of str", TypeAdapter(tuple[StrictStr, ...]).validate_python)
COUNT = Kind("a whole number from 1", TypeAdapter(Annotated[StrictInt, Field(ge=1)]).validate_python)
NATURAL = Kind("a whole number from 0", TypeAdapter(Annotated[StrictInt, Field(ge=0)]).validate_python)
COUNTS = Kind("a list of int", TypeAdapter(tuple[StrictInt, ...]).validate_python)
LAYERS = Kind("a list of int", lambda value: tuple(sorted(COUNTS.read(value))))
NUMBER = Kind("a number", float)  # YAML reads 1e-4 as text

# The released code takes the sizes of a video model from its own table, whatever stands in `video_dit_config`.
PRESETS = {"wan2_1_t2v": SIZES["1.3B"]}
MODES = {"min/max": "min_max", "z-score": "z_score"}
PROCESSES = 4  # of the published launchers; no field says it
# class of the dataset, canvas -> the recipe that says what the file does not (of LIBERO's four one, they say the same)
NEAREST = {
    ("RobotVideoDataset", "horizontal"): "libero_spatial",
    ("RobotVideoDataset", "robotwin"): "robotwin",
    ("HDF5RobotVideoDataset", "robotwin"): "real_robot",
}
LIBERO = ("libero_spatial", "libero_object", "libero_goal", "libero_10")

TRAIN = "data.train"
META = f"{TRAIN}.shape_meta"
PROCESSOR = f"{TRAIN}.processor"
TRANSFORMS = (f"{PROCESSOR}.train_transforms", f"{PROCESSOR}.val_transforms")
MASK = f"{PROCESSOR}.delta_action_dim_mask.default"
ADAPTER = "model.wam_adapter"
EXPERT = "model.state_fusion_action_expert_config"
LOSS = "model.loss"
WEIGHTING = f"{LOSS}.action_temporal_weighting"
CODE = "lightwam.datasets.lerobot"

# field, what it holds, the value of our run that it sets
SETS: tuple[tuple[str, Kind, str], ...] = (
    (f"{TRAIN}.concat_multi_camera", TEXT, "data.canvas"),
    (f"{TRAIN}.val_set_proportion", NUMBER, "data.held_out"),
    (f"{META}.action.0.shape", COUNT, "data.action_dim"),
    (f"{META}.state.0.shape", COUNT, "data.proprio_dim"),
    (f"{PROCESSOR}.norm_default_mode", one_of(MODES), "normalization.action"),
    (f"{PROCESSOR}.norm_default_mode", one_of(MODES), "normalization.proprio"),
    ("model.video_backbone_type", one_of(PRESETS), "policy.size"),
    ("model.tokenizer_max_len", COUNT, "policy.text.length"),
    ("model.video_latent_spatial_downsample_factor", COUNT, "policy.video_pool"),
    ("model.video_scheduler.train_shift", NUMBER, "policy.video_shift.train"),
    ("model.video_scheduler.infer_shift", NUMBER, "policy.video_shift.sample"),
    (f"{LOSS}.lambda_video", NUMBER, "policy.video_weight"),
    (f"{LOSS}.lambda_action", NUMBER, "policy.action_weight"),
    (f"{ADAPTER}.lora_rank", COUNT, "policy.tuning.rank"),
    (f"{ADAPTER}.lora_alpha", NUMBER, "policy.tuning.alpha"),
    (f"{ADAPTER}.adapter_layer_indices", LAYERS, "policy.adapters.layers"),
    (f"{ADAPTER}.adapter_dim", COUNT, "policy.adapters.dim"),
    (f"{ADAPTER}.adapter_scale", NUMBER, "policy.adapters.gamma"),
    (f"{EXPERT}.token_pooling_num_queries", COUNT, "policy.expert.queries"),
    (f"{EXPERT}.token_pooling_num_heads", COUNT, "policy.expert.heads"),
    (f"{EXPERT}.per_layer_dim", COUNT, "policy.expert.level_dim"),
    (f"{EXPERT}.trunk_dim", COUNT, "policy.expert.trunk_dim"),
    (f"{EXPERT}.num_trunk_blocks", COUNT, "policy.expert.trunk_blocks"),
    (f"{EXPERT}.step_pos_dim", COUNT, "policy.expert.step_dim"),
    ("mixed_precision", one_of({"bf16": "bfloat16", "no": "float32"}), "policy.time_precision"),
    ("mixed_precision", one_of({"bf16": "bf16", "no": "fp32"}), "train.precision"),
    ("gradient_accumulation_steps", COUNT, "train.accumulation"),
    ("learning_rate", NUMBER, "train.learning_rate"),
    ("weight_decay", NUMBER, "train.weight_decay"),
    ("seed", NATURAL, "train.seed"),
)
# Fields that must have this value: the only one that a Light-WAM of ours can be, and not the released code's default.
MUST: dict[str, Any] = {
    "model._target_": "lightwam.runtime.create_lightwam",
    f"{ADAPTER}.use_wam_adapter": True,
    f"{ADAPTER}.remove_original_action_expert": True,
    f"{ADAPTER}.use_backbone_lora": True,
    f"{ADAPTER}.lora_target_modules": list(LORA_LAYERS),
    f"{EXPERT}.token_pooling_type": "learned_query",
    f"{EXPERT}.feature_sources": ["adapted"],
    "model.video_dit_config.seperated_timestep": True,
    "model.video_dit_config.fuse_vae_embedding_in_latents": True,
    "model.video_dit_config.video_attention_mask_mode": "first_frame_causal",
    f"{META}.action.0.key": "default",
    f"{META}.state.0.key": "default",
    f"{PROCESSOR}._target_": f"{CODE}.processors.lightwam_processor.LightWAMProcessor",
    f"{PROCESSOR}.action_state_merger._target_": f"{CODE}.transforms.action_state_merger.ConcatLeftAlign",
    **{f"{steps}.0._target_": f"{CODE}.transforms.image.ToTensor" for steps in TRANSFORMS},
    **{f"{steps}.1._target_": "torchvision.transforms.Resize" for steps in TRANSFORMS},
    f"{TRAIN}.is_training_set": True,
    "lr_scheduler_type": "cosine",
}
# Fields that older files lack; the released code's default is this value, and the only one we can be.
MAY: dict[str, Any] = {
    "model.apply_video_latent_downsample_to_action_branch": False,
    f"{ADAPTER}.freeze_backbone": True,
    f"{ADAPTER}.lora_dropout": 0.0,
    f"{EXPERT}.token_pooling_merge_dim": None,
    f"{EXPERT}.layer_feature_sources": None,
    "model.video_dit_config.has_image_input": False,
    "model.video_dit_config.require_clip_embedding": False,
    "model.video_dit_config.require_vae_embedding": False,
    "model.video_dit_config.action_conditioned": False,
    "model.video_scheduler.num_train_timesteps": 1000,
    f"{LOSS}.use_first_frame_residual_video_target": False,
    f"{TRAIN}.global_sample_stride": 1,
    f"{TRAIN}.camera_key": None,
    f"{TRAIN}.skip_padding_as_possible": False,
    f"{TRAIN}.override_instruction": None,
    f"{PROCESSOR}.action_state_transforms": None,
    f"{PROCESSOR}.use_stepwise_action_norm": False,
    f"{PROCESSOR}.norm_exception_mode": None,
    f"{PROCESSOR}.drop_high_level_prob": 1.0,
    f"{PROCESSOR}.use_zh_instruction": False,
    f"{PROCESSOR}.tokenizer": None,
}
# What the released code takes for other fields that older files lack.
DEFAULTS: dict[str, Any] = {
    f"{TRAIN}.val_set_proportion": 0.05,
    "model.video_latent_spatial_downsample_factor": 1,
    "model.video_scheduler.train_shift": 5.0,
    "model.video_scheduler.infer_shift": 5.0,
    f"{LOSS}.lambda_video": 1.0,
    f"{WEIGHTING}.num_prefix_steps": None,
    f"{WEIGHTING}.prefix_weight": 1.0,
    f"{WEIGHTING}.tail_weight": 1.0,
    "max_steps": None,
    "warmup_steps": None,
    "warmup_ratio": 0.05,
}
# Fields that repeat what others say, and what that is in the run that those describe.
REPEATS: dict[str, Callable[[Any], Any]] = {
    f"{META}.action.0.shape": lambda run: len(run.actions),
    f"{META}.action.0.raw_shape": lambda run: run.data.action_dim,
    f"{META}.state.0.raw_shape": lambda run: run.data.proprio_dim,
    f"{TRAIN}.video_size": lambda run: list(canvas_size(run.data)),
    f"{TRAIN}.context_len": lambda run: run.policy.text.length,
    f"{PROCESSOR}.num_obs_steps": lambda run: run.data.horizon + 1,
    f"{PROCESSOR}.num_output_cameras": lambda run: len(run.data.views),
    f"{PROCESSOR}.action_output_dim": lambda run: run.data.action_dim,
    f"{PROCESSOR}.proprio_output_dim": lambda run: run.data.proprio_dim,
    MASK: lambda run: [kind == "delta" for kind in run.actions.kinds],
    **{f"{steps}.1.size": lambda run: [run.data.view_height, run.data.view_width] for steps in TRANSFORMS},
    "model.proprio_dim": lambda run: run.data.proprio_dim,
    "model.action_dit_config.action_dim": lambda run: run.data.action_dim,
    f"{ADAPTER}.lora_layer_indices": lambda run: list(range(run.policy.size.layers)),
}
# Fields that change nothing about a policy, by the section they stand in, and all below them.
_UNIMPORTANT = {
    # where things lie, what is logged and saved, how data are loaded; the launcher drops clipping (spec 4)
    "": "output_dir resume overwrite num_workers log_every save_every eval_every eval_num_inference_steps precompute_* "
    "timing_breakdown train_visualization parameter_report benchmark wandb hydra data.val max_grad_norm num_epochs",
    f"{TRAIN}.": "pretrained_norm_stats latent_cache_dir use_latent_cache video_only video_backend max_padding_retry "
    "text_embedding_cache_dir text_embedding_model_id",
    f"{META}.images.*.": "raw_shape",  # never enforced
    # action_scheduler: of noise on actions, of which a Light-WAM has none
    "model.": "model_id video_backbone_name tokenizer_model_id redirect_common_files load_text_encoder "
    "action_dit_pretrained_path skip_dit_load_from_pretrain mot_checkpoint_mixed_attn action_scheduler",
    # sizes come from PRESETS; actions in the video model are off
    "model.video_dit_config.": "patch_size in_dim hidden_dim ffn_dim freq_dim text_dim out_dim num_heads attn_head_dim "
    "num_layers eps use_gradient_checkpointing action_dim action_group_causal_mask_mode",
    # the action transformer that a Light-WAM does not have
    "model.action_dit_config.": "hidden_dim ffn_dim num_heads attn_head_dim num_layers text_dim freq_dim eps "
    "use_gradient_checkpointing",
    f"{EXPERT}.": "token_pooling_merge_num_slots",  # of a merge that is off
}
UNIMPORTANT = tuple(section + name for section, names in _UNIMPORTANT.items() for name in names.split())


def read_config(path: Path, recipe: Callable[[str], Any]) -> Any:
    """The run that a released `config.yaml` describes; its name is `released_` and the nearest recipe's.

    recipe: name -> Run. Raises BadInput naming a field that is unknown, missing, of the wrong type, beyond what a
    Light-WAM of ours can be, or contradicts another one.
    """
    file = _Fields(str(path), MAY | DEFAULTS | _leaves(_load(path)))
    for name, value in (MUST | MAY).items():
        file.agree(name, value)
    near = _nearest(file, recipe)
    changes = {ours: file.get(name, kind) for name, kind, ours in SETS}
    changes |= {"recipe": f"released_{near.recipe}", "normalization.statistics": "published_windows"}
    changes |= _views(file) | _window(file, near.data.hz) | _training(file, near.train.steps)
    run = replaced(near, changes)
    run = replaced(run, {"policy.step_weights": _step_weights(file, run.data.horizon)})
    file.leaves.setdefault(MASK, [False] * run.data.action_dim)
    for name, expected in REPEATS.items():
        file.agree(name, expected(run))
    for name in file.below(f"{PROCESSOR}.shape_meta"):
        file.agree(name, file.leaves.get(META + name.removeprefix(f"{PROCESSOR}.shape_meta")))
    file.expect_nothing_left()
    return run


def _nearest(file: _Fields, recipe: Callable[[str], Any]) -> Any:
    """The recipe that says what the file does not; LIBERO's suite is read off the folders of its datasets."""
    dataset = file.get(f"{TRAIN}._target_", TEXT).rpartition(".")[2]
    canvas = file.get(f"{TRAIN}.concat_multi_camera", TEXT)
    folders = file.get(f"{TRAIN}.dataset_dirs", TEXTS)
    if (dataset, canvas) not in NEAREST:
        found = f"{canvas!r} of a {dataset}"
        raise file.wrong(f"{TRAIN}.concat_multi_camera", found, f"one of {list(NEAREST)}")
    near = recipe(NEAREST[dataset, canvas])
    if near.suite not in LIBERO:
        return near
    named = [suite for suite in LIBERO if any(re.search(rf"{suite}(?![0-9a-z])", f) for f in folders)]
    suite = named[0] if len(named) == 1 else "libero"  # on several, or not said on which: measured on all
    return replace(near, recipe=suite, suite=suite)


def _views(file: _Fields) -> dict[str, Any]:
    start = f"{META}.images."
    images = sorted({int(name.removeprefix(start).partition(".")[0]) for name in file.below(start[:-1])})
    shapes = {file.get(f"{start}{i}.shape", COUNTS) for i in images}
    if len(shapes) != 1:
        raise file.wrong(f"{META}.images", f"shapes {sorted(shapes)}", "one shape for all cameras")
    _, height, width = shapes.pop()
    views = tuple(file.get(f"{start}{i}.key", TEXT) for i in images)
    return {"data.views": views, "data.view_height": height, "data.view_width": width}


def _window(file: _Fields, hz: float) -> dict[str, Any]:
    steps = file.get(f"{TRAIN}.num_frames", COUNT) - 1
    ratio = file.get(f"{TRAIN}.action_video_freq_ratio", COUNT)
    times = tuple(ratio * i / hz for i in range(steps // ratio + 1))
    return {"data.frame_times": times, "data.chunk_seconds": steps / hz}


def _step_weights(file: _Fields, horizon: int) -> StepWeights:
    steps = file.nullable(f"{WEIGHTING}.num_prefix_steps", COUNT)
    prefix, tail = (file.get(f"{WEIGHTING}.{name}_weight", NUMBER) for name in ("prefix", "tail"))
    if not file.get(f"{WEIGHTING}.enabled", FLAG):
        return StepWeights(prefix=horizon)
    if steps is None:
        expected = "a number where the weighting is enabled"
        raise file.wrong(f"{WEIGHTING}.num_prefix_steps", "null", expected)
    return StepWeights(steps, prefix, tail)


def _training(file: _Fields, recipes_steps: int) -> dict[str, Any]:
    # Without max_steps the released code counts from its dataset, which is not here; a checkpoint has its own step.
    steps = file.nullable("max_steps", COUNT) or recipes_steps
    share = int(steps * file.get("warmup_ratio", NUMBER))
    given = file.nullable("warmup_steps", NATURAL)
    warmup = min(share if given is None else given, steps - 1)
    return {
        "train.steps": steps,
        "train.warmup_steps": warmup,
        "train.warmup_start": 1 / max(warmup, 1),
        "train.batch_size": file.get("batch_size", COUNT)
        * file.get("gradient_accumulation_steps", COUNT)
        * PROCESSES,
    }


class _Fields:
    """The fields of a file by dotted path; remembers which were read."""

    def __init__(self, source: str, leaves: dict[str, Any]) -> None:
        self.source, self.leaves = source, leaves
        self.read: set[str] = set()

    def get(self, path: str, kind: Kind) -> Any:
        """A field as `kind` reads it. BadInput where it is missing or of another kind."""
        value = self._leaf(path)
        try:
            return kind.read(value)
        except (ValueError, TypeError, KeyError):
            raise self.wrong(path, repr(value), kind.expected) from None

    def nullable(self, path: str, kind: Kind) -> Any:
        """`get`, or None where the field is null."""
        return None if self._leaf(path) is None else self.get(path, kind)

    def agree(self, path: str, value: Any) -> None:
        """BadInput unless the field is `value`."""
        found = self._leaf(path)
        if found != value or isinstance(found, bool) != isinstance(value, bool):
            raise self.wrong(path, repr(found), repr(value))

    def below(self, section: str) -> list[str]:
        """The fields of a section."""
        return [path for path in self.leaves if path.startswith(f"{section}.")]

    def expect_nothing_left(self) -> None:
        """BadInput where a field is in no table."""
        left = [
            path
            for path in self.leaves
            if path not in self.read
            and not any(fnmatchcase(path, name) or fnmatchcase(path, f"{name}.*") for name in UNIMPORTANT)
        ]
        if left:
            raise BadInput(
                f"{self.source}: unknown field {left[0]} = {self.leaves[left[0]]!r}"
                f"{f' (and {len(left) - 1} more)' if left[1:] else ''}; it may change what the policy is. Convert with "
                "--recipe if you know that it does not"
            )

    def wrong(self, path: str, found: str, expected: str) -> BadInput:
        """The error for a value."""
        return BadInput(
            f"{self.source}: {path} is {found}; expected {expected} (what a Light-WAM of this version can be, or what "
            "the other fields say). Use the config.yaml of the checkpoint's own run folder"
        )

    def _leaf(self, path: str) -> Any:
        self.read.add(path)
        if path not in self.leaves:
            raise BadInput(
                f"{self.source}: {path} is missing; expected the resolved config.yaml of a released Light-WAM run"
            )
        return self.leaves[path]


def _load(path: Path) -> dict[str, Any]:
    if not path.is_file():
        raise BadInput(f"{path}: no such file; expected the config.yaml that lies in the run's folder")
    try:
        found = yaml.safe_load(path.read_text("utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise BadInput(f"{path}: not a YAML file ({str(error).splitlines()[0]}); copy it again") from error
    if not isinstance(found, dict):
        raise BadInput(f"{path}: expected the fields of a run, got {type(found).__name__}; copy it again")
    return found


def _leaves(tree: Any, path: str = "") -> dict[str, Any]:
    """Values by dotted path; entries of a list of mappings by number; names of the code's former package renewed."""
    if isinstance(tree, dict) and tree:
        below = {f"{path}.{name}".lstrip("."): value for name, value in tree.items()}
    elif isinstance(tree, list) and any(isinstance(entry, dict) for entry in tree):
        below = {f"{path}.{number}": entry for number, entry in enumerate(tree)}
    else:
        return {path: _renamed(tree) if path.endswith("._target_") else tree}
    return {leaf: value for name, entry in below.items() for leaf, value in _leaves(entry, name).items()}


def _renamed(target: Any) -> Any:
    """`fastwam.` was the package before it was `lightwam.`."""
    if not isinstance(target, str) or not target.startswith("fastwam."):
        return target
    return target.replace("fastwam", "lightwam").replace("FastWAM", "LightWAM")
