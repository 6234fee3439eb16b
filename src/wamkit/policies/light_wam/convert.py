"""The released Light-WAM checkpoint <-> this policy, strictly both ways (Light-WAM spec 4.1).

The file is one torch dict {mot, state_fusion_action_expert, proprio_encoder, step, torch_dtype}. It holds the
frozen video model too, but not the VAE: the codec's tensors are the only ones a policy may have beyond the file.
What the file does not say (LoRA alpha, adapter gamma, numbers of heads) comes from a recipe.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from wamkit_client.types import BadInput

from wamkit.io.renaming import Renaming
from wamkit.io.tensors import Envelope, numbers
from wamkit.policies.light_wam.policy import LightWAMConfig, LoRATuning
from wamkit.policies.released import Released, Structure
from wamkit.wan.checkpoint import size_of

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


def read_official(path: str | Path) -> dict[str, Any]:
    """The checkpoint dict of a released file (tensors memory-mapped). Raises BadInput where it is something else."""
    return ENVELOPE.read(Path(path))


def structure(
    official: Mapping[str, Any], recipe: LightWAMConfig, source: str = "checkpoint"
) -> Structure[LightWAMConfig]:
    """Read a policy's structure off the tensors of a checkpoint.

    recipe gives what no tensor shows: LoRA alpha per rank, adapter gamma, head width of the video model, heads of
    the pooling, codec, text and training values. Raises BadInput where tensors lack that every checkpoint has.
    """
    if recipe.tuning.kind != "lora":
        raise BadInput(
            f'{source}: released checkpoints hold LoRA; the recipe has tuning "{recipe.tuning.kind}"'
        )
    shapes = {name: tuple(tensor.shape) for name, tensor in ENVELOPE.ours(official, source).items()}
    try:
        return _structure(shapes, recipe, recipe.tuning, source)
    except (KeyError, IndexError) as error:
        raise BadInput(f"{source}: incomplete Light-WAM checkpoint: it lacks {error}") from error


def _structure(
    shapes: Mapping[str, tuple[int, ...]], recipe: LightWAMConfig, lora: LoRATuning, source: str
) -> Structure[LightWAMConfig]:
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


FORMAT = Released(ENVELOPE, read_official, structure)
