"""The frozen half of Wan-based systems: views -> latents by a video codec, instruction -> context by a text encoder.

Light-WAM and Fast-WAM share it (Fast-WAM spec 1.6, 10.1), and the proprio token that their learned halves add to the
context.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Protocol

import torch
from jaxtyping import Float
from torch import Tensor, nn
from wamkit_client.types import BadInput

from wamkit.data.canvas import canvas_size, expect_canvas, tile
from wamkit.data.normalize import Normalizer
from wamkit.policies.base import EncoderFacts, FrozenEncoder
from wamkit.spans import Span
from wamkit.tree import Tree
from wamkit.types import DataSpec, Preprocessing
from wamkit.wan.dit import WanSize
from wamkit.wan.encoders import (
    BlockCodecConfig,
    Codec,
    CodecConfig,
    TextConfig,
    TextEncoder,
    WanVAEConfig,
    build_codec,
    build_text,
)
from wamkit.wan.prompts import prompts_of, why_no_text, why_no_tokens
from wamkit.wan.vae import VAE_SIZES, WanVAE

KEPT_PROMPTS = 256
"""Contexts that stay on the device; at full size one takes 2 MiB."""


class WanEncoder(FrozenEncoder):
    """Tiles the views, encodes the canvas and the instruction.

    pool: average pooling of the latents after the present frame. preprocessing: how views come to the canvas.
    """

    def __init__(
        self,
        codec: Codec,
        text: TextEncoder,
        data: DataSpec,
        pool: int = 1,
        preprocessing: Preprocessing = "training",
    ) -> None:
        expect_canvas(data)
        self.codec, self._text = codec, text
        self.data, self.pool, self.preprocessing = data, pool, preprocessing
        self._contexts: dict[str, Tensor] = {}
        codec.requires_grad_(False)

    @classmethod
    def load(
        cls, codec: CodecConfig, text: TextConfig, data: DataSpec, pool: int, preprocessing: Preprocessing
    ) -> WanEncoder:
        """With the weights that the configs name, on the CPU. Raises BadInput naming a missing file."""
        return cls(load_codec(codec), build_text(text), data, pool, preprocessing)

    @property
    def fingerprint(self) -> Mapping[str, str]:
        """Names codec, text encoder, canvas and pooling."""
        spec, (height, width) = self.data, canvas_size(self.data)
        size = f"{spec.view_height}x{spec.view_width}"
        return {
            "codec": self.codec.fingerprint,
            "text": self._text.fingerprint,
            "canvas": f"{spec.canvas} {height}x{width} of {', '.join(spec.views)} at {size}",
            "pooling": f"present whole, future {self.pool}x{self.pool}",
        }

    @torch.no_grad()
    def frames(self, prepared: Tree) -> Tree:
        """Views uint8 [b t h w 3] -> "present" [b c 1 h w] and "future" [b c f h/pool w/pool] (f = 0 for t = 1)."""
        with Span("images"):
            views = {view: frames.to(self.device) for view, frames in prepared.items()}
            canvas = tile(views, self.data, self.preprocessing)
        latents = self.codec.encode(canvas)
        return {"present": latents[:, :, :1], "future": pooled(latents[:, :, 1:], self.pool)}

    @torch.no_grad()
    def text(self, instructions: Sequence[str]) -> Tree:
        """Instructions -> "context" [b l d]; rows past the prompt are zero and stay visible."""
        new = [text for text in dict.fromkeys(instructions) if text not in self._contexts]
        if new:
            self._contexts |= dict(zip(new, self._text.encode(new).to(self.device), strict=True))
        context = torch.stack([self._contexts[text] for text in instructions])
        for oldest in list(self._contexts)[:-KEPT_PROMPTS]:
            del self._contexts[oldest]
        return {"context": context}

    def decode(self, latents: Float[Tensor, "b c f h w"]) -> Float[Tensor, "b 3 t H W"]:
        """Latents -> images in [-1, 1]."""
        return self.codec.decode(latents).clamp(-1, 1)

    def to(self, device: torch.device) -> WanEncoder:
        """On `device`, in place."""
        self.codec.to(device)
        self._contexts = {text: rows.to(device) for text, rows in self._contexts.items()}
        super().to(device)
        return self


def pooled(latents: Float[Tensor, "b c f h w"], by: int) -> Float[Tensor, "b c f hp wp"]:
    """Average over squares of `by` x `by` latent pixels."""
    return latents.unflatten(4, (-1, by)).unflatten(3, (-1, by)).mean(dim=(4, 6)) if by > 1 else latents


def load_codec(config: CodecConfig) -> Codec:
    """The video codec with its weights, on the CPU. Raises BadInput naming a missing file."""
    match config:
        case WanVAEConfig(path=path, size=size):
            return WanVAE.load(Path(path), VAE_SIZES[size])
        case BlockCodecConfig():
            return build_codec(config)


def example_inputs(
    codec: CodecConfig, text: TextConfig, text_dim: int, data: DataSpec, pool: int, batch: int
) -> Tree:
    """Zeros in the shapes of what the encoder returns for a training batch."""
    with torch.device("meta"):
        made = build_codec(codec)
    height, width = (pixels // made.spatial for pixels in canvas_size(data))
    frames = (len(data.frame_times) - 1) // made.temporal
    return {
        "present": torch.zeros(batch, made.channels, 1, height, width),
        "future": torch.zeros(batch, made.channels, frames, height // pool, width // pool),
        "context": torch.zeros(batch, text.length, text_dim),
    }


class VideoConfig(Protocol):
    """What configs of policies with a video model share."""

    @property
    def codec(self) -> CodecConfig:
        """Of the encoder."""

    @property
    def size(self) -> WanSize:
        """Of the video model."""


def expect_channels(config: VideoConfig, source: str) -> None:
    """BadInput where a video model read from the file `source` takes other latents than the codec gives."""
    with torch.device("meta"):
        given = build_codec(config.codec).channels
    if given != config.size.channels:
        raise BadInput(
            f"{source}: its video model takes {config.size.channels} latent channels, the recipe's codec gives "
            f"{given}; choose the recipe it was trained with"
        )


def encoder_facts(
    codec: CodecConfig, text: TextConfig, instructions: Sequence[str], device: torch.device, base: str = ""
) -> EncoderFacts:
    """What can be shown of codec and text encoder on this machine.

    base: the released video model that the policy is built on and a run does not contain; "" for none.
    """
    codecs, no_codec = [], ""
    try:
        codecs.append(load_codec(codec))
        codecs[0].to(device)
    except BadInput as error:
        no_codec = str(error)
    prompts = prompts_of(text, instructions)
    no_base = f"{base}, the video model that the run is built on, is not on this machine (docs/weights.md)"
    missing = no_codec or (no_base if base and not Path(base).exists() else "") or why_no_text(text, prompts)
    return EncoderFacts(prompts, tuple(codecs), no_codec, why_no_tokens(text), missing)


class ProprioEncoder(nn.Linear):
    """Unit-range proprio [b p] -> one token beside the text rows [b 1 text]."""

    def forward(self, proprio: Float[Tensor, "b p"]) -> Float[Tensor, "b 1 text"]:
        """See above."""
        return super().forward(proprio.to(self.weight.dtype))[:, None]


class NoProprio(nn.Module):
    """Of a policy without proprio: no token, [b 0 text]."""

    def __init__(self, text_dim: int) -> None:
        super().__init__()
        self.text_dim = text_dim

    def forward(self, proprio: Float[Tensor, "b 0"]) -> Float[Tensor, "b 0 text"]:
        """See above."""
        return proprio.new_zeros(len(proprio), 0, self.text_dim)


def proprio_encoder(proprio_dim: int, text_dim: int) -> nn.Module:
    """The one that fits; proprio_dim 0: the robot's own state is not used."""
    return ProprioEncoder(proprio_dim, text_dim) if proprio_dim else NoProprio(text_dim)


def context(
    inputs: Tree, embodiment: Tensor, normalizer: Normalizer, proprio_encoder: nn.Module
) -> Float[Tensor, "b rows text"]:
    """Text rows and, last, the proprio token. All rows stay visible, padding too."""
    proprio = normalizer.to_unit("proprio", inputs["proprio"], embodiment)
    token = proprio_encoder(proprio)
    return torch.cat([inputs["context"].to(token.dtype), token], dim=1)
