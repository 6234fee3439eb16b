"""The Wan2.2 VAE: sixteen pixels to a latent, causal, loaded from a diffusers folder, refused under official names."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from safetensors.torch import save_file
from wamkit_client.types import BadInput

from wamkit.wan.vae import VAE_SIZES, WAN21, WAN22, VAESize, WanVAE

TINY = replace(
    WAN22, width=5, latent_mean=(0.3, -0.2, 0.1, 0.0, 0.5, -0.4), latent_std=(0.5, 1.5, 2.0, 1.0, 0.7, 1.2)
)


@pytest.fixture(scope="module")
def vae() -> WanVAE:
    torch.manual_seed(0)
    return WanVAE(TINY)


@pytest.fixture(scope="module")
def video() -> torch.Tensor:
    return torch.rand(2, 3, 9, 32, 64, generator=torch.Generator().manual_seed(0)) * 2 - 1


def test_sizes():
    assert VAE_SIZES == {"2.1": WAN21, "2.2": WAN22}
    assert (WAN21.spatial, WAN21.temporal) == (8, 4)
    assert (WAN22.spatial, WAN22.temporal) == (16, 4)
    assert len(WAN22.latent_mean) == len(WAN22.latent_std) == 48


def test_the_cache_fingerprint_of_the_older_vae_is_what_it_was():
    assert repr(VAESize(1, (1,), 1, (True,), (0.0,), (1.0,))) == (
        "VAESize(width=1, multipliers=(1,), resnets_per_level=1, temporal_down=(True,), latent_mean=(0.0,), "
        "latent_std=(1.0,))"
    )


def test_shapes_both_ways(vae, video):
    latents = vae.encode(video)
    assert latents.shape == (2, 6, 3, 2, 4)
    assert vae.decode(latents).shape == video.shape
    assert (
        vae.module.decoder.conv_in.out_channels == 8 * 4
    )  # 1.6 times the encoder's width, four times at its widest


def test_an_observation_is_the_first_latent_of_its_clip(vae, video):
    whole, now = vae.encode(video), vae.encode(video[:, :, :1])
    assert now.shape[2] == 1
    torch.testing.assert_close(whole[:, :, :1], now, rtol=1e-5, atol=1e-6)
    assert not torch.allclose(whole[:, :, 1:2], now, atol=1e-3)


def test_latents_are_standardised_by_channel(vae, video):
    plain = WanVAE(replace(TINY, latent_mean=(0.0,) * 6, latent_std=(1.0,) * 6))
    plain.load_state_dict(vae.state_dict())
    mean, std = (torch.tensor(x).view(1, 6, 1, 1, 1) for x in (TINY.latent_mean, TINY.latent_std))
    raw = plain.encode(video)
    torch.testing.assert_close(vae.encode(video), (raw - mean) / std)
    torch.testing.assert_close(vae.decode((raw - mean) / std), plain.decode(raw), rtol=0, atol=1e-5)


@pytest.mark.parametrize("shape", [(1, 3, 4, 32, 32), (1, 3, 5, 24, 32), (1, 3, 1, 32, 40)])
def test_refuses_what_diffusers_would_cut(vae, shape):
    with pytest.raises(BadInput, match="multiples of 16"):
        vae.encode(torch.zeros(shape))


def test_loads_a_diffusers_folder(vae, tmp_path):
    (tmp_path / "vae").mkdir()
    save_file(vae.module.state_dict(), tmp_path / "vae" / "diffusion_pytorch_model.safetensors")
    (tmp_path / "Wan2.2_VAE.pth").write_bytes(b"lies beside it and is not needed")
    assert WanVAE.load(tmp_path, TINY).fingerprint == vae.fingerprint
    with pytest.raises(BadInput, match="does not fit"):
        WanVAE.load(tmp_path, replace(TINY, generation=WAN21.generation))


def test_official_names_are_refused_with_what_to_download(tmp_path):
    torch.save({"encoder.conv1.weight": torch.ones(1)}, tmp_path / "Wan2.2_VAE.pth")
    for path in (tmp_path, tmp_path / "Wan2.2_VAE.pth"):
        with pytest.raises(
            BadInput, match=r"cannot be read yet.*hf download Wan-AI/Wan2.2-TI2V-5B-Diffusers"
        ):
            WanVAE.load(path, TINY)


def test_missing_folder_says_what_to_download(tmp_path):
    with pytest.raises(BadInput, match=r"no Wan2.2 VAE.*hf download Wan-AI/Wan2.2-TI2V-5B-Diffusers"):
        WanVAE.load(tmp_path, TINY)
