"""Frozen image features for acting, of views of one size: the numbers of features.py, sooner.

Computed once: where tokens are, and the embedding of patches, which takes bytes as they are. Of DINOv3's blocks,
queries, keys and values are stacked, and scales of what a block adds are part of its weights; the last block, which no
token passes through, is not kept. Weights are copied, none are shared.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float, UInt8
from torch import Tensor

from wamkit.policies.lawam.features import (
    EPS,
    BlockFeatures,
    DINOv3Features,
    Features,
    layers_of,
    places,
)
from wamkit.policies.lawam.fused_vit import FusedViTBlock, rotation
from wamkit.policies.lawam.patches import bytes_in_cells, on_bytes
from wamkit.wan.codec import BLOCK

Fused = Callable[[UInt8[Tensor, "n H W 3"]], Float[Tensor, "n s d"]]


def fused(features: Features, height: int, width: int, precision: torch.dtype | None) -> Fused:
    """Of views of this size. precision: of the copied weights; None: theirs."""
    return FUSED[type(features)](features, height, width, precision)


class FusedBlockFeatures:
    """`BlockFeatures`; its tables are exact in any precision."""

    def __init__(
        self, features: BlockFeatures, height: int, width: int, precision: torch.dtype | None
    ) -> None:
        self.merge, side = features.merge, BLOCK * features.merge
        made = on_bytes(features.basis.unflatten(1, (3, BLOCK, BLOCK)))
        self.weight, self.bias = (part.float() for part in made)
        self.places = places(height // side, width // side).flatten(0, 1).to(self.weight)

    def __call__(self, images: UInt8[Tensor, "n H W 3"]) -> Float[Tensor, "n s d"]:
        """Tokens of the images, row by row."""
        blocks = bytes_in_cells(images, BLOCK, self.merge).to(self.weight.dtype)
        kept = torch.addmm(self.bias, blocks.flatten(0, 1), self.weight)
        where = self.places.expand(len(images), -1, -1)
        tokens = torch.cat([kept.view(*where.shape[:2], -1), where], dim=-1)
        return F.layer_norm(tokens, tokens.shape[-1:], eps=EPS)


class FusedDINOv3:
    """`DINOv3Features`; tokens are float32 in any precision."""

    def __init__(
        self, features: DINOv3Features, height: int, width: int, precision: torch.dtype | None
    ) -> None:
        model, scale = features.model, features.pixel_scale
        embedding = model.embeddings.patch_embeddings
        self.patch, dtype = embedding.kernel_size[0], precision or embedding.weight.dtype
        where = embedding.weight.device, torch.float64
        mean, std = (scale.get_buffer(name).to(*where) for name in ("mean", "std"))
        weight, bias = on_bytes(embedding.weight, mean, std)
        self.weight, self.bias = weight.to(dtype), (embedding.bias.double() + bias).to(dtype)
        first = model.embeddings.cls_token, model.embeddings.register_tokens
        self.first = torch.cat(first, dim=1).to(dtype)
        sight = torch.empty(1, 3, height, width, device=weight.device)
        cosines, sines = model.rope_embeddings(sight)
        turns = rotation(torch.atan2(sines, cosines))
        kept = turns.new_ones(self.first.shape[1], turns.shape[1])  # class and register tokens are nowhere
        self.rotation = torch.cat([kept, turns])[:, None]
        self.blocks = [_block(layer, dtype) for layer in layers_of(model)[:-1]]

    def __call__(self, images: UInt8[Tensor, "n H W 3"]) -> Float[Tensor, "n s d"]:
        """Tokens of the images, row by row."""
        cells = bytes_in_cells(images, self.patch, 1).to(self.weight.dtype)
        seen = torch.addmm(self.bias, cells.flatten(0, 1), self.weight).unflatten(0, cells.shape[:2])
        x = torch.cat([self.first.expand(len(images), -1, -1), seen], dim=1)
        for block in self.blocks:
            block.run(x, self.rotation)
        tokens = x[:, self.first.shape[1] :].float()
        return F.layer_norm(tokens, tokens.shape[-1:], eps=EPS)


def _block(layer: Any, dtype: torch.dtype) -> FusedViTBlock:
    """A block of DINOv3 with copies of all its weights."""
    attention = layer.attention
    projections = [attention.q_proj, attention.k_proj, attention.v_proj]
    norm1, norm2 = (copy.deepcopy(norm).to(dtype) for norm in (layer.norm1, layer.norm2))
    out, mlp = copy.deepcopy(attention.o_proj), copy.deepcopy(layer.mlp)
    for linear, scale in ((out, layer.layer_scale1.lambda1), (mlp.down_proj, layer.layer_scale2.lambda1)):
        for parameter in linear.parameters():  # weight [out in], bias [out]
            wide = scale.double().reshape(-1, *[1] * (parameter.ndim - 1))
            parameter.data = (parameter.double() * wide).to(parameter.dtype)
    return FusedViTBlock(
        attention.num_heads,
        [projection.weight.to(dtype) for projection in projections],
        [_bias(projection).to(dtype) for projection in projections],
        (norm1, norm2),
        out.to(dtype),
        mlp.to(dtype),
    )


def _bias(linear: Any) -> Tensor:
    """Zeros where it has none."""
    return linear.weight.new_zeros(len(linear.weight)) if linear.bias is None else linear.bias


FUSED: Mapping[type, Callable[..., Fused]] = {
    BlockFeatures: FusedBlockFeatures,
    DINOv3Features: FusedDINOv3,
}
