"""Frozen image features: the space in which LaWM predicts and in which all of its losses live (LaWAM spec 1.1).

One view, uint8 [n h w 3], becomes a grid of tokens, row by row, each normalised over its numbers without learned
scale. Features of DINOv3 need its released weights; those of the block transform need nothing.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal, Protocol

import torch
import torch.nn.functional as F
from jaxtyping import Float, UInt8
from torch import Tensor, nn
from wamkit_client.types import BadInput

from wamkit.bounds import AT_LEAST_1, Bound, check
from wamkit.io.hub import local
from wamkit.io.records import read_record
from wamkit.io.tensors import digest, load_strict, read_tensors
from wamkit.nn.tables import Tables
from wamkit.policies.lawam.patches import grid
from wamkit.wan.codec import BLOCK, COLOUR_SPREAD, MEAN_SPREAD, SLOPE, block_basis, lowest, spread

EPS = 1e-5
IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


class Features(Protocol):
    """What a features config makes: an nn.Module without trained weights."""

    @property
    def fingerprint(self) -> str:
        """Names the features and their weights."""

    def __call__(self, images: UInt8[Tensor, "n _ _ 3"]) -> Float[Tensor, "n s d"]:
        """Tokens of the images, row by row."""

    def to(self, device: torch.device) -> Any:
        """Move (nn.Module's)."""


@dataclass(frozen=True)
class DINOv3Size:
    """Structure of a DINOv3 ViT; defaults: ViT-B/16.

    width, ffn: of a token, and inside the feed-forward part. blocks, heads: layers, and attention heads of each. patch:
    pixels of a patch's side. registers: tokens beside the patches.
    """

    width: int = 768
    blocks: int = 12
    heads: int = 12
    ffn: int = 3072
    patch: int = 16
    registers: int = 4

    def __post_init__(self) -> None:
        check("policy.features.size", self, {"blocks": Bound("at least 2", lambda blocks: blocks >= 2)})


# field of DINOv3Size -> of transformers' config
SIZES = {
    "width": "hidden_size",
    "blocks": "num_hidden_layers",
    "heads": "num_attention_heads",
    "ffn": "intermediate_size",
    "patch": "patch_size",
    "registers": "num_register_tokens",
}


@dataclass(frozen=True)
class DINOv3Config:
    """DINOv3 through transformers; path: a folder in its layout (`config.json` and safetensors)."""

    path: str = "weights/dinov3-vitb16"
    size: DINOv3Size = DINOv3Size()
    kind: Literal["dinov3"] = "dinov3"

    @property
    def dim(self) -> int:
        """Numbers per token."""
        return self.size.width

    def grid(self, height: int, width: int) -> tuple[int, int]:
        """Rows and columns of tokens of a view. BadInput where patches do not cover it exactly."""
        return grid(height, width, self.size.patch, "the features' patch")

    def build(self) -> DINOv3Features:
        """With random weights; without any under `torch.device("meta")`."""
        from transformers import DINOv3ViTConfig

        size = {theirs: vars(self.size)[ours] for ours, theirs in SIZES.items()}
        return DINOv3Features(DINOv3ViTConfig(**size, attn_implementation="sdpa"))

    def load(self) -> DINOv3Features:
        """With the folder's weights, on the CPU. BadInput where it is missing, damaged or of another size."""
        folder = local(self.path)
        if not (folder / "config.json").is_file():
            raise BadInput(
                f"{folder}: no DINOv3; expected config.json and its safetensors file. Download them with `hf download "
                f"facebook/dinov3-vitb16-pretrain-lvd1689m --local-dir {folder}`"
            )
        config = _read_config(folder)
        found = DINOv3Size(**{ours: vars(config)[theirs] for ours, theirs in SIZES.items()})
        if found != self.size:
            raise BadInput(
                f"{folder}: expected a DINOv3 of {asdict(self.size)}, got {asdict(found)}; name another folder as "
                "policy.features.path"
            )
        with torch.device("meta"):
            features = DINOv3Features(config)
        features.load(read_tensors(folder), str(folder))
        return features


@dataclass(frozen=True)
class BlockFeaturesConfig:
    """Features that need no download: coefficients of the block transform (wan/codec.py) of each 8x8 block.

    coefficients: how many are kept of the 192, those of low frequency first; 27 are those that the codec keeps.
    merge: a token is a square of merge x merge blocks. A token also says where it is, as those of a ViT do: the expert
        is given features without any other position.
    """

    coefficients: int = 64
    merge: int = 1
    kind: Literal["block"] = "block"

    def __post_init__(self) -> None:
        kept = Bound(f"from 1 to {3 * BLOCK**2}", lambda count: 1 <= count <= 3 * BLOCK**2)
        check("policy.features", self, {"coefficients": kept, "merge": AT_LEAST_1})

    @property
    def dim(self) -> int:
        """Numbers per token."""
        return self.coefficients * self.merge**2 + PLACE

    def grid(self, height: int, width: int) -> tuple[int, int]:
        """Rows and columns of tokens of a view. BadInput where tokens do not cover it exactly."""
        return grid(height, width, BLOCK * self.merge, "the features' patch")

    def build(self) -> BlockFeatures:
        """There are no weights."""
        return BlockFeatures(self.coefficients, self.merge)

    def load(self) -> BlockFeatures:
        """There are no weights."""
        return self.build()


FeaturesConfig = DINOv3Config | BlockFeaturesConfig


class DINOv3Features(nn.Module):
    """DINOv3's residual stream before its last block, without its final norm; class and register tokens dropped.

    All but the last of its blocks run. config: transformers' own.
    """

    def __init__(self, config: Any) -> None:
        from transformers import DINOv3ViTModel

        super().__init__()
        self.model = DINOv3ViTModel(config)
        # its frequencies are in no file: built on the CPU, as Tables are
        with torch.device("cpu"):
            self.model.rope_embeddings = type(self.model.rope_embeddings)(config)
            self.pixel_scale = Tables(mean=_channels(IMAGENET_MEAN), std=_channels(IMAGENET_STD))
        self.requires_grad_(False).eval()  # in training it would move its positions

    @property
    def fingerprint(self) -> str:
        """A digest of all weights."""
        tensors = self.model.state_dict().items()
        return f"dinov3:{digest((canonical(name), tensor) for name, tensor in tensors)}"

    def load(self, tensors: Mapping[str, Tensor], source: str) -> None:
        """Take weights of any version of transformers. Raises BadInput naming a missing or unexpected one."""
        own = {canonical(name): name for name in self.model.state_dict()}
        load_strict(self.model, {own.get(canonical(name), name): x for name, x in tensors.items()}, source)
        self.model.requires_grad_(False)

    @torch.no_grad()
    def forward(self, images: UInt8[Tensor, "n _ _ 3"]) -> Float[Tensor, "n s d"]:
        """See above."""
        scale: Any = self.pixel_scale
        pixels = (images.permute(0, 3, 1, 2) / 255.0 - scale.mean) / scale.std
        hidden = self.model.embeddings(pixels)
        positions = self.model.rope_embeddings(pixels)
        for block in layers_of(self.model)[:-1]:
            hidden = block(hidden, position_embeddings=positions)
        patches = hidden[:, 1 + self.model.config.num_register_tokens :]
        return F.layer_norm(patches, patches.shape[-1:], eps=EPS)


def layers_of(model: Any) -> list[nn.Module]:
    """The blocks of a DINOv3 of any version of transformers, in order."""
    from transformers.models.dinov3_vit.modeling_dinov3_vit import DINOv3ViTLayer

    return [module for module in model.modules() if isinstance(module, DINOv3ViTLayer)]


class BlockFeatures(Tables):
    """Coefficients of 8x8 blocks, and where their token is; see BlockFeaturesConfig."""

    basis: Tensor

    def __init__(self, coefficients: int, merge: int) -> None:
        with torch.device("cpu"):
            super().__init__(basis=block_scaled(coefficients))
        self.merge = merge

    @property
    def fingerprint(self) -> str:
        """Names the transform and what is kept of it."""
        return f"blocks:{len(self.basis)}:{self.merge}:{PLACE}:{COLOUR_SPREAD}:{MEAN_SPREAD}:{SLOPE}"

    @torch.no_grad()
    def forward(self, images: UInt8[Tensor, "n _ _ 3"]) -> Float[Tensor, "n s d"]:
        """See above."""
        pixels = images / 127.5 - 1
        blocks = pixels.unflatten(2, (-1, BLOCK)).unflatten(1, (-1, BLOCK)).permute(0, 1, 3, 5, 2, 4)
        kept = blocks.flatten(3) @ self.basis.T  # n rows columns coefficients
        cells = kept.unflatten(2, (-1, self.merge)).unflatten(1, (-1, self.merge)).transpose(2, 3).flatten(3)
        where = places(*cells.shape[1:3]).to(cells).expand(len(cells), -1, -1, -1)
        tokens = torch.cat([cells, where], dim=-1).flatten(1, 2)
        return F.layer_norm(tokens, tokens.shape[-1:], eps=EPS)


PLACE = 12
"""Numbers that say where a token of block features is: sine and cosine of a quarter turn, a half and a whole one, over
the rows and over the columns."""


def places(rows: int, columns: int) -> Float[Tensor, "{rows} {columns} 12"]:
    """Where each token is."""
    turns = torch.tensor([1.0, 2.0, 4.0]) * math.pi / 2
    down, across = (((torch.arange(n) + 0.5) / n * 2 - 1)[:, None] * turns for n in (rows, columns))
    codes = [torch.cat([axis.sin(), axis.cos()], dim=1) for axis in (down, across)]
    return torch.cat([codes[0][:, None].expand(-1, columns, -1), codes[1].expand(rows, -1, -1)], dim=-1)


def block_scaled(coefficients: int) -> Float[Tensor, "coefficients n"]:
    """Rows of the block transform of 8x8 pixels in [-1, 1], flattened as (colour, row, column): low frequencies first,
    each scaled to about unit variance."""
    kept = lowest(coefficients, 1)
    scale = torch.tensor([spread(colour, row + column) for _, colour, row, column in kept])
    return block_basis(kept, 1) / scale[:, None]


def canonical(name: str) -> str:
    """The name of a tensor of DINOv3 in every version of transformers, some of which insert `model.`."""
    return name.removeprefix("model.")


def _channels(numbers: tuple[float, ...]) -> Float[Tensor, "3 1 1"]:
    return torch.tensor(numbers)[:, None, None]


def _read_config(folder: Path) -> Any:
    """transformers' config of a folder. BadInput where it is not DINOv3's."""
    from transformers import DINOv3ViTConfig

    kind = read_record(folder / "config.json", dict, "download it again").get("model_type")
    if kind != DINOv3ViTConfig.model_type:
        raise BadInput(f"{folder / 'config.json'}: model_type is {kind!r}, expected 'dinov3_vit'")
    return DINOv3ViTConfig.from_pretrained(folder, attn_implementation="sdpa")
