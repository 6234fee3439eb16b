"""Which frozen encoders a policy stands on, as configs, and how they are built."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

import torch
from jaxtyping import Float
from torch import Tensor, nn
from wamkit_client.types import BadInput

from wamkit.bounds import AT_LEAST_1, check
from wamkit.wan.codec import KEPT, BlockCodec, Keeps
from wamkit.wan.text import HashedText
from wamkit.wan.umt5 import StoredText, UMT5Text
from wamkit.wan.vae import VAE_SIZES, WanVAE


@dataclass(frozen=True)
class BlockCodecConfig:
    """The weight-free block transform (wan/codec.py). keeps: what of an image and of its changes, a row of KEPT."""

    keeps: Keeps = "coarse"
    kind: Literal["block_cosine"] = "block_cosine"


@dataclass(frozen=True)
class WanVAEConfig:
    """A Wan VAE; path: its official file, the folder that holds it, or a diffusers folder. size: a row of VAE_SIZES
    (wan/vae.py)."""

    path: str = "weights/Wan2.1-T2V-1.3B"
    size: Literal["2.1", "2.2"] = "2.1"
    kind: Literal["wan_vae"] = "wan_vae"


@dataclass(frozen=True)
class HashedTextConfig:
    """Deterministic word vectors (wan/text.py). width: of a vector. length: words of an instruction, with padding."""

    width: int = 64
    length: int = 16
    kind: Literal["hashed"] = "hashed"

    def __post_init__(self) -> None:
        check("policy.text", self, {"width": AT_LEAST_1, "length": AT_LEAST_1})


@dataclass(frozen=True)
class UMT5Config:
    """UMT5-XXL; path: a folder with the encoder's weights and tokenizer. stored: the folder that keeps what it encoded;
    where every prompt is there, the encoder is not read and need not exist. length: tokens of a prompt, with
    padding."""

    path: str = "weights/Wan2.1-T2V-1.3B"
    stored: str = "weights/text"
    length: int = 128
    kind: Literal["umt5"] = "umt5"

    def __post_init__(self) -> None:
        check("policy.text", self, {"length": AT_LEAST_1})


@dataclass(frozen=True)
class StoredTextConfig:
    """Contexts computed earlier; path: a folder of the official text cache (one file per prompt). length: tokens of a
    prompt, with padding."""

    path: str = "weights/text"
    length: int = 128
    kind: Literal["stored"] = "stored"

    def __post_init__(self) -> None:
        check("policy.text", self, {"length": AT_LEAST_1})


CodecConfig = BlockCodecConfig | WanVAEConfig
TextConfig = HashedTextConfig | UMT5Config | StoredTextConfig


class Codec(Protocol):
    """Video <-> latents, causal: the first latent depends on the first frame alone.

    spatial, temporal: pixels and frames (after the first) per latent.
    """

    channels: int
    spatial: int
    temporal: int

    @property
    def fingerprint(self) -> str:
        """Names the transform and its weights."""

    def encode(self, video: Float[Tensor, "b 3 t H W"]) -> Float[Tensor, "b c f h w"]:
        """[-1, 1] pixels -> normalised latents."""

    def still(self) -> nn.Module:
        """`encode` of single frames, [b 3 H W] -> [b c h w], equal in real arithmetic, with weights of its own."""

    def decode(self, latents: Float[Tensor, "b c f h w"]) -> Float[Tensor, "b 3 t H W"]:
        """Latents -> pixels in [-1, 1]."""

    def requires_grad_(self, requires_grad: bool) -> nn.Module:
        """Freeze (nn.Module's)."""

    def to(self, device: torch.device) -> nn.Module:
        """Move (nn.Module's)."""


class TextEncoder(Protocol):
    """Instructions -> context rows; rows past the words are zero and stay visible."""

    @property
    def fingerprint(self) -> str:
        """Names the encoder and its weights."""

    def encode(self, instructions: Sequence[str]) -> Float[Tensor, "b l d"]:
        """One context per instruction."""

    def store(self, instructions: Sequence[str], device: torch.device) -> None:
        """Have these at hand from now on without a network; where one is needed for that, it works on `device`, if it
        fits, and is let go of."""


def temporal(config: CodecConfig) -> int:
    """Frames per latent after the first."""
    return BlockCodec.temporal if config.kind == "block_cosine" else VAE_SIZES[config.size].temporal


def channels(config: CodecConfig) -> int:
    """Of a latent pixel."""
    if config.kind == "block_cosine":
        return len(KEPT[config.keeps].present)
    return len(VAE_SIZES[config.size].latent_mean)


def check_channels(codec: CodecConfig, channels_taken: int) -> None:
    """BadInput where latents do not fit a video model that takes `channels_taken` channels."""
    if (given := channels(codec)) != channels_taken:
        raise BadInput(
            f"policy.size.channels: expected {given}, what policy.codec gives, got {channels_taken}; give "
            f"--policy.size.channels {given}"
        )


def check_text_width(text: TextConfig, text_dim: int) -> None:
    """BadInput where the text encoder's rows do not fit a network that takes rows of `text_dim`."""
    if text.kind == "hashed" and text.width != text_dim:
        raise BadInput(f"policy.text.width: expected policy.size.text_dim, {text_dim}, got {text.width}")


def build_codec(config: CodecConfig) -> BlockCodec | WanVAE:
    """The codec a config names; the Wan VAE with random weights, to be filled by `WanVAE.load` (wan/vae.py)."""
    return BlockCodec(config.keeps) if config.kind == "block_cosine" else WanVAE(VAE_SIZES[config.size])


def build_text(config: TextConfig) -> TextEncoder:
    """The text encoder a config names; UMT5 reads its weights at the first instruction that is not stored."""
    match config:
        case HashedTextConfig():
            return HashedText(config.width, config.length)
        case StoredTextConfig():
            return StoredText(config.path, length=config.length)
        case UMT5Config():
            return UMT5Text(config.path, StoredText(config.stored, length=config.length))
