"""The released Light-WAM checkpoint <-> this policy, strictly both ways (Light-WAM spec 4.1).

The file is one torch dict {mot, state_fusion_action_expert, proprio_encoder, step, torch_dtype}. It holds the
frozen video model too, but not the VAE. What the file does not say (LoRA alpha, adapter gamma, numbers of heads) comes
from a recipe.
"""

from __future__ import annotations

from dataclasses import replace

from wamkit_client.types import BadInput

from wamkit.io.renaming import Renaming, under
from wamkit.io.tensors import Envelope, numbers
from wamkit.policies.light_wam.official_config import read_config
from wamkit.policies.light_wam.policy import LightWAMConfig
from wamkit.policies.released import Frozen, Released, Shapes
from wamkit.policies.wan_encoder import expect_alone, expect_channels, expect_released_options
from wamkit.wan.checkpoint import size_of

SECTIONS = ("mot", "state_fusion_action_expert", "proprio_encoder")
VIDEO_ONLY = "a video model alone is read by wan/checkpoint.py"

# released (section, then name) <-> ours
NAMES = Renaming(
    *under(
        ("mot.mixtures.video.", "dit."),
        ("blocks.{i}.{attn}.lora_{p}.{side}_proj.weight", "blocks.{i}.{attn}.{p}.lora_{side}.weight"),
        ("blocks.{i}.ffn_lora_in.{side}_proj.weight", "blocks.{i}.ffn.0.lora_{side}.weight"),
        ("blocks.{i}.ffn_lora_out.{side}_proj.weight", "blocks.{i}.ffn.2.lora_{side}.weight"),
        ("wam_adapters.{i}.norm.{w}", "adapters.{i}.norm.{w}"),
        ("wam_adapters.{i}.{side}_proj.{w}", "adapters.{i}.{side}.{w}"),
        ("{rest}", "{rest}"),
    ),
    *under(
        ("state_fusion_action_expert.", "expert."),
        ("layer_poolers.{i}.adapted.query_tokens", "poolers.{i}.queries"),
        ("layer_poolers.{i}.adapted.query_merge_logits", "poolers.{i}.merge_logits"),
        ("layer_poolers.{i}.adapted.attn.{rest}", "poolers.{i}.attention.{rest}"),
        ("layer_poolers.{i}.adapted.{rest}", "poolers.{i}.{rest}"),
        ("layer_compressors.{i}.{rest}", "compressors.{i}.{rest}"),
        ("step_pos_proj.{rest}", "step_proj.{rest}"),
        ("{rest}", "{rest}"),
    ),
    ("proprio_encoder.{w}", "proprio_encoder.{w}"),
)
ENVELOPE = Envelope(
    model="Light-WAM",
    sections=SECTIONS,
    names=NAMES,
    others={
        frozenset({"policy_backend"}): "it is a LaWAM checkpoint: `wamkit convert lawam`",
        frozenset({"mot", "proprio_encoder"}): "it is a Fast-WAM checkpoint: `wamkit convert fast-wam`",
        frozenset({"dit"}): VIDEO_ONLY,
        frozenset({"dit", *SECTIONS[1:]}): VIDEO_ONLY,
    },
)


def read_structure(shapes: Shapes, recipe: LightWAMConfig) -> LightWAMConfig:
    """The config of a checkpoint with tensors of these shapes.

    recipe gives what no tensor shows: LoRA alpha per rank, adapter gamma, head width of the video model, heads of
    the pooling, codec, text and training values. Raises KeyError and IndexError where tensors are missing.
    """
    lora = recipe.tuning
    if lora.kind != "lora":
        raise BadInput(f'released checkpoints hold LoRA; the recipe has tuning "{lora.kind}"')
    adapted = numbers(shapes, "dit.adapters.")
    rank = shapes["dit.blocks.0.self_attn.q.lora_down.weight"][0]
    return replace(
        recipe,
        size=size_of(shapes, recipe.size),
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


def expect_published_options(config: LightWAMConfig) -> None:
    """BadInput where video model or expert have an option that released code does not know."""
    expect_released_options(config)
    expect_alone("policy.expert.reads_proprio", config.expert.reads_proprio, False)


FORMAT = Released(
    ENVELOPE,
    ENVELOPE.read,
    read_structure,
    dims={"action_dim": ("expert.output.2.weight", 0), "proprio_dim": ("proprio_encoder.weight", 1)},
    fits=expect_channels,
    expressible=expect_published_options,
    frozen=Frozen("video model", "policy.tuning.base", like="expert.output.2.weight"),
    read_config=read_config,
)
