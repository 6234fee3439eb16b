"""The vision-language prior without computing anything twice: the hidden states of `Prior`, sooner (LaWAM spec 8).

Computed once, since it depends on weights, the size of views and the length of prompts alone: position codes and
rotations, and the embedding of patches, which takes bytes as they are, and both frames of a patch, which are equal, as
one. Queries, keys and values are made by one product, and rotated as fused_vit.py says.
Nothing here waits for the device, and padding behind the prompts' ends is only computed where it is in the inputs.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Complex, Float, Int, UInt8
from torch import Tensor

from wamkit.nn.attention import join_heads
from wamkit.policies.lawam.fused_vit import FusedViTBlock, in_pairs, rotation, turned
from wamkit.policies.lawam.patches import bytes_in_cells, on_bytes
from wamkit.policies.lawam.prior import Prior, TextLayers, VisionTower
from wamkit.tree import Tree

QUERIES = ("latent_at", "action_at")


class FusedPrior:
    """`Prior.forward`, for weights that do not change any more. length: the most tokens that a prompt has.

    The prior is left as it is: weights that make queries and keys are copied, a seventh of all, and all others are
    shared with it. Nothing here refers to the originals of what was copied.
    """

    @torch.no_grad()
    def __init__(self, prior: Prior, height: int, width: int, length: int) -> None:
        self.visual = FusedVision(prior.visual, height, width)
        self.text = FusedText(prior.text, length)
        self.embed_tokens = prior.text.embed_tokens
        queries = torch.cat([prior.latent_queries, prior.action_queries])
        self.queries = queries.to(self.embed_tokens.weight.dtype)

    @torch.inference_mode()
    def __call__(self, inputs: Tree) -> Float[Tensor, "b l d"]:
        """States of all tokens."""
        images, tokens, image_at = inputs["images"], inputs["tokens"], inputs["image_at"]
        b, length = tokens.shape
        views, *taps = self.visual(images.flatten(0, 1))
        begins = length * torch.arange(b, device=tokens.device)[:, None]  # of each prompt, all in one row
        at = torch.cat([image_at, *(inputs[name] for name in QUERIES)], dim=1) + begins
        put = torch.cat([views.unflatten(0, (b, -1)), self.queries.expand(b, -1, -1)], dim=1)
        x = self.embed_tokens(tokens).flatten(0, 1)
        x.index_copy_(0, at.flatten(), put.flatten(0, 1))
        return self.text(x, b, at[:, : image_at.shape[1]].flatten(), taps)


class FusedVision:
    """`VisionTower.forward`, of views of one size."""

    def __init__(self, tower: VisionTower, height: int, width: int) -> None:
        size, embed = tower.size, tower.patch_embed.proj
        rows, columns = height // size.patch, width // size.patch
        self.patch, self.merge = size.patch, size.merge
        dtype = embed.weight.dtype
        weight, bias = on_bytes(embed.weight.double().sum(dim=2))
        self.weight = weight.to(dtype)
        self.start = (embed.bias.double() + bias + tower.positions(rows, columns)).to(dtype)  # s d
        self.rotation = rotation(tower.angles(rows, columns))[:, None]  # s 1 e/2
        self.blocks = [_vision_block(block) for block in tower.blocks]
        self.taps = dict(zip(size.vision_taps, tower.deepstack_merger_list, strict=True))
        self.merger = tower.merger

    def __call__(self, images: UInt8[Tensor, "n _ _ 3"]) -> list[Float[Tensor, "nm d"]]:
        """Tokens of all images, and after them those of every tap."""
        pixels = bytes_in_cells(images, self.patch, self.merge).to(self.weight.dtype)  # n s p
        x = torch.matmul(pixels, self.weight).add_(self.start)
        taps = []
        for number, block in enumerate(self.blocks):
            block.run(x, self.rotation)
            if number in self.taps:
                taps.append(self.taps[number](x.flatten(0, 1)))
        return [self.merger(x.flatten(0, 1)), *taps]


def _vision_block(block: Any) -> FusedViTBlock:
    attention = block.attn
    weights, biases = attention.qkv.weight.chunk(3), attention.qkv.bias.chunk(3)
    norms = block.norm1, block.norm2
    return FusedViTBlock(attention.num_heads, weights, biases, norms, attention.proj, block.mlp)


class FusedText:
    """`TextLayers.forward`, of prompts of at most `length` tokens."""

    def __init__(self, text: TextLayers, length: int) -> None:
        device = text.embed_tokens.weight.device
        angles = text.rope(torch.arange(length, device=device)[:, None])
        self.rotation = rotation(angles)[:, None]  # l 1 e/2
        # By length of a prompt. Made once: compilers are not asked for parts of complex numbers (infer/compiled.py).
        self._rotations: dict[int, Tensor] = {}
        self.layers = [FusedTextLayer(layer) for layer in text.layers]
        self.norm = rms(text.norm)

    def __call__(
        self,
        x: Float[Tensor, "bl d"],
        b: int,
        image_at: Int[Tensor, " bn"],
        taps: list[Float[Tensor, "bn d"]],
    ) -> Float[Tensor, "b l d"]:
        """x: tokens of b prompts, which is overwritten. taps: added at `image_at` behind the first layers, one each."""
        length = len(x) // b
        if length not in self._rotations:
            self._rotations[length] = self.rotation[:length]
        rotation = self._rotations[length]
        for number, layer in enumerate(self.layers):
            layer.run(x, b, rotation)
            for tap in taps[number : number + 1]:
                x.index_add_(0, image_at, tap)
        return self.norm(x).unflatten(0, (b, -1))


class FusedTextLayer:
    """A causal layer as acting needs it."""

    def __init__(self, layer: Any) -> None:
        attention, mlp = layer.self_attn, layer.mlp
        self.head_dim = attention.head_dim
        weights = [attention.q_proj.weight, attention.k_proj.weight, attention.v_proj.weight]
        self.heads, self.kv_heads, _ = (len(weight) // self.head_dim for weight in weights)
        asking = [in_pairs(w, n) for w, n in zip(weights, (self.heads, self.kv_heads), strict=False)]
        self.weight = torch.cat([*asking, weights[2]])
        norms = (attention.q_norm, self.heads), (attention.k_norm, self.kv_heads)
        scales = [in_pairs(norm.weight, 1).expand(heads, -1) for norm, heads in norms]
        self.scale = torch.cat(scales).float()  # n e; in float32, as rotation has to be
        self.eps = attention.q_norm.variance_epsilon
        self.norm1, self.norm2 = rms(layer.input_layernorm), rms(layer.post_attention_layernorm)
        self.out, self.gate, self.up, self.down = attention.o_proj, mlp.gate_proj, mlp.up_proj, mlp.down_proj

    def run(self, x: Float[Tensor, "bl d"], b: int, rotation: Complex[Tensor, "l 1 half"]) -> None:
        """Changes x."""
        asking = self.heads + self.kv_heads
        qkv = F.linear(self.norm1(x), self.weight).view(b, -1, asking + self.kv_heads, self.head_dim)
        qk, v = qkv.tensor_split([asking], dim=2)
        qk = turned(F.rms_norm(qk, (self.head_dim,), eps=self.eps) * self.scale, rotation).to(v.dtype)
        q, k = qk.tensor_split([self.heads], dim=2)
        q, k, v = (part.transpose(1, 2) for part in (q, k, v))
        seen = F.scaled_dot_product_attention(q, k, v, is_causal=True, enable_gqa=True)
        x += self.out(join_heads(seen).flatten(0, 1))
        u = self.norm2(x)
        x += self.down(F.silu(self.gate(u)).mul_(self.up(u)))


def rms(norm: Any) -> Callable[[Tensor], Tensor]:
    """transformers' root-mean-square norm as one operation."""
    return partial(
        F.rms_norm, normalized_shape=norm.weight.shape, weight=norm.weight, eps=norm.variance_epsilon
    )
