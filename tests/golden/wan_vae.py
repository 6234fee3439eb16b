"""The Wan2.1 VAE against vectors of the official module. Every dimension comes from the JSON beside the file."""

from __future__ import annotations

import torch

from tests.golden.compare import FORWARD, Golden, Row
from wamkit.wan.vae import VAESize, WanVAE, to_diffusers


def golden_vae(golden: Golden, brightness: float = 1.0) -> WanVAE:
    """The VAE of the file's config and weights; brightness scales the last layer of the decoder."""
    about = golden.about["config"]
    size = VAESize(
        width=about["dim"],
        multipliers=tuple(about["dim_mult"]),
        resnets_per_level=about["num_res_blocks"],
        temporal_down=tuple(about["temporal_downsample"]),
        latent_mean=tuple(golden.tensors["inputs/latent_mean"].tolist()),
        latent_std=tuple(golden.tensors["inputs/latent_std"].tolist()),
    )
    official = golden.section("params/")
    official |= {name: x * brightness for name, x in official.items() if name.startswith("decoder.head.2.")}
    vae = WanVAE(size)
    vae.module.load_state_dict(to_diffusers(official, size))
    return vae


def wan_vae_rows(golden: Golden) -> list[Row]:
    """Encode a clip, encode its first frame alone, decode the clip."""
    vae, video = golden_vae(golden), golden.tensors["inputs/video"]
    with torch.no_grad():
        golden.record("encode clip", vae.encode(video), golden.tensors["encode/9frames"], FORWARD)
        first = vae.encode(video[:, :, :1])
        golden.record("encode first frame", first, golden.tensors["encode/first_frame_only"], FORWARD)
        # A quarter of the last layer (exact in binary) keeps the picture inside the clamp: all of it is compared.
        dim = golden_vae(golden, brightness=0.25)
        decoded = 4 * dim.decode(golden.tensors["encode/9frames"])
        golden.record("decode clip", decoded, golden.tensors["decode/9frames"], FORWARD)
    return golden.rows
