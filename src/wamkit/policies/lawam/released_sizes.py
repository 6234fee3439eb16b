"""The structure of released LaWAM files: sizes from the tensors' shapes, by our names; a recipe gives the rest."""

from __future__ import annotations

from dataclasses import replace
from math import isqrt

from wamkit_client.types import BadInput

from wamkit.io.tensors import numbers
from wamkit.policies.lawam.action_expert import ExpertSize
from wamkit.policies.lawam.features import DINOv3Config, DINOv3Size, FeaturesConfig
from wamkit.policies.lawam.latent_action import LatentSize
from wamkit.policies.lawam.policy import LaWAMConfig
from wamkit.policies.lawam.prior import PriorSize
from wamkit.policies.lawam.world import LaWAMWorldConfig
from wamkit.policies.released import Shapes


def world_config(shapes: Shapes, recipe: LaWAMWorldConfig) -> LaWAMWorldConfig:
    """The config of a world model with tensors of these shapes. KeyError and IndexError where tensors are missing.

    recipe gives what no tensor shows: numbers of heads, position codes, losses and augmentation.
    """
    features = _with_dinov3(shapes, recipe.features)
    _expect_features(shapes, features)
    return replace(
        recipe,
        features=features,
        latent=replace(_latent(shapes, recipe.latent), inverse_layers=_depth(shapes, "inverse.layers.")),
        state_dim=shapes["state_head.state.0.weight"][1],
        robot_rows=shapes["state_head.state.0.weight"][0],
    )


def policy_config(shapes: Shapes, recipe: LaWAMConfig) -> LaWAMConfig:
    """The config of a policy with tensors of these shapes, as `world_config`.

    recipe also gives depth of the teacher, which is no part of the policy, prompt, longest chunk and sampling.
    """
    _expect_features(shapes, recipe.features)
    return replace(
        recipe,
        latent=_latent(shapes, recipe.latent),
        prior=_prior(shapes, recipe.prior),
        expert=_expert(shapes, recipe.expert),
        robot_rows=shapes["expert.encoder.first.weight"][0],
    )


def untold_world(config: LaWAMWorldConfig) -> str:
    """A model with other heads or position codes has the same tensors and predicts nonsense."""
    return (
        f"heads of the world model ({config.latent.heads}), {config.latent.positions} position codes; statistics of "
        "states: they are taken as they are, in unit range"
    )


def untold_policy(config: LaWAMConfig) -> str:
    """As `untold_world`."""
    prior = config.prior
    return (
        f"heads of the world model ({config.latent.heads}), of the vision tower ({prior.vision_heads}) and of the "
        f"expert ({config.expert.heads}); {config.latent.positions} position codes; tapped vision blocks "
        f"{', '.join(map(str, prior.vision_taps))}; the prompt"
    )


def _latent(shapes: Shapes, recipe: LatentSize) -> LatentSize:
    return replace(
        recipe,
        width=shapes["world.input.weight"][0],
        ffn=shapes["world.blocks.0.ffn.0.weight"][0],
        world_layers=_depth(shapes, "world.blocks."),
        code=shapes["world.code.weight"][1],
    )


def _prior(shapes: Shapes, recipe: PriorSize) -> PriorSize:
    head = shapes["prior.text.layers.0.self_attn.q_norm.weight"][0]
    patches = shapes["prior.visual.patch_embed.proj.weight"]
    return replace(
        recipe,
        width=shapes["prior.text.norm.weight"][0],
        layers=_depth(shapes, "prior.text.layers."),
        heads=shapes["prior.text.layers.0.self_attn.q_proj.weight"][0] // head,
        kv_heads=shapes["prior.text.layers.0.self_attn.k_proj.weight"][0] // head,
        head_dim=head,
        ffn=shapes["prior.text.layers.0.mlp.gate_proj.weight"][0],
        vocabulary=shapes["prior.text.embed_tokens.weight"][0],
        vision_width=patches[0],
        vision_blocks=_depth(shapes, "prior.visual.blocks."),
        vision_ffn=shapes["prior.visual.blocks.0.mlp.linear_fc1.weight"][0],
        position_side=isqrt(shapes["prior.visual.pos_embed.weight"][0]),
        patch=patches[-1],
        merge=isqrt(shapes["prior.visual.merger.linear_fc1.weight"][1] // patches[0]),
    )


def _expert(shapes: Shapes, recipe: ExpertSize) -> ExpertSize:
    return replace(
        recipe,
        width=shapes["expert.trunk.last.weight"][0],
        ffn=shapes["expert.trunk.layers.0.up.weight"][0],
        layers=_depth(shapes, "expert.trunk.layers."),
        action_dim=shapes["expert.encoder.first.weight"][1],
        time_dim=shapes["expert.time.0.weight"][1],
    )


def _with_dinov3(shapes: Shapes, recipe: FeaturesConfig) -> DINOv3Config:
    """The recipe's DINOv3 with the sizes of the copy in the file."""
    if not isinstance(recipe, DINOv3Config):
        raise BadInput(f"its features are DINOv3's, the recipe's are {recipe.kind}; choose another recipe")
    patches = shapes["features.embeddings.patch_embeddings.weight"]
    size = DINOv3Size(
        width=patches[0],
        blocks=_depth(shapes, "features.layer."),
        heads=recipe.size.heads,
        ffn=shapes["features.layer.0.mlp.up_proj.weight"][0],
        patch=patches[-1],
        registers=shapes["features.embeddings.register_tokens"][1],
    )
    return replace(recipe, size=size)


def _expect_features(shapes: Shapes, features: FeaturesConfig) -> None:
    found = shapes["world.input.weight"][1]
    if found != features.dim:
        raise BadInput(
            f"its world model takes features of {found} numbers per patch, the recipe's have {features.dim}; "
            "choose the recipe it was trained with"
        )


def _depth(shapes: Shapes, prefix: str) -> int:
    found = numbers(shapes, prefix)
    if not found:
        raise KeyError(f"{prefix}0.weight")
    return len(found)
