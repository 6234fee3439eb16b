"""The resolved `config.yaml` of a released Light-WAM run -> a Run of ours (Light-WAM spec 1-4.1).

Every field is read below or stands in MUST, MAY or UNIMPORTANT; any other is refused by name, since nobody can tell
what it means for the policy. What the file does not say (control rate, names of the action
dimensions, replan steps, number of processes, where frozen weights lie) is the recipe's that is nearest to it.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any, Literal, TypeVar

import yaml
from wamkit_client.types import BadInput

from wamkit.config import Normalization, Run
from wamkit.data.canvas import canvas_size
from wamkit.data.normalize import Mode
from wamkit.flow import Shift
from wamkit.policies.light_wam.policy import LORA_LAYERS, LightWAMConfig, LoRATuning, StepWeights
from wamkit.recipes import recipe
from wamkit.train.loop import TrainConfig
from wamkit.types import DataSpec
from wamkit.wan.dit import SIZES, Adapters

T = TypeVar("T")

# The released code takes the sizes of a video model from its own table, whatever stands in `video_dit_config`.
PRESETS = {"wan2_1_t2v": SIZES["1.3B"]}
WARMUP_RATIO = 0.05  # where the file lacks it
HELD_OUT = 0.05  # likewise
PROCESSES = 4  # of the published launchers; no field says it
MODES: dict[str, Mode] = {"min/max": "min_max", "z-score": "z_score"}
# class of the dataset, canvas -> the recipe that says what the file does not (of LIBERO's four one, they say the same)
NEAREST = {
    ("RobotVideoDataset", "horizontal"): "libero_spatial",
    ("RobotVideoDataset", "robotwin"): "robotwin",
    ("HDF5RobotVideoDataset", "robotwin"): "real_robot",
}
LIBERO = ("libero_spatial", "libero_object", "libero_goal", "libero_10")

TRAIN = "data.train"
PROCESSOR = f"{TRAIN}.processor"
ADAPTER = "model.wam_adapter"
EXPERT = "model.state_fusion_action_expert_config"

# Fields that must have this value: the only one that a Light-WAM of ours can be, and not the released code's default.
MUST: dict[str, Any] = {
    "model._target_": "lightwam.runtime.create_lightwam",
    f"{ADAPTER}.use_wam_adapter": True,
    f"{ADAPTER}.remove_original_action_expert": True,
    f"{ADAPTER}.use_backbone_lora": True,
    f"{EXPERT}.token_pooling_type": "learned_query",
    f"{EXPERT}.feature_sources": ["adapted"],
    "model.video_dit_config.seperated_timestep": True,
    "model.video_dit_config.fuse_vae_embedding_in_latents": True,
    "model.video_dit_config.video_attention_mask_mode": "first_frame_causal",
    f"{PROCESSOR}._target_": "lightwam.datasets.lerobot.processors.lightwam_processor.LightWAMProcessor",
    f"{PROCESSOR}.action_state_merger._target_": (
        "lightwam.datasets.lerobot.transforms.action_state_merger.ConcatLeftAlign"
    ),
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
    "model.loss.use_first_frame_residual_video_target": False,
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
# Fields that change nothing about a policy, by the section they stand in, and all below them.
_UNIMPORTANT = {
    # where things lie, what is logged and saved, how data are loaded
    "": (
        *("output_dir", "resume", "overwrite", "num_workers", "log_every", "save_every", "eval_every"),
        *("eval_num_inference_steps", "precompute_*", "timing_breakdown", "train_visualization"),
        *("parameter_report", "benchmark", "wandb", "hydra", "data.val"),
        # the launcher drops clipping (spec 4); epochs: where max_steps is given
        *("max_grad_norm", "num_epochs"),
    ),
    "data.train.": (
        *("pretrained_norm_stats", "latent_cache_dir", "use_latent_cache", "video_only", "video_backend"),
        *("text_embedding_cache_dir", "text_embedding_model_id", "max_padding_retry"),
        "shape_meta.images.*.raw_shape",  # never enforced
    ),
    "model.": (
        *(
            "model_id",
            "video_backbone_name",
            "tokenizer_model_id",
            "redirect_common_files",
            "load_text_encoder",
        ),
        *("action_dit_pretrained_path", "skip_dit_load_from_pretrain", "mot_checkpoint_mixed_attn"),
        # noise on actions, of which a Light-WAM has none
        "action_scheduler",
    ),
    # sizes come from PRESETS; actions in the video model are off
    "model.video_dit_config.": (
        *("patch_size", "in_dim", "hidden_dim", "ffn_dim", "freq_dim", "text_dim", "out_dim", "num_heads"),
        *("attn_head_dim", "num_layers", "eps", "use_gradient_checkpointing"),
        *("action_dim", "action_group_causal_mask_mode"),
    ),
    # the action transformer that a Light-WAM does not have
    "model.action_dit_config.": (
        *("hidden_dim", "ffn_dim", "num_heads", "attn_head_dim", "num_layers", "text_dim", "freq_dim", "eps"),
        "use_gradient_checkpointing",
    ),
    f"{EXPERT}.": ("token_pooling_merge_num_slots",),  # of a merge that is off
}
UNIMPORTANT = tuple(section + name for section, names in _UNIMPORTANT.items() for name in names)


def read_config(path: Path) -> Run:
    """The run that a released `config.yaml` describes; its name is `released_` and the nearest recipe's.

    Raises BadInput naming a field that is unknown, missing, of the wrong kind, beyond what a Light-WAM of ours can be,
    or contradicts another one.
    """
    file = _Fields(_leaves(_load(path)), str(path))
    file.expect()
    near = _nearest(file)
    data = _data(file, near)
    mode = file.one_of(f"{PROCESSOR}.norm_default_mode", MODES)
    run = replace(
        near,
        recipe=f"released_{near.recipe}",
        policy=_policy(file, near.policy, data),
        data=data,
        normalization=Normalization(mode, mode, statistics="published_windows"),
        train=_train(file, near.train),
    )
    file.expect_nothing_left()
    return run


def _nearest(file: _Fields) -> Run:
    """The recipe that says what the file does not; LIBERO's suite is read off the folders of its datasets."""
    dataset = file.text(f"{TRAIN}._target_").rpartition(".")[2]
    canvas = file.text(f"{TRAIN}.concat_multi_camera")
    folders = file.sequence(f"{TRAIN}.dataset_dirs", str)
    if (dataset, canvas) not in NEAREST:
        raise file.wrong(
            f"{TRAIN}.concat_multi_camera", f"{canvas!r} of a {dataset}", f"one of {list(NEAREST)}"
        )
    near = recipe(NEAREST[dataset, canvas])
    if near.suite not in LIBERO:
        return near
    named = [suite for suite in LIBERO if any(re.search(rf"{suite}(?![0-9a-z])", f) for f in folders)]
    suite = named[0] if len(named) == 1 else "libero"  # on several, or not said on which: measured on all
    return replace(near, recipe=suite, suite=suite)


def _data(file: _Fields, near: Run) -> DataSpec:
    meta, hz = f"{TRAIN}.shape_meta", near.data.hz
    pictures = range(file.count(f"{meta}.images"))
    shapes = {file.sequence(f"{meta}.images.{i}.shape", int) for i in pictures}
    if len(shapes) != 1:
        raise file.wrong(f"{meta}.images", f"shapes {sorted(shapes)}", "one shape for all cameras")
    _, height, width = shapes.pop()
    frames, ratio = file.whole(f"{TRAIN}.num_frames"), file.whole(f"{TRAIN}.action_video_freq_ratio")
    dims = {field: file.whole(f"{meta}.{field}.0.shape") for field in ("action", "state")}
    for field, dim in dims.items():
        file.agree(f"{meta}.{field}.0.raw_shape", dim)
        file.agree(f"{meta}.{field}.0.key", "default")
    file.agree(f"{meta}.action.0.shape", len(near.actions))
    data = replace(
        near.data,
        views=tuple(file.text(f"{meta}.images.{i}.key") for i in pictures),
        canvas=file.text(f"{TRAIN}.concat_multi_camera"),
        view_height=height,
        view_width=width,
        frame_times=tuple(ratio * i / hz for i in range((frames - 1) // ratio + 1)),
        chunk_seconds=(frames - 1) / hz,
        action_dim=dims["action"],
        held_out=file.number(f"{TRAIN}.val_set_proportion", absent=HELD_OUT),
        proprio_dim=dims["state"],
    )
    file.same(f"{PROCESSOR}.shape_meta", meta)
    file.agree(f"{TRAIN}.video_size", list(canvas_size(data)))
    file.agree(f"{PROCESSOR}.num_obs_steps", frames)
    file.agree(f"{PROCESSOR}.num_output_cameras", len(data.views))
    file.agree(f"{PROCESSOR}.action_output_dim", data.action_dim)
    file.agree(f"{PROCESSOR}.proprio_output_dim", data.proprio_dim)
    file.agree("model.proprio_dim", data.proprio_dim)
    file.agree("model.action_dit_config.action_dim", data.action_dim)
    deltas = [kind == "delta" for kind in near.actions.kinds]
    file.agree(f"{PROCESSOR}.delta_action_dim_mask.default", deltas, absent=[False] * data.action_dim)
    for transforms in ("train_transforms", "val_transforms"):
        steps = f"{PROCESSOR}.{transforms}"
        file.agree(f"{steps}.0._target_", "lightwam.datasets.lerobot.transforms.image.ToTensor")
        file.agree(f"{steps}.1._target_", "torchvision.transforms.Resize")
        file.agree(f"{steps}.1.size", [height, width])
    return data


def _policy(file: _Fields, near: Any, data: DataSpec) -> LightWAMConfig:
    size = file.one_of("model.video_backbone_type", PRESETS)
    file.agree(f"{ADAPTER}.lora_layer_indices", list(range(size.layers)))
    file.agree(f"{ADAPTER}.lora_target_modules", list(LORA_LAYERS))
    length = file.whole("model.tokenizer_max_len")
    file.agree(f"{TRAIN}.context_len", length)
    return replace(
        near,
        text=replace(near.text, length=length),
        size=size,
        tuning=LoRATuning(
            base=near.tuning.base,
            rank=file.whole(f"{ADAPTER}.lora_rank"),
            alpha=file.number(f"{ADAPTER}.lora_alpha"),
        ),
        adapters=Adapters(
            layers=tuple(sorted(file.sequence(f"{ADAPTER}.adapter_layer_indices", int))),
            dim=file.whole(f"{ADAPTER}.adapter_dim"),
            gamma=file.number(f"{ADAPTER}.adapter_scale"),
        ),
        expert=replace(
            near.expert,
            queries=file.whole(f"{EXPERT}.token_pooling_num_queries"),
            heads=file.whole(f"{EXPERT}.token_pooling_num_heads"),
            level_dim=file.whole(f"{EXPERT}.per_layer_dim"),
            trunk_dim=file.whole(f"{EXPERT}.trunk_dim"),
            trunk_blocks=file.whole(f"{EXPERT}.num_trunk_blocks"),
            step_dim=file.whole(f"{EXPERT}.step_pos_dim"),
        ),
        video_pool=file.whole("model.video_latent_spatial_downsample_factor", absent=1),
        video_weight=file.number("model.loss.lambda_video", absent=1.0),
        action_weight=file.number("model.loss.lambda_action"),
        step_weights=_step_weights(file, data.horizon),
        video_shift=Shift(
            train=file.number("model.video_scheduler.train_shift", absent=5.0),
            sample=file.number("model.video_scheduler.infer_shift", absent=5.0),
        ),
        time_precision=file.one_of("mixed_precision", {"bf16": "bfloat16", "no": "float32"}),
    )


def _step_weights(file: _Fields, horizon: int) -> StepWeights:
    at = "model.loss.action_temporal_weighting"
    prefix, tail = (file.number(f"{at}.{name}_weight", absent=1.0) for name in ("prefix", "tail"))
    steps = file.optional_whole(f"{at}.num_prefix_steps")
    if not file.flag(f"{at}.enabled"):
        return StepWeights(prefix=horizon)
    if steps == 0:
        raise file.wrong(f"{at}.num_prefix_steps", "null", "a number where the weighting is enabled")
    return StepWeights(steps, prefix, tail)


def _train(file: _Fields, near: TrainConfig) -> TrainConfig:
    parts = file.whole("gradient_accumulation_steps")
    # Without it the released code counts from its dataset, which is not here; a checkpoint has its own step.
    steps = file.optional_whole("max_steps") or near.steps
    warmup = _warmup(file, steps)
    precision: Literal["bf16", "fp32"] = file.one_of("mixed_precision", {"bf16": "bf16", "no": "fp32"})
    return replace(
        near,
        steps=steps,
        warmup_steps=warmup,
        warmup_start=1 / max(warmup, 1),
        batch_size=file.whole("batch_size") * parts * PROCESSES,
        accumulation=parts,
        learning_rate=file.number("learning_rate"),
        weight_decay=file.number("weight_decay"),
        seed=file.whole("seed", least=0),
        precision=precision,
    )


def _warmup(file: _Fields, steps: int) -> int:
    """Steps of warm-up, at most all but one: a number, or where the launcher left it null a share of all steps."""
    share = file.number("warmup_ratio", absent=WARMUP_RATIO)
    given = file.optional_whole("warmup_steps", least=0, absent=int(steps * share))
    return min(given, steps - 1)


class _Fields:
    """The fields of a file by dotted path; remembers which were read."""

    def __init__(self, leaves: Mapping[str, Any], source: str) -> None:
        self.leaves, self.source = leaves, source
        self.read: set[str] = set()

    def expect(self) -> None:
        """The fields of MUST and MAY have the values they must."""
        for path, value in MUST.items():
            self.agree(path, value)
        for path, value in MAY.items():
            self.agree(path, value, absent=value)

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

    def agree(self, path: str, value: Any, absent: Any = ...) -> None:
        """BadInput unless the field, or `absent` where the file lacks it, is `value`."""
        found = self._get(path, absent)
        if found != value or isinstance(found, bool) != isinstance(value, bool):
            raise self.wrong(path, repr(found), repr(value))

    def same(self, copy: str, section: str) -> None:
        """BadInput unless every field of `copy` is as in `section`."""
        for path in [path for path in self.leaves if path.startswith(f"{copy}.")]:
            self.agree(path, self.leaves.get(section + path.removeprefix(copy)))

    def text(self, path: str) -> str:
        """A string."""
        return self._of(path, str, "a text")

    def flag(self, path: str) -> bool:
        """true or false."""
        return self._of(path, bool, "true or false")

    def sequence(self, path: str, kind: type[T]) -> tuple[T, ...]:
        """A list of values of one kind."""
        found = self._of(path, list, "a list")
        if not all(type(entry) is kind for entry in found):
            raise self.wrong(path, repr(found), f"a list of {kind.__name__}")
        return tuple(found)

    def whole(self, path: str, absent: Any = ..., least: int = 1) -> int:
        """A whole number."""
        found = self._get(path, absent)
        if type(found) is not int or found < least:
            raise self.wrong(path, repr(found), f"a whole number from {least}")
        return found

    def optional_whole(self, path: str, least: int = 1, absent: int = 0) -> int:
        """A whole number; `absent` where the field is null or the file lacks it."""
        return absent if self._get(path, None) is None else self.whole(path, least=least)

    def number(self, path: str, absent: Any = ...) -> float:
        """A number; YAML takes 1e-4 for a text."""
        found = self._get(path, absent)
        try:
            return float(found)
        except (TypeError, ValueError):
            raise self.wrong(path, repr(found), "a number") from None

    def one_of(self, path: str, known: Mapping[str, T]) -> T:
        """What a value means."""
        found = self._get(path)
        if not isinstance(found, str) or found not in known:
            raise self.wrong(path, repr(found), f"one of {list(known)}")
        return known[found]

    def count(self, path: str) -> int:
        """Entries of a list of mappings."""
        return len(
            {leaf.split(".")[path.count(".") + 1] for leaf in self.leaves if leaf.startswith(f"{path}.")}
        )

    def wrong(self, path: str, found: str, expected: str) -> BadInput:
        """The error for a value."""
        return BadInput(
            f"{self.source}: {path} is {found}; expected {expected} (what a Light-WAM of this version can be, or what "
            "the other fields say). Use the config.yaml of the checkpoint's own run folder"
        )

    def _of(self, path: str, kind: type[T], what: str) -> T:
        found = self._get(path)
        if not isinstance(found, kind):
            raise self.wrong(path, repr(found), what)
        return found

    def _get(self, path: str, absent: Any = ...) -> Any:
        self.read.add(path)
        if path in self.leaves:
            return self.leaves[path]
        if absent is ...:
            raise BadInput(
                f"{self.source}: {path} is missing; expected the resolved config.yaml of a released Light-WAM run"
            )
        return absent


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
