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
from wamkit.nn.weights import Envelope, expect_structure, load_strict, numbers
from wamkit.policies.light_wam.policy import LightWAM, LightWAMConfig, LoRATuning
from wamkit.wan.checkpoint import size_of

NOT_IN_FILE = (r"codec\..*",)
SECTIONS = ("mot", "state_fusion_action_expert", "proprio_encoder")
VIDEO_ONLY = "a video model alone is read by wan/checkpoint.py"

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
ENVELOPE = Envelope(
    model="Light-WAM",
    sections=SECTIONS,
    names=NAMES,
    others={
        frozenset({"mot", "proprio_encoder"}): "it is a Fast-WAM checkpoint: `wamkit convert fast-wam`",
        frozenset({"dit"}): VIDEO_ONLY,
        frozenset({"dit", *SECTIONS[1:]}): VIDEO_ONLY,
    },
)


@dataclass(frozen=True)
class Structure:
    """What a released file says about its policy: config (codec, text and recipe values as given) and dimensions."""

    config: LightWAMConfig
    proprio_dim: int
    action_dim: int


def read_official(path: str | Path) -> dict[str, Any]:
    """The checkpoint dict of a released file (tensors memory-mapped). Raises BadInput where it is something else."""
    return ENVELOPE.read(Path(path))


def load_official(policy: LightWAM, path: str | Path) -> int:
    """Fill `policy` with a released checkpoint and return its training step; the codec stays as it is.

    Raises BadInput where the file is missing, broken or of another structure, saying which part differs.
    """
    official = read_official(path)
    found = structure(official, policy.config, str(path))
    expected = Structure(policy.config, policy.data.proprio_dim, policy.data.action_dim)
    expect_structure(asdict(expected), asdict(found), str(path))
    load_strict(policy, from_official(official, str(path)), source=str(path), fresh=NOT_IN_FILE)
    return int(official["step"])


def from_official(official: Mapping[str, Any], source: str = "checkpoint") -> dict[str, Tensor]:
    """The checkpoint's tensors under our names, not copied. Raises BadInput for a name of neither."""
    return ENVELOPE.ours(official, source)


def to_official(policy: LightWAM, step: int) -> dict[str, Any]:
    """The checkpoint dict of a policy, as the released code reads it; tensors are not copied or cast."""
    tensors = {name: x for name, x in policy.state_dict().items() if not name.startswith("codec.")}
    dtype = str(policy.proprio_encoder.weight.dtype)
    return ENVELOPE.official(tensors) | {"step": step, "torch_dtype": dtype}


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
        return _structure(shapes, recipe, recipe.tuning, source)
    except (KeyError, IndexError) as error:
        raise BadInput(f"{source}: incomplete Light-WAM checkpoint: it lacks {error}") from error


def _structure(
    shapes: Mapping[str, tuple[int, ...]], recipe: LightWAMConfig, lora: LoRATuning, source: str
) -> Structure:
    adapted = numbers(shapes, "dit.adapters.")
    rank = shapes["dit.blocks.0.self_attn.q.lora_down.weight"][0]
    config = replace(
        recipe,
        size=size_of(shapes, recipe.size, source),
        tuning=replace(lora, rank=rank, alpha=lora.alpha / lora.rank * rank),
        adapters=replace(
            recipe.adapters,
            layers=adapted,
            dim=shapes[f"dit.adapters.{min(adapted, default=0)}.down.weight"][0],
        ),
        expert=replace(
            recipe.expert,
            queries=shapes["expert.poolers.0.queries"][0],
            level_dim=shapes["expert.compressors.0.fc2.weight"][0],
            trunk_dim=shapes["expert.fused_proj.weight"][0],
            trunk_blocks=len(numbers(shapes, "expert.trunk.")),
            step_dim=shapes["expert.step_proj.0.weight"][0],
        ),
    )
    return Structure(config, shapes["proprio_encoder.weight"][1], shapes["expert.output.2.weight"][0])
