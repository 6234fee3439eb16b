"""Released Wan video transformers -> WanDiT, strictly.

WanDiT's own names are the original ones, so an original file needs no renaming; diffusers' names are renamed. Trainers
put the names of what held the network before all of them (DiffSynth: `pipe.dit.`, others: `model.`,
`model.diffusion_model.`): these WRAPPERS are cut. What the file cannot hold (adapters, a skip, LoRA) keeps its initial
values and is named in FRESH; anything else missing, unknown or of another shape is one explained error.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from torch import Tensor
from wamkit_client.types import BadInput

from wamkit.io.hub import local
from wamkit.io.renaming import Renaming
from wamkit.io.tensors import load_strict, numbers, read_tensors
from wamkit.wan.dit import WanDiT, WanSize

FRESH = (r"adapters\..*", r"skip\..*", r".*\.lora_(down|up)\.weight")
WRAPPERS = ("pipe", "dit", "model", "diffusion_model")

# diffusers' WanTransformer3DModel <-> original
NAMES = Renaming(
    ("patch_embedding.{w}", "patch_embedding.{w}"),
    ("condition_embedder.text_embedder.linear_1.{w}", "text_embedding.0.{w}"),
    ("condition_embedder.text_embedder.linear_2.{w}", "text_embedding.2.{w}"),
    ("condition_embedder.time_embedder.linear_1.{w}", "time_embedding.0.{w}"),
    ("condition_embedder.time_embedder.linear_2.{w}", "time_embedding.2.{w}"),
    ("condition_embedder.time_proj.{w}", "time_projection.1.{w}"),
    ("blocks.{i}.scale_shift_table", "blocks.{i}.modulation"),
    ("blocks.{i}.attn1.to_out.0.{w}", "blocks.{i}.self_attn.o.{w}"),
    ("blocks.{i}.attn1.to_{p}.{w}", "blocks.{i}.self_attn.{p}.{w}"),
    ("blocks.{i}.attn1.norm_{p}.weight", "blocks.{i}.self_attn.norm_{p}.weight"),
    ("blocks.{i}.norm2.{w}", "blocks.{i}.norm3.{w}"),
    ("blocks.{i}.attn2.to_out.0.{w}", "blocks.{i}.cross_attn.o.{w}"),
    ("blocks.{i}.attn2.to_{p}.{w}", "blocks.{i}.cross_attn.{p}.{w}"),
    ("blocks.{i}.attn2.norm_{p}.weight", "blocks.{i}.cross_attn.norm_{p}.weight"),
    ("blocks.{i}.ffn.net.0.proj.{w}", "blocks.{i}.ffn.0.{w}"),
    ("blocks.{i}.ffn.net.2.{w}", "blocks.{i}.ffn.2.{w}"),
    ("scale_shift_table", "head.modulation"),
    ("proj_out.{w}", "head.head.{w}"),
)


def load_wan(dit: WanDiT, path: str | Path) -> None:
    """Fill `dit` with a released video transformer; its adapters, skip and LoRA (FRESH) stay as they are.

    path: a weight file, or a folder with one (also in shards, also diffusers' `transformer/` inside).
    Raises BadInput when it is missing, truncated, or of another model or size.
    """
    path = local(path)
    inside = path / "transformer"
    file = inside if inside.is_dir() else path
    if not file.exists():
        raise BadInput(
            f"{path}: no Wan transformer; download it with `hf download REPOSITORY --local-dir FOLDER` and name "
            "FOLDER (Light-WAM: Wan-AI/Wan2.1-T2V-1.3B, Fast-WAM: Wan-AI/Wan2.2-TI2V-5B)"
        )
    load_strict(dit, original_names(read_tensors(file), str(file)), source=str(file), fresh=FRESH)


def original_names(tensors: Mapping[str, Tensor], source: str) -> dict[str, Tensor]:
    """The same tensors under the original names, whichever of the known names they came with."""
    bare = _unwrapped(tensors)
    if "scale_shift_table" not in bare:
        return bare
    try:
        return {NAMES.forward(name): tensor for name, tensor in bare.items()}
    except KeyError as error:
        raise BadInput(
            f"{source}: tensor {error} is no part of a text-to-video WanTransformer3DModel; "
            "image-conditioned, VACE and Animate models are other networks"
        ) from error


def _unwrapped(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Without the WRAPPERS that stand before every name."""
    outer = {name.partition(".")[0] for name in tensors}
    if len(outer) == 1 and outer <= set(WRAPPERS):
        return _unwrapped({name.partition(".")[2]: tensor for name, tensor in tensors.items()})
    return dict(tensors)


def diffusers_names(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """A WanDiT's released part (without FRESH) under diffusers' names."""
    return {NAMES.backward(name): tensor for name, tensor in tensors.items()}


def size_of(shapes: Mapping[str, tuple[int, ...]], recipe: WanSize) -> WanSize:
    """The size of the video model `dit` in a checkpoint; the recipe gives the channels of a head.

    Raises BadInput where the attention width is no multiple of them, KeyError for a missing tensor.
    """
    inner = shapes["dit.blocks.0.self_attn.q.weight"][0]
    if inner % recipe.head_dim:
        raise BadInput(
            f"attention width {inner} is no multiple of the recipe's {recipe.head_dim} channels per head; "
            "choose the recipe it was trained with"
        )
    return replace(
        recipe,
        width=shapes["dit.patch_embedding.weight"][0],
        channels=shapes["dit.patch_embedding.weight"][1],
        ffn=shapes["dit.blocks.0.ffn.0.weight"][0],
        heads=inner // recipe.head_dim,
        layers=len(numbers(shapes, "dit.blocks.")),
        text_dim=shapes["dit.text_embedding.0.weight"][1],
        time_dim=shapes["dit.time_embedding.0.weight"][1],
    )
