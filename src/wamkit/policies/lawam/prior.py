"""The vision-language prior: Qwen3-VL cut after its first text layers, with queries of its own (LaWAM spec 2.1).

Its layers are transformers' modules; what is between them stands here, since the released weights were trained with
positions that transformers would not choose: 0, 1, 2 ... on all three axes, image tokens included, which makes the
rotary code of three axes one of one axis. Nothing here waits for the device.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int, UInt8
from torch import Tensor, nn
from wamkit_client.types import BadInput

from wamkit.bounds import AT_LEAST_1, Bound, check
from wamkit.io.hub import local
from wamkit.io.tensors import load_strict, numbers, read_tensors
from wamkit.nn.tables import Tables
from wamkit.policies.lawam.features import block_scaled
from wamkit.policies.lawam.patches import FRAMES, in_cells, patches
from wamkit.policies.lawam.prompt import QUERIES, PromptConfig
from wamkit.tree import Tree
from wamkit.wan.codec import BLOCK

VISION_BASE = 10_000.0
"""Of the vision tower's rotary code."""


@dataclass(frozen=True)
class PriorSize:
    """Structure of a Qwen3-VL; defaults: Qwen3-VL-2B cut to 16 text layers.

    width, ffn: of a text token, and inside the feed-forward part. layers, heads, kv_heads, head_dim: of the text model.
    vocabulary: rows of the token embedding. vision_width, vision_blocks, vision_heads, vision_ffn: of the vision model.
    patch: pixels of a patch's side. merge: patches of a token's side.
    rope_base: of the text's rotary code. vision_taps: vision blocks whose output is added behind the first text
    layers (DeepStack). position_side: rows of the learned grid of position codes.
    """

    width: int = 2048
    layers: int = 16
    heads: int = 16
    kv_heads: int = 8
    head_dim: int = 128
    ffn: int = 6144
    vocabulary: int = 151_936
    rope_base: float = 5e6
    vision_width: int = 1024
    vision_blocks: int = 24
    vision_heads: int = 16
    vision_ffn: int = 4096
    vision_taps: tuple[int, ...] = (5, 11, 17)
    position_side: int = 48
    patch: int = 16
    merge: int = 2

    def __post_init__(self) -> None:
        sizes = ("width", "layers", "heads", "kv_heads", "head_dim", "ffn", "vocabulary", "patch", "merge")
        taps = Bound(
            "numbers of vision blocks, ascending, at most one per text layer",
            lambda taps: (
                list(taps) == sorted(set(taps))
                and set(taps) <= set(range(self.vision_blocks))
                and len(taps) <= self.layers
            ),
        )
        check("policy.prior", self, {**dict.fromkeys(sizes, AT_LEAST_1), "vision_taps": taps})


# field of PriorSize -> of the configs of transformers' Qwen3-VL
TEXT_SIZES = {
    "width": "hidden_size",
    "layers": "num_hidden_layers",
    "heads": "num_attention_heads",
    "kv_heads": "num_key_value_heads",
    "head_dim": "head_dim",
    "ffn": "intermediate_size",
    "vocabulary": "vocab_size",
}
VISION_SIZES = {
    "vision_width": "hidden_size",
    "vision_blocks": "depth",
    "vision_heads": "num_heads",
    "vision_ffn": "intermediate_size",
    "vision_taps": "deepstack_visual_indexes",
    "patch": "patch_size",
    "merge": "spatial_merge_size",
}
TINY = PriorSize(
    width=128,
    layers=4,
    heads=4,
    kv_heads=2,
    head_dim=32,
    ffn=384,
    vocabulary=1024,
    rope_base=1e4,
    vision_width=64,
    vision_blocks=2,
    vision_heads=2,
    vision_ffn=256,
    vision_taps=(0, 1),
    position_side=8,
    patch=8,
)
"""Trained from scratch on the small recipes' views."""


def expect_prompt(prompt: PromptConfig, size: PriorSize) -> None:
    """BadInput where prompts are not made for this network."""
    for name, found, expected in (
        ("pixels", prompt.pixels, size.patch * size.merge),
        ("vocabulary", prompt.vocabulary, size.vocabulary),
    ):
        if found != expected:
            raise BadInput(f"policy.prompt.{name}: expected that of policy.prior, {expected}, got {found}")


class Prior(nn.Module):
    """Images and a prompt -> hidden states; the queries are `latent_queries` and `action_queries`."""

    def __init__(self, size: PriorSize) -> None:
        super().__init__()
        self.visual = VisionTower(size)
        self.text = TextLayers(size)
        self.latent_queries = nn.Parameter(0.02 * torch.randn(QUERIES, size.width))
        self.action_queries = nn.Parameter(0.02 * torch.randn(QUERIES, size.width))

    def forward(self, inputs: Tree) -> Float[Tensor, "b l d"]:
        """inputs: "images" uint8 [b v H W 3] and what a Prompt makes of b instructions (prompt.py).

        States of all tokens after the final norm; those of padding mean nothing, and nothing sees them.
        """
        images, image_at = inputs["images"], inputs["image_at"]
        views = [x.unflatten(0, images.shape[:2]).flatten(1, 2) for x in self.visual(images.flatten(0, 1))]
        b = len(images)
        tokens = self.text.embed_tokens(inputs["tokens"])
        for at, rows in (
            (image_at, views[0]),
            (inputs["latent_at"], self.latent_queries.expand(b, -1, -1)),
            (inputs["action_at"], self.action_queries.expand(b, -1, -1)),
        ):
            tokens = tokens.scatter(1, _index(at, rows), rows.to(tokens.dtype))
        return self.text(tokens, image_at, views[1:])


class TextLayers(nn.Module):
    """The causal half, with transformers' modules under their own names."""

    def __init__(self, size: PriorSize) -> None:
        from transformers import Qwen3VLTextConfig, Qwen3VLTextModel

        super().__init__()
        own = {theirs: vars(size)[ours] for ours, theirs in TEXT_SIZES.items()}
        model = Qwen3VLTextModel(Qwen3VLTextConfig(**own, attn_implementation="sdpa"))
        self.embed_tokens, self.layers, self.norm = model.embed_tokens, model.layers, model.norm
        with torch.device("cpu"):
            self.rope = Rope(size.head_dim, size.rope_base)

    def forward(
        self, x: Float[Tensor, "b l d"], image_at: Int[Tensor, "b n"], taps: list[Float[Tensor, "b n d"]]
    ) -> Float[Tensor, "b l d"]:
        """taps: added at the image tokens behind the first layers, one each."""
        angles = self.rope(torch.arange(x.shape[1], device=x.device)[:, None])
        turn = angles.cos().to(x.dtype)[None], angles.sin().to(x.dtype)[None]
        for number, layer in enumerate(self.layers):
            x = layer(x, position_embeddings=turn)
            for tap in taps[number : number + 1]:
                x = x.scatter_add(1, _index(image_at, tap), tap.to(x.dtype))
        return self.norm(x)


class VisionTower(nn.Module):
    """Images -> tokens of merge x merge patches, with transformers' modules under their own names."""

    def __init__(self, size: PriorSize) -> None:
        from transformers import Qwen3VLVisionConfig, Qwen3VLVisionModel

        super().__init__()
        config = Qwen3VLVisionConfig(
            **{theirs: vars(size)[ours] for ours, theirs in VISION_SIZES.items()},
            temporal_patch_size=FRAMES,
            out_hidden_size=size.width,
            num_position_embeddings=size.position_side**2,
        )
        model = Qwen3VLVisionModel(config)
        self.patch_embed, self.pos_embed = model.patch_embed, model.pos_embed
        self.blocks, self.merger = model.blocks, model.merger
        self.deepstack_merger_list = model.deepstack_merger_list
        self.size = size
        with torch.device("cpu"):
            self.rope = Rope(size.vision_width // size.vision_heads // 2, VISION_BASE)

    def forward(self, images: UInt8[Tensor, "n H W 3"]) -> list[Float[Tensor, "n m d"]]:
        """Tokens, row by row, and after them those of every tap."""
        size, embed = self.size, self.patch_embed.proj
        rows, columns = images.shape[1] // size.patch, images.shape[2] // size.patch
        x = patches(images, size.patch, size.merge).to(embed.weight.dtype)
        x = F.linear(x, embed.weight.flatten(1), embed.bias)  # on patches the convolution is one product
        x = x + self.positions(rows, columns).to(x.dtype)
        angles = self.angles(rows, columns)
        tapped = []
        for block in self.blocks:
            x = x + _attention(block.attn, block.norm1(x), angles)
            x = x + block.mlp(block.norm2(x))
            tapped.append(x)
        merged = [self.merger(x)]
        for merger, tap in zip(self.deepstack_merger_list, size.vision_taps, strict=True):
            merged.append(merger(tapped[tap]))
        return [tokens.unflatten(0, (len(images), -1)) for tokens in merged]

    def positions(self, rows: int, columns: int) -> Float[Tensor, "s d"]:
        """The learned grid, interpolated linearly so that corners stay corners, in float32."""
        side = self.size.position_side
        grid = self.pos_embed.weight.float().unflatten(0, (side, side))
        return in_cells(
            _stretched(_stretched(grid, rows).transpose(0, 1), columns).transpose(0, 1), self.size.merge
        )

    def angles(self, rows: int, columns: int) -> Float[Tensor, "s e"]:
        """Of the rotary code of every patch: by its row and by its column."""
        device = self.pos_embed.weight.device
        places = torch.meshgrid(
            torch.arange(rows, device=device), torch.arange(columns, device=device), indexing="ij"
        )
        return self.rope(in_cells(torch.stack(places, dim=-1), self.size.merge))


class Rope(Tables):
    """Rotary angles; width: numbers per head that one axis turns."""

    frequencies: Tensor

    def __init__(self, width: int, base: float) -> None:
        super().__init__(frequencies=1.0 / base ** (torch.arange(0, width, 2).float() / width))

    def forward(self, places: Int[Tensor, "s axes"]) -> Float[Tensor, "s e"]:
        """Of every axis in turn, and all again: number i turns with number i + e / 2."""
        return (places[:, :, None] * self.frequencies).flatten(1).tile(2)


def _attention(
    attention: Any, x: Float[Tensor, "n s d"], angles: Float[Tensor, "s e"]
) -> Float[Tensor, "n s d"]:
    """Of all patches of an image."""
    q, k, v = attention.qkv(x).unflatten(-1, (3, attention.num_heads, -1)).transpose(1, 3).unbind(2)
    cos, sin = angles.cos(), angles.sin()
    q, k = (_turned(part.float(), cos, sin).to(v.dtype) for part in (q, k))
    return attention.proj(F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2))


def _turned(x: Float[Tensor, "n h s e"], cos: Tensor, sin: Tensor) -> Float[Tensor, "n h s e"]:
    left, right = x.chunk(2, dim=-1)
    return x * cos + torch.cat([-right, left], dim=-1) * sin


def _stretched(points: Float[Tensor, "m ..."], count: int) -> Float[Tensor, "{count} ..."]:
    """`count` points on the line through m, with the same ends."""
    last = len(points) - 1
    at = torch.arange(count, device=points.device) * (last / max(count - 1, 1))
    first = at.long().clamp(max=last)
    share = (at - first).view(-1, *[1] * (points.ndim - 1))
    return torch.lerp(points[first], points[(first + 1).clamp(max=last)], share)


def rows_at(x: Float[Tensor, "b l d"], at: Int[Tensor, "b n"]) -> Float[Tensor, "b n d"]:
    """The rows at these places."""
    return x.gather(1, at[:, :, None].expand(-1, -1, x.shape[2]))


def _index(at: Int[Tensor, "b n"], rows: Float[Tensor, "b n d"]) -> Int[Tensor, "b n d"]:
    return at[:, :, None].expand(rows.shape)


def past_latent(latent_at: Int[Tensor, "b n"], length: int) -> Bool[Tensor, "b {length}"]:
    """True behind the last latent-action query."""
    return torch.arange(length, device=latent_at.device) > latent_at[:, -1:]


def stop_latent_context_grad(
    hidden: Float[Tensor, "b l d"], latent_at: Int[Tensor, "b n"]
) -> Float[Tensor, "b l d"]:
    """The same states, without a gradient up to the last latent-action query (spec 2.3)."""
    return torch.where(past_latent(latent_at, hidden.shape[1])[:, :, None], hidden, hidden.detach())


@dataclass(frozen=True)
class FromScratch:
    """Everything is trained, from random weights but for the embedding of patches.

    That begins as a cosine transform with outputs of about unit variance, low frequencies first: pixels are so alike
    that a random embedding learns little else than brightness for the first thousands of steps.
    """

    kind: Literal["scratch"] = "scratch"

    def expect_folder(self) -> None:
        """There is none."""

    def freeze(self, prior: Prior) -> None:
        """Nothing is frozen."""

    @torch.no_grad()
    def initialize(self, prior: Prior) -> None:
        """Patches are embedded by block features; further rows stay random. BadInput where patches are no blocks."""
        embed = prior.visual.patch_embed.proj
        if embed.weight.shape[-2:] != (BLOCK, BLOCK):
            raise BadInput(
                f"policy.prior.patch: a prior from scratch has patches of {BLOCK} pixels, got {prior.visual.size.patch}"
            )
        basis = block_scaled(min(len(embed.weight), 3 * BLOCK**2))  # n (colour row column)
        frames = basis.unflatten(1, (3, 1, BLOCK, BLOCK)).expand(-1, -1, FRAMES, -1, -1) / FRAMES
        embed.weight[: len(basis)] = frames
        embed.bias.zero_()

    def load_frozen(self, prior: Prior) -> None:
        """Nothing is frozen."""


@dataclass(frozen=True)
class FromQwen:
    """Released weights; the token embedding stays frozen. path: a folder in transformers' layout."""

    path: str = "weights/Qwen3-VL-2B-Instruct"
    kind: Literal["qwen"] = "qwen"

    def expect_folder(self) -> None:
        """BadInput where it is missing."""
        folder = local(self.path)
        if not (folder / "config.json").is_file():
            raise BadInput(
                f"{folder}: no Qwen3-VL; expected config.json and its safetensors files. Download them with "
                f"`hf download Qwen/Qwen3-VL-2B-Instruct --local-dir {folder}`"
            )

    def freeze(self, prior: Prior) -> None:
        """The token embedding."""
        prior.text.embed_tokens.requires_grad_(False)

    def initialize(self, prior: Prior) -> None:
        """All but the queries. Raises BadInput naming a missing file or tensor, or another structure."""
        tensors = self._tensors(prior)
        load_strict(prior, tensors, self.path, fresh=("latent_queries", "action_queries"))

    def load_frozen(self, prior: Prior) -> None:
        """The token embedding. Raises BadInput as `initialize`."""
        name = "text.embed_tokens."
        own = {key.removeprefix(name): x for key, x in self._tensors(prior).items() if key.startswith(name)}
        load_strict(prior.text.embed_tokens, own, self.path)

    def _tensors(self, prior: Prior) -> dict[str, Tensor]:
        """Under our names, without later text layers and the head."""
        self.expect_folder()
        folder = local(self.path)
        _expect_size(folder, prior.visual.size)
        return ours(read_tensors(folder), prior.visual.size.layers)


def ours(tensors: Mapping[str, Tensor], layers: int) -> dict[str, Tensor]:
    """Tensors of transformers' Qwen3-VL, with or without its head, as those of a Prior of so many text layers."""
    names = {name.removeprefix("model."): name for name in tensors if not name.startswith("lm_head.")}
    stack = "language_model.layers."
    later = tuple(f"{stack}{number}." for number in numbers(names, stack) if number >= layers)
    return {
        name.replace("language_model.", "text.", 1): tensors[full]
        for name, full in names.items()
        if not name.startswith(later)
    }


def _expect_size(folder: Path, size: PriorSize) -> None:
    """BadInput where a folder has another structure; it may have more text layers."""
    from transformers import Qwen3VLConfig

    config = Qwen3VLConfig.from_pretrained(folder)
    text, vision = config.text_config, config.vision_config
    found = {ours: vars(text)[theirs] for ours, theirs in TEXT_SIZES.items()}
    found |= {ours: vars(vision)[theirs] for ours, theirs in VISION_SIZES.items()}
    found |= {
        "layers": min(text.num_hidden_layers, size.layers),
        "rope_base": text.rope_parameters["rope_theta"],
        "vision_taps": tuple(vision.deepstack_visual_indexes),
        "position_side": round(vision.num_position_embeddings**0.5),
    }
    differences = [
        f"{name} {own}, expected {vars(size)[name]}" for name, own in found.items() if own != vars(size)[name]
    ]
    if differences:
        raise BadInput(f"{folder}: a Qwen3-VL of another size than policy.prior: {'; '.join(differences)}")
