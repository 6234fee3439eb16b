"""The frozen half of Wan-based systems: views -> latents by a video codec, instruction -> context by a text encoder.

Light-WAM and Fast-WAM share it (Fast-WAM spec 1.6, 10.1), and the proprio token that their learned halves add to the
context.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Protocol

import torch
from jaxtyping import Float, UInt8
from torch import Tensor, nn
from wamkit_client.types import BadInput

from wamkit.data.canvas import canvas_size, expect_canvas, tile
from wamkit.data.device_canvas import DeviceCanvas, carried
from wamkit.data.normalize import Normalizer
from wamkit.flow import Predicts, noise_rows
from wamkit.foresight import Foresight
from wamkit.io.hub import local
from wamkit.policies.base import EncoderFacts, FrozenEncoder, unchanged
from wamkit.spans import Span
from wamkit.tree import Tree
from wamkit.types import ActingEncoder, DataSpec, Preprocessing, Query
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
    channels,
)
from wamkit.wan.prompts import prompts_of, why_no_text, why_no_tokens
from wamkit.wan.text import HashedText
from wamkit.wan.vae import VAE_SIZES, WanVAE

KEPT_PROMPTS = 256
"""Contexts that stay on the device; at full size one takes 2 MiB."""

Images = Callable[[Mapping[str, Tensor]], Float[Tensor, "b 3 H W"]]
"""Views uint8 [b 1 h w 3] by camera -> canvas."""
Latents = Callable[[Tensor], Float[Tensor, "b c h w"]]
"""Canvas [b 3 H W] -> latents."""


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
        self.codec, self._text, self._contexts = codec, text, Contexts(text)
        self.data, self.pool, self.preprocessing = data, pool, preprocessing
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
            canvas = tile(carried(prepared, self.device), self.data, self.preprocessing)
        latents = self.codec.encode(canvas)
        return {"present": latents[:, :, :1], "future": pooled(latents[:, :, 1:], self.pool)}

    def text(self, instructions: Sequence[str]) -> Tree:
        """As `Contexts`."""
        return self._contexts(instructions)

    def store_text(self, instructions: Sequence[str]) -> None:
        """As the text encoder's `store`, on the encoder's device."""
        self._text.store(instructions, self.device)

    @property
    def passes(self) -> tuple[str, ...]:
        """still_codec: one frame by convolutions of images, without the decoder. device_images: the canvas is made
        where the codec is."""
        return "still_codec", "device_images"

    def acting(self, passes: Collection[str], precision: torch.dtype | None = None) -> ActingEncoder:
        """With these passes. precision: of the still codec."""
        if not passes:
            return self
        canvas: Images = partial(_tiled, self.data, self.preprocessing)
        codec: Latents = partial(_first_latent, self.codec)
        if "device_images" in passes:
            canvas = DeviceCanvas(self.data, self.preprocessing)
        if "still_codec" in passes:
            codec = self.codec.still().to(dtype=precision)
        return StillEncoder(canvas, codec, self._contexts, self.pool, self.device)

    def decode(self, latents: Float[Tensor, "b c f h w"]) -> Float[Tensor, "b 3 t H W"]:
        """Latents -> images in [-1, 1]."""
        return self.codec.decode(latents).clamp(-1, 1)

    def to(self, device: torch.device) -> WanEncoder:
        """On `device`, in place."""
        self.codec.to(device)
        self._contexts.to(device)
        super().to(device)
        return self


class StillEncoder:
    """A WanEncoder that sees one frame: `canvas` makes an image of the views, `codec` latents of it.

    contexts: shared with the whole encoder.
    """

    prepare = staticmethod(unchanged)

    def __init__(
        self,
        canvas: Images,
        codec: Latents,
        contexts: Contexts,
        pool: int,
        device: torch.device,
    ) -> None:
        self.canvas, self.codec, self.text = canvas, codec, contexts
        self.pool, self.device = pool, device

    @torch.no_grad()
    def frames(self, prepared: Tree) -> Tree:
        """Views uint8 [b 1 h w 3] -> "present" [b c 1 h w] and "future", which has no frames."""
        with Span("images"):
            canvas = self.canvas(carried(prepared, self.device))
        present = self.codec(canvas)[:, :, None]
        return {"present": present, "future": present[:, :, :0, :: self.pool, :: self.pool]}


def _tiled(
    data: DataSpec, preprocessing: Preprocessing, views: Mapping[str, UInt8[Tensor, "b 1 _ _ 3"]]
) -> Float[Tensor, "b 3 H W"]:
    return tile(views, data, preprocessing)[:, :, 0]


def _first_latent(codec: Codec, frames: Float[Tensor, "b 3 H W"]) -> Float[Tensor, "b c h w"]:
    return codec.encode(frames[:, :, None])[:, :, 0]


class Contexts:
    """Instructions -> "context" [b l d]; rows past the prompt are zero and stay visible.

    The last KEPT_PROMPTS stay on the device.
    """

    def __init__(self, text: TextEncoder) -> None:
        self._text, self._device = text, torch.device("cpu")
        self._kept: dict[str, Tensor] = {}

    @torch.no_grad()
    def __call__(self, instructions: Sequence[str]) -> Tree:
        """See above."""
        new = [text for text in dict.fromkeys(instructions) if text not in self._kept]
        if new:
            self._kept |= dict(zip(new, self._text.encode(new).to(self._device), strict=True))
        context = torch.stack([self._kept[text] for text in instructions])
        for oldest in list(self._kept)[:-KEPT_PROMPTS]:
            del self._kept[oldest]
        return {"context": context}

    def to(self, device: torch.device) -> None:
        """Move what is kept, and keep it there from now on."""
        self._device = device
        self._kept = {text: rows.to(device) for text, rows in self._kept.items()}


Imagine = Callable[[Tensor], Float[Tensor, "b c _ h w"]]
"""Noise [b c f h w] -> latents: the present, and what is sampled from the noise."""


@torch.no_grad()
def foresight(
    present: Float[Tensor, "b c 1 h w"], query: Query, encoder: WanEncoder, imagine: Imagine
) -> Foresight:
    """What `imagine` makes of each row's noise, as frames alone, each encoded by itself: a latent that covers several
    frames cannot be compared with an observation, which is one.

    The present takes the same way, so that what the codec loses is lost on both sides.
    """
    codec, (channels, _, *grid) = encoder.codec, present.shape[1:]
    shape = (channels, (len(encoder.data.frame_times) - 1) // codec.temporal, *grid)
    latents = imagine(noise_rows(shape, query.generators, present.device))
    frames = codec.decode(latents).clamp(-1, 1).transpose(1, 2)  # b t 3 H W
    alone = codec.encode(frames.flatten(0, 1)[:, :, None])[:, :, 0]  # (b t) c h w
    patches = alone.flatten(2).transpose(1, 2).unflatten(0, frames.shape[:2])
    return Foresight(patches[:, 0], patches[:, 1:])


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


def random_encoder(
    precision: torch.dtype, codec: CodecConfig, text: TextConfig, text_dim: int, data: DataSpec, pool: int
) -> WanEncoder:
    """With random weights, and with hashed words in place of a text encoder's rows."""
    return WanEncoder(build_codec(codec).to(precision), HashedText(text_dim, text.length), data, pool)


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

    @property
    def video_predicts(self) -> Predicts:
        """Of a noised future."""


def expect_channels(config: VideoConfig, source: str) -> None:
    """BadInput where a video model read from the file `source` takes other latents than the codec gives."""
    given = channels(config.codec)
    if given != config.size.channels:
        raise BadInput(
            f"{source}: its video model takes {config.size.channels} latent channels, the recipe's codec gives "
            f"{given}; choose the recipe it was trained with"
        )


def expect_released_options(config: VideoConfig) -> None:
    """BadInput where the video model has an option that released code does not know and no released file says."""
    expect_alone("policy.video_predicts", config.video_predicts, "velocity")
    expect_alone("policy.size.present_skip", config.size.present_skip, False)


def expect_alone(name: str, given: object, only: object) -> None:
    """BadInput where a value is not the one that released code knows, and no released file says which it is."""
    if given != only:
        raise BadInput(
            f"{name} is {given}: released code knows {only} alone, and the official layout has no place for "
            f"another. Only a run directory holds such a policy; a released file is read with "
            f"--{name.replace('_', '-')} {only}"
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
    missing = no_codec or (no_base if base and not local(base).exists() else "") or why_no_text(text, prompts)
    return EncoderFacts(prompts, tuple(codecs), no_codec, why_no_tokens(text), missing)


class ProprioEncoder(nn.Linear):
    """Unit-range proprio [b p] -> one token beside the text rows [b 1 text]."""

    tokens = 1

    def forward(self, proprio: Float[Tensor, "b p"]) -> Float[Tensor, "b 1 text"]:
        """See above."""
        return super().forward(proprio.to(self.weight.dtype))[:, None]

    @torch.no_grad()
    def followed_by(self, layer: nn.Linear) -> ProprioEncoder:
        """This and a layer behind it as one; in float64, rounded once."""
        with torch.device("meta"):
            made = ProprioEncoder(self.in_features, layer.out_features)
        outer = layer.weight.double()
        weight, bias = outer @ self.weight.double(), layer.bias.double() + outer @ self.bias.double()
        made.weight, made.bias = (nn.Parameter(x.to(layer.weight.dtype), False) for x in (weight, bias))
        return made


class NoProprio(nn.Module):
    """Of a policy without proprio: no token, [b 0 text]."""

    tokens = 0

    def __init__(self, text_dim: int) -> None:
        super().__init__()
        self.text_dim = text_dim

    def forward(self, proprio: Float[Tensor, "b 0"]) -> Float[Tensor, "b 0 text"]:
        """See above."""
        return proprio.new_zeros(len(proprio), 0, self.text_dim)

    def followed_by(self, layer: nn.Linear) -> NoProprio:
        """Still none."""
        return NoProprio(layer.out_features)


Proprio = ProprioEncoder | NoProprio


def proprio_encoder(proprio_dim: int, text_dim: int) -> Proprio:
    """The one that fits; proprio_dim 0: the robot's own state is not used."""
    return ProprioEncoder(proprio_dim, text_dim) if proprio_dim else NoProprio(text_dim)


def context(
    inputs: Tree, embodiment: Tensor, normalizer: Normalizer, proprio_encoder: nn.Module
) -> Float[Tensor, "b rows text"]:
    """Text rows and, last, the proprio token. All rows stay visible, padding too."""
    proprio = normalizer.to_unit("proprio", inputs["proprio"], embodiment)
    token = proprio_encoder(proprio)
    return torch.cat([inputs["context"].to(token.dtype), token], dim=1)
