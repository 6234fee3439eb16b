"""The Wan2.1 video VAE behind the codec interface: pixels in, normalised posterior means out, and back.

diffusers' `AutoencoderKLWan` is the module; this file adds the per-channel normalisation, the names of the
official weight file and the checks that diffusers lacks (it drops frames that do not fill a group of four).
The encoder is causal in time: the first latent of a clip equals the latent of its first frame alone.
Knows nothing of canvases, pooling or policies. Not safe to share between threads: diffusers keeps its causal
memory on the module during a call.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor, nn
from wamkit_client.types import BadInput

from wamkit.nn.weights import digest, load_strict, read_tensors

OFFICIAL_FILE = "Wan2.1_VAE.pth"
DOWNLOAD = "hf download Wan-AI/Wan2.1-T2V-1.3B Wan2.1_VAE.pth --local-dir FOLDER"


@dataclass(frozen=True)
class VAESize:
    """Widths of a Wan2.1-style VAE and the statistics of its latents, one mean and deviation per channel."""

    width: int
    multipliers: tuple[int, ...]
    resnets_per_level: int
    temporal_down: tuple[bool, ...]
    latent_mean: tuple[float, ...]
    latent_std: tuple[float, ...]


# fmt: off
WAN21 = VAESize(
    width=96, multipliers=(1, 2, 4, 4), resnets_per_level=2, temporal_down=(False, True, True),
    latent_mean=(-0.7571, -0.7089, -0.9113, 0.1075, -0.1745, 0.9653, -0.1517, 1.5508,
                 0.4134, -0.0715, 0.5517, -0.3632, -0.1922, -0.9497, 0.2503, -0.2921),
    latent_std=(2.8184, 1.4541, 2.3275, 2.6558, 1.2196, 1.7708, 2.6052, 2.0743,
                3.2687, 2.1526, 2.8652, 1.5579, 1.6382, 1.1253, 2.8251, 1.9160),
)
# fmt: on


VAE_SIZES = {"2.1": WAN21}


class WanVAE(nn.Module):
    """Frozen codec. Freshly constructed it has random weights; `load` reads released ones.

    channels: latent channels. spatial, temporal: pixels (8) and frames (4; frame 0 stands alone) per latent.
    """

    spatial = 8
    temporal = 4

    def __init__(self, size: VAESize = WAN21) -> None:
        super().__init__()
        # Imported here: diffusers takes seconds and the small preset never needs it.
        from diffusers.models.autoencoders.autoencoder_kl_wan import AutoencoderKLWan

        self.size = size
        self.channels = len(size.latent_mean)
        self.module = AutoencoderKLWan(
            base_dim=size.width,
            z_dim=self.channels,
            dim_mult=list(size.multipliers),
            num_res_blocks=size.resnets_per_level,
            temperal_downsample=list(size.temporal_down),
            latents_mean=list(size.latent_mean),
            latents_std=list(size.latent_std),
        )
        self.requires_grad_(False).eval()

    @classmethod
    def load(cls, path: str | Path, size: VAESize = WAN21) -> WanVAE:
        """Released weights in the file's dtype.

        path: `Wan2.1_VAE.pth` (official names, also as safetensors), the folder that holds it, or a diffusers
        folder (`vae/` or its parent). Raises BadInput when missing, truncated or of another kind or size.
        """
        file = _find(Path(path))
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

    @torch.no_grad()
    def encode(self, video: Float[Tensor, "b 3 t H W"]) -> Float[Tensor, "b c f h w"]:
        """Pixels in [-1, 1] -> normalised posterior mean, f = 1 + (t - 1) / 4, in the weights' dtype.

        Raises BadInput unless t = 1 + 4 n and H, W are multiples of 8.
        """
        frames, height, width = video.shape[2:]
        if (frames - 1) % self.temporal or height % self.spatial or width % self.spatial:
            raise BadInput(
                f"clip of {frames} frames of {height}x{width}: the Wan VAE needs 1, 5, 9, ... frames "
                f"and sides that are multiples of {self.spatial}; change frame_times or the view size"
            )
        posterior = self.module.encode(video.to(self.module.dtype), return_dict=False)[0]
        mean, inverse_std = self._statistics(video.device)
        return ((posterior.mean - mean) * inverse_std).to(self.module.dtype)

    @torch.no_grad()
    def decode(self, latents: Float[Tensor, "b c f h w"]) -> Float[Tensor, "b 3 t H W"]:
        """Normalised latents -> pixels clamped to [-1, 1], t = 1 + 4 (f - 1), in the weights' dtype."""
        mean, inverse_std = self._statistics(latents.device)
        raw = latents / inverse_std + mean
        return self.module.decode(raw.to(self.module.dtype), return_dict=False)[0]

    def _statistics(self, device: torch.device) -> tuple[Tensor, Tensor]:
        """Mean and 1 / deviation (the form that the released code rounds); float32 in any precision."""
        shape = (1, self.channels, 1, 1, 1)
        mean, std = (
            torch.tensor(x, device=device).view(shape) for x in (self.size.latent_mean, self.size.latent_std)
        )
        return mean, 1 / std


def _find(path: Path) -> Path:
    """The weight file that `path` means."""
    diffusers_file = "diffusion_pytorch_model.safetensors"
    candidates = (path, path / OFFICIAL_FILE, path / diffusers_file, path / "vae" / diffusers_file)
    for candidate in candidates:
        if candidate.is_file():
            return candidate
    raise BadInput(
        f"{path}: no Wan2.1 VAE; expected {OFFICIAL_FILE} or a diffusers folder with "
        f"vae/diffusion_pytorch_model.safetensors. Download it with `{DOWNLOAD}` and name FOLDER"
    )


_RENAMES = tuple(
    (re.compile(pattern), replacement)
    for pattern, replacement in (
        (r"^conv1\.", "quant_conv."),
        (r"^conv2\.", "post_quant_conv."),
        (r"^(en|de)coder\.conv1\.", r"\1coder.conv_in."),
        (r"\.head\.0\.", ".norm_out."),
        (r"\.head\.2\.", ".conv_out."),
        (r"\.middle\.([02])\.", lambda match: f".mid_block.resnets.{int(match[1]) // 2}."),
        (r"\.middle\.1\.", ".mid_block.attentions.0."),
        (r"\.downsamples\.(\d+)\.", r".down_blocks.\1."),
        (r"\.residual\.0\.", ".norm1."),
        (r"\.residual\.2\.", ".conv1."),
        (r"\.residual\.3\.", ".norm2."),
        (r"\.residual\.6\.", ".conv2."),
        (r"\.shortcut\.", ".conv_shortcut."),
    )
)


def to_diffusers(tensors: Mapping[str, Tensor], size: VAESize = WAN21) -> dict[str, Tensor]:
    """Tensors under the official Wan2.1 names -> the same tensors under diffusers' names."""
    return dict(zip(diffusers_names(tensors, size), tensors.values(), strict=True))


def diffusers_names(official: Iterable[str], size: VAESize = WAN21) -> list[str]:
    """diffusers' name of each official name (without leading `model.`), in order.

    The official decoder is one flat list in which each level has its resnets (one more than in the encoder)
    and an upsampler; diffusers nests them by level.
    """
    per_level = size.resnets_per_level + 2

    def nest(match: re.Match[str]) -> str:
        level, place = divmod(int(match[1]), per_level)
        part = "upsamplers.0" if place == per_level - 1 else f"resnets.{place}"
        return f".up_blocks.{level}.{part}."

    names = []
    for name in official:
        for pattern, replacement in (*_RENAMES, (re.compile(r"\.upsamples\.(\d+)\."), nest)):
            name = pattern.sub(replacement, name)  # noqa: PLW2901 - renamed in steps
        names.append(name)
    return names
