"""The Wan2.1 and Wan2.2 video VAEs behind the codec interface: pixels in, normalised posterior means out, and back.

diffusers' `AutoencoderKLWan` is the module; this file adds the per-channel normalisation, the names of the official
files and the checks that diffusers lacks (it drops frames that do not fill a group of four).
Latent statistics: of 2.1 Light-WAM spec 1.9, of 2.2 Fast-WAM spec 1.7.
The encoder is causal in time: the first latent of a clip equals the latent of its first frame alone.
Knows nothing of canvases, pooling or policies. Not safe to share between threads: diffusers keeps its causal
cache on the module during a call.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor, nn
from wamkit_client.types import BadInput

from wamkit.io.hub import local
from wamkit.io.tensors import digest, load_strict, read_tensors
from wamkit.nn.tables import Tables
from wamkit.wan.still import StillVAE

PIXELS_AT_ONCE = 2**21
"""Of all frames that go through the encoder together: 7 GB in float32."""
DIFFUSERS_FILE = "diffusion_pytorch_model.safetensors"


@dataclass(frozen=True)
class Generation:
    """What all VAEs of a generation share.

    residual: blocks have averaging shortcuts around them. patch: pixels folded into channels along rows and columns
    before the first layer. decoder_width: of the decoder, relative to the encoder's.
    official_file: its released name; download: the command that fetches it.
    """

    name: str
    residual: bool
    patch: int
    decoder_width: float
    official_file: str
    download: str


GENERATION21 = Generation(
    name="Wan2.1",
    residual=False,
    patch=1,
    decoder_width=1.0,
    official_file="Wan2.1_VAE.pth",
    download="hf download Wan-AI/Wan2.1-T2V-1.3B Wan2.1_VAE.pth --local-dir FOLDER",
)
GENERATION22 = Generation(
    name="Wan2.2",
    residual=True,
    patch=2,
    decoder_width=1.6,
    official_file="Wan2.2_VAE.pth",
    download="hf download Wan-AI/Wan2.2-TI2V-5B Wan2.2_VAE.pth --local-dir FOLDER",
)


@dataclass(frozen=True)
class VAESize:
    """Widths of a Wan VAE and the statistics of its latents, one mean and deviation per channel.

    width: of the encoder's first level.
    """

    width: int
    multipliers: tuple[int, ...]
    resnets_per_level: int
    temporal_down: tuple[bool, ...]
    latent_mean: tuple[float, ...]
    latent_std: tuple[float, ...]
    # Not in the fingerprint of a latent cache, which has the weights' names and shapes.
    generation: Generation = field(default=GENERATION21, repr=False)

    @property
    def spatial(self) -> int:
        """Pixels per latent along rows and columns."""
        return self.generation.patch * 2 ** (len(self.multipliers) - 1)

    @property
    def temporal(self) -> int:
        """Frames per latent, after the first, which stands alone."""
        return 2 ** sum(self.temporal_down)


# fmt: off
WAN21 = VAESize(
    width=96, multipliers=(1, 2, 4, 4), resnets_per_level=2, temporal_down=(False, True, True),
    latent_mean=(-0.7571, -0.7089, -0.9113, 0.1075, -0.1745, 0.9653, -0.1517, 1.5508,
                 0.4134, -0.0715, 0.5517, -0.3632, -0.1922, -0.9497, 0.2503, -0.2921),
    latent_std=(2.8184, 1.4541, 2.3275, 2.6558, 1.2196, 1.7708, 2.6052, 2.0743,
                3.2687, 2.1526, 2.8652, 1.5579, 1.6382, 1.1253, 2.8251, 1.9160),
)
WAN22 = VAESize(
    width=160, multipliers=(1, 2, 4, 4), resnets_per_level=2, temporal_down=(False, True, True),
    latent_mean=(-0.2289, -0.0052, -0.1323, -0.2339, -0.2799, 0.0174, 0.1838, 0.1557,
                 -0.1382, 0.0542, 0.2813, 0.0891, 0.1570, -0.0098, 0.0375, -0.1825,
                 -0.2246, -0.1207, -0.0698, 0.5109, 0.2665, -0.2108, -0.2158, 0.2502,
                 -0.2055, -0.0322, 0.1109, 0.1567, -0.0729, 0.0899, -0.2799, -0.1230,
                 -0.0313, -0.1649, 0.0117, 0.0723, -0.2839, -0.2083, -0.0520, 0.3748,
                 0.0152, 0.1957, 0.1433, -0.2944, 0.3573, -0.0548, -0.1681, -0.0667),
    latent_std=(0.4765, 1.0364, 0.4514, 1.1677, 0.5313, 0.4990, 0.4818, 0.5013,
                0.8158, 1.0344, 0.5894, 1.0901, 0.6885, 0.6165, 0.8454, 0.4978,
                0.5759, 0.3523, 0.7135, 0.6804, 0.5833, 1.4146, 0.8986, 0.5659,
                0.7069, 0.5338, 0.4889, 0.4917, 0.4069, 0.4999, 0.6866, 0.4093,
                0.5709, 0.6065, 0.6415, 0.4944, 0.5726, 1.2042, 0.5458, 1.6887,
                0.3971, 1.0600, 0.3943, 0.5537, 0.5444, 0.4089, 0.7468, 0.7744),
    generation=GENERATION22,
)
# fmt: on


VAE_SIZES = {"2.1": WAN21, "2.2": WAN22}


class LatentStatistics(Tables):
    """Per-channel normalisation of latents, float32 in any precision."""

    mean: Tensor
    inverse_std: Tensor  # the form that the released code rounds

    def __init__(self, size: VAESize) -> None:
        mean, std = (
            torch.tensor(x, device="cpu")[:, None, None, None] for x in (size.latent_mean, size.latent_std)
        )
        super().__init__(mean=mean, inverse_std=1 / std)

    def normalise(self, latents: Float[Tensor, "b c f h w"]) -> Float[Tensor, "b c f h w"]:
        """Posterior means -> about zero mean and unit variance."""
        return (latents - self.mean) * self.inverse_std

    def restore(self, latents: Float[Tensor, "b c f h w"]) -> Float[Tensor, "b c f h w"]:
        """The inverse of `normalise`."""
        return latents / self.inverse_std + self.mean


class WanVAE(nn.Module):
    """Frozen codec. Freshly constructed it has random weights; `load` reads released ones.

    channels: latent channels. spatial, temporal: pixels (2.1: 8, 2.2: 16) and frames (4; frame 0 stands alone) per
    latent.
    """

    def __init__(self, size: VAESize = WAN21) -> None:
        super().__init__()
        # Imported here: diffusers takes seconds and the small preset never needs it.
        from diffusers.models.autoencoders.autoencoder_kl_wan import AutoencoderKLWan

        self.size, generation = size, size.generation
        self.channels, self.spatial, self.temporal = len(size.latent_mean), size.spatial, size.temporal
        pixel_channels = 3 * generation.patch**2
        self.module = AutoencoderKLWan(
            base_dim=size.width,
            decoder_base_dim=round(size.width * generation.decoder_width),
            z_dim=self.channels,
            dim_mult=list(size.multipliers),
            num_res_blocks=size.resnets_per_level,
            temperal_downsample=list(size.temporal_down),
            latents_mean=list(size.latent_mean),
            latents_std=list(size.latent_std),
            is_residual=generation.residual,
            in_channels=pixel_channels,
            out_channels=pixel_channels,
            patch_size=generation.patch,
            scale_factor_temporal=size.temporal,
            scale_factor_spatial=size.spatial,
        )
        self.statistics = LatentStatistics(size)
        self.requires_grad_(False).eval()

    @classmethod
    def load(cls, path: str | Path, size: VAESize = WAN21) -> WanVAE:
        """Released weights in the file's dtype, memory-mapped: no random weights are built first.

        path: `Wan2.1_VAE.pth` or `Wan2.2_VAE.pth` (official names, also as safetensors), the folder that holds it, or
        a diffusers folder (`vae/` or its parent). Raises BadInput when missing, truncated, or of another kind or size.
        """
        file = _find(local(path), size.generation)
        tensors = {name.removeprefix("model."): tensor for name, tensor in read_tensors(file).items()}
        if "encoder.conv1.weight" in tensors:
            tensors = to_diffusers(tensors, size)
        with torch.device("meta"):
            vae = cls(size)
        load_strict(vae.module, tensors, source=str(file))
        return vae.requires_grad_(False)

    def train(self, mode: bool = True) -> WanVAE:
        """Stays in evaluation mode: the VAE is frozen in every recipe."""
        return super().train(False)

    @property
    def fingerprint(self) -> str:
        """Names the exact codec in a latent cache: a digest of all weights and of the normalisation."""
        return f"wan-vae:{digest(self.module.state_dict().items(), about=repr(self.size))}"

    def still(self) -> StillVAE:
        """The encoder for single frames, without the decoder."""
        return StillVAE(self.module, self.statistics.mean.flatten(), self.statistics.inverse_std.flatten())

    @torch.no_grad()
    def encode(self, video: Float[Tensor, "b 3 t H W"]) -> Float[Tensor, "b c f h w"]:
        """Pixels in [-1, 1] -> normalised posterior mean, f = 1 + (t - 1) / 4, in the weights' dtype.

        Raises BadInput unless t = 1 + 4 n and H, W are multiples of `spatial`.
        """
        frames, height, width = video.shape[2:]
        if (frames - 1) % self.temporal or height % self.spatial or width % self.spatial:
            raise BadInput(
                f"clip of {frames} frames of {height}x{width}: the Wan VAE needs 1, 5, 9, ... frames "
                f"and sides that are multiples of {self.spatial}; change frame_times or the view size"
            )
        clips = max(PIXELS_AT_ONCE // (self.temporal * height * width), 1)
        means = [
            self.module.encode(part, return_dict=False)[0].mean
            for part in video.to(self.module.dtype).split(clips)
        ]
        return self.statistics.normalise(torch.cat(means)).to(self.module.dtype)

    @torch.no_grad()
    def decode(self, latents: Float[Tensor, "b c f h w"]) -> Float[Tensor, "b 3 t H W"]:
        """Normalised latents -> pixels clamped to [-1, 1], t = 1 + 4 (f - 1), in the weights' dtype."""
        raw = self.statistics.restore(latents).to(self.module.dtype)
        return self.module.decode(raw, return_dict=False)[0]


def _find(path: Path, generation: Generation) -> Path:
    """The weight file that `path` means."""
    # The official file comes first: beside it a Wan2.1 download has the video model under diffusers' file name.
    inside = (generation.official_file, f"vae/{DIFFUSERS_FILE}", DIFFUSERS_FILE)
    candidates = (path, *(path / name for name in inside))
    for candidate in candidates:
        if candidate.is_file():
            return candidate
    raise BadInput(
        f"{path}: no {generation.name} VAE; expected {generation.official_file}, the folder that holds it, or a "
        f"diffusers folder with vae/{DIFFUSERS_FILE}. Download it with `{generation.download}` and name FOLDER"
    )


Renames = Iterable[tuple[str, str | Callable[[re.Match[str]], str]]]

_RENAMES: Renames = (
    (r"^conv1\.", "quant_conv."),
    (r"^conv2\.", "post_quant_conv."),
    (r"^(en|de)coder\.conv1\.", r"\1coder.conv_in."),
    (r"\.head\.0\.", ".norm_out."),
    (r"\.head\.2\.", ".conv_out."),
    (r"\.middle\.0\.", ".mid_block.resnets.0."),
    (r"\.middle\.1\.", ".mid_block.attentions.0."),
    (r"\.middle\.2\.", ".mid_block.resnets.1."),
    (r"\.residual\.0\.", ".norm1."),
    (r"\.residual\.2\.", ".conv1."),
    (r"\.residual\.3\.", ".norm2."),
    (r"\.residual\.6\.", ".conv2."),
    (r"\.shortcut\.", ".conv_shortcut."),
)


def _levels21(size: VAESize) -> Renames:
    """Encoder and decoder are flat lists; diffusers nests the decoder's by level.

    A level of the decoder has its resnets (one more than in the encoder) and an upsampler.
    """
    per_level = size.resnets_per_level + 2

    def nest(match: re.Match[str]) -> str:
        level, place = divmod(int(match[1]), per_level)
        part = "upsamplers.0" if place == per_level - 1 else f"resnets.{place}"
        return f".up_blocks.{level}.{part}."

    return ((r"\.downsamples\.(\d+)\.", r".down_blocks.\1."), (r"\.upsamples\.(\d+)\.", nest))


def _levels22(size: VAESize) -> Renames:
    """Both sides nest by level; what changes the resolution comes last in one."""
    level, place = r"\.(down|up)samples\.(\d+)", r"\.(?:down|up)samples\.(\d+)"
    return (
        (rf"{level}{place}\.(resample|time_conv)\.", r".\1_blocks.\2.\1sampler.\4."),
        (rf"{level}{place}\.", r".\1_blocks.\2.resnets.\3."),
    )


def to_diffusers(tensors: Mapping[str, Tensor], size: VAESize = WAN21) -> dict[str, Tensor]:
    """Tensors under the official names -> the same tensors under diffusers' names."""
    return dict(zip(diffusers_names(tensors, size), tensors.values(), strict=True))


def diffusers_names(official: Iterable[str], size: VAESize = WAN21) -> list[str]:
    """diffusers' name of each official name (without leading `model.`), in order."""
    levels = _levels22 if size.generation.residual else _levels21
    names = []
    for name in official:
        for pattern, replacement in (*_RENAMES, *levels(size)):
            name = re.sub(pattern, replacement, name)  # noqa: PLW2901 - renamed in steps
        names.append(name)
    return names
