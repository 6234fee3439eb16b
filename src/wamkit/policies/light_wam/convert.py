"""The released Light-WAM checkpoint <-> this policy, strictly both ways (Light-WAM spec 4.1).

The file is one torch dict {mot, state_fusion_action_expert, proprio_encoder, step, torch_dtype}. It holds the
frozen video model too, but not the VAE: the codec's tensors are the only ones a policy may have beyond the file.
What the file does not say (LoRA alpha, adapter gamma, numbers of heads) comes from a recipe.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from torch import Tensor
from wamkit_client.types import BadInput

from wamkit.nn.renaming import Renaming
from wamkit.nn.weights import load_strict, read_torch
from wamkit.policies.light_wam.policy import LightWAM, LightWAMConfig, LoRATuning

NOT_IN_FILE = (r"codec\..*",)
SECTIONS = ("mot", "state_fusion_action_expert", "proprio_encoder")
EXTRAS = ("step", "torch_dtype")

# released (section, then name) <-> ours
NAMES = Renaming(
    (
        "mot.mixtures.video.blocks.{i}.{attn}.lora_{p}.{side}_proj.weight",
        "dit.blocks.{i}.{attn}.{p}.lora_{side}.weight",
    ),
    (
        "mot.mixtures.video.blocks.{i}.ffn_lora_in.{side}_proj.weight",
        "dit.blocks.{i}.ffn.0.lora_{side}.weight",
    ),
    (
        "mot.mixtures.video.blocks.{i}.ffn_lora_out.{side}_proj.weight",
        "dit.blocks.{i}.ffn.2.lora_{side}.weight",
    ),
    ("mot.mixtures.video.wam_adapters.{i}.norm.{w}", "dit.adapters.{i}.norm.{w}"),
    ("mot.mixtures.video.wam_adapters.{i}.{side}_proj.{w}", "dit.adapters.{i}.{side}.{w}"),
    ("mot.mixtures.video.{rest}", "dit.{rest}"),
    ("state_fusion_action_expert.layer_poolers.{i}.adapted.query_tokens", "expert.poolers.{i}.queries"),
    (
        "state_fusion_action_expert.layer_poolers.{i}.adapted.query_merge_logits",
        "expert.poolers.{i}.merge_logits",
    ),
    (
        "state_fusion_action_expert.layer_poolers.{i}.adapted.attn.{rest}",
        "expert.poolers.{i}.attention.{rest}",
    ),
    ("state_fusion_action_expert.layer_poolers.{i}.adapted.{rest}", "expert.poolers.{i}.{rest}"),
    ("state_fusion_action_expert.layer_compressors.{i}.{rest}", "expert.compressors.{i}.{rest}"),
    ("state_fusion_action_expert.step_pos_proj.{rest}", "expert.step_proj.{rest}"),
    ("state_fusion_action_expert.{rest}", "expert.{rest}"),
    ("proprio_encoder.{w}", "proprio_encoder.{w}"),
)


@dataclass(frozen=True)
class Structure:
    """What a released file says about its policy: config (codec, text and recipe values as given) and dimensions."""

    config: LightWAMConfig
    proprio_dim: int
    action_dim: int


def read_official(path: str | Path) -> dict[str, Any]:
    """The checkpoint dict of a released file (tensors memory-mapped). Raises BadInput where it is something else."""
    payload = read_torch(Path(path))
    if not isinstance(payload, dict) or not set(SECTIONS) <= set(payload) <= {*SECTIONS, *EXTRAS}:
        found = sorted(payload) if isinstance(payload, dict) else type(payload).__name__
        raise BadInput(
            f"{path}: not a Light-WAM checkpoint; expected {', '.join(SECTIONS)} (and {', '.join(EXTRAS)}), "
            f"got {str(found)[:200]}; a video model alone is read by wan/checkpoint.py"
        )
    return payload


def load_official(policy: LightWAM, path: str | Path) -> int:
    """Fill `policy` with a released checkpoint and return its training step; the codec stays as it is.

    Raises BadInput where the file is missing, broken or of another structure, saying which part differs.
    """
    official = read_official(path)
    found = structure(official, policy.config, str(path))
    expected = Structure(policy.config, policy.data.proprio_dim, policy.data.action_dim)
    if found != expected:
        raise BadInput(
            f"{path}: holds another structure than the policy: {'; '.join(_differences(expected, found))}. "
            "Build the policy from `structure(...)` of this file or choose its recipe"
        )
    load_strict(policy, from_official(official, str(path)), source=str(path), fresh=NOT_IN_FILE)
    return int(official["step"])


def from_official(official: Mapping[str, Any], source: str = "checkpoint") -> dict[str, Tensor]:
    """The checkpoint's tensors under our names, not copied. Raises BadInput for a name of neither."""
    try:
        return {
            NAMES.forward(f"{section}.{name}"): tensor
            for section in SECTIONS
            for name, tensor in official[section].items()
        }
    except KeyError as error:
        raise BadInput(
            f"{source}: {error} is no part of a Light-WAM checkpoint; is it another model's?"
        ) from error


def to_official(policy: LightWAM, step: int) -> dict[str, Any]:
    """The checkpoint dict of a policy, as the released code reads it; tensors are not copied or cast."""
    official: dict[str, Any] = {section: {} for section in SECTIONS}
    for name, tensor in policy.state_dict().items():
        if not name.startswith("codec."):
            section, _, key = NAMES.backward(name).partition(".")
            official[section][key] = tensor
    return official | {"step": step, "torch_dtype": str(policy.proprio_encoder.weight.dtype)}


def structure(official: Mapping[str, Any], recipe: LightWAMConfig, source: str = "checkpoint") -> Structure:
    """Read a policy's structure off the tensors of a checkpoint.

    recipe gives what no tensor shows: LoRA alpha per rank, adapter gamma, head width of the video model, heads of
    the pooling, codec, text and training values. Raises BadInput where tensors lack that every checkpoint has.
    """
    if recipe.tuning.kind != "lora":
        raise BadInput(
            f'{source}: released checkpoints hold LoRA; the recipe has tuning "{recipe.tuning.kind}"'
        )
    shapes = {name: tuple(tensor.shape) for name, tensor in from_official(official, source).items()}
    try:
        return _structure(shapes, recipe, recipe.tuning)
    except (KeyError, ValueError) as error:
        raise BadInput(f"{source}: incomplete Light-WAM checkpoint: it lacks {error}") from error


def _structure(shapes: Mapping[str, tuple[int, ...]], recipe: LightWAMConfig, lora: LoRATuning) -> Structure:
    width, channels = shapes["dit.patch_embedding.weight"][:2]
    adapted = _numbers(shapes, "dit.adapters.")
    rank = shapes["dit.blocks.0.self_attn.q.lora_down.weight"][0]
    trunk = shapes["expert.fused_proj.weight"][0]
    config = replace(
        recipe,
        size=replace(
            recipe.size,
            width=width,
            channels=channels,
            ffn=shapes["dit.blocks.0.ffn.0.weight"][0],
            heads=shapes["dit.blocks.0.self_attn.q.weight"][0] // recipe.size.head_dim,
            layers=len(_numbers(shapes, "dit.blocks.")),
            text_dim=shapes["dit.text_embedding.0.weight"][1],
            time_dim=shapes["dit.time_embedding.0.weight"][1],
        ),
        tuning=replace(lora, rank=rank, alpha=lora.alpha / lora.rank * rank),
        adapters=replace(
            recipe.adapters, layers=adapted, dim=shapes[f"dit.adapters.{min(adapted)}.down.weight"][0]
        ),
        expert=replace(
            recipe.expert,
            queries=shapes["expert.poolers.0.queries"][0],
            level_dim=shapes["expert.compressors.0.fc2.weight"][0],
            trunk_dim=trunk,
            trunk_blocks=len(_numbers(shapes, "expert.trunk.")),
            step_dim=shapes["expert.step_proj.0.weight"][0],
        ),
    )
    return Structure(config, shapes["proprio_encoder.weight"][1], shapes["expert.output.2.weight"][0])


def _numbers(names: Mapping[str, object], prefix: str) -> tuple[int, ...]:
    """The numbers that follow `prefix`, in order."""
    return tuple(
        sorted({int(name[len(prefix) :].split(".")[0]) for name in names if name.startswith(prefix)})
    )


def _differences(expected: Structure, found: Structure) -> list[str]:
    """Leaf by leaf: `size.layers 30 instead of 24`."""
    ours, theirs = _leaves(asdict(expected)), _leaves(asdict(found))
    return [
        f"{name.removeprefix('config.')} is {theirs[name]} in the file and {ours[name]} in the policy"
        for name in ours
        if theirs[name] != ours[name]
    ]


def _leaves(tree: Mapping[str, Any], path: str = "") -> dict[str, Any]:
    leaves: dict[str, Any] = {}
    for name, value in tree.items():
        leaves |= _leaves(value, f"{path}{name}.") if isinstance(value, dict) else {f"{path}{name}": value}
    return leaves
