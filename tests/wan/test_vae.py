"""The Wan2.1 VAE: golden vectors, official names at full size, causality, refusals."""

from __future__ import annotations

import gzip
import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from wamkit_client.types import BadInput

from wamkit.wan.vae import WAN21, VAESize, WanVAE, diffusers_names, to_diffusers

GOLDEN = Path(__file__).parents[1] / "golden"


@pytest.fixture(scope="module")
def golden() -> dict[str, torch.Tensor]:
    return load_file(GOLDEN / "lightwam_vae_seed1.safetensors")


@pytest.fixture(scope="module")
def tiny_size(golden) -> VAESize:
    return VAESize(
        width=4,
        multipliers=(1, 2, 4, 4),
        resnets_per_level=2,
        temporal_down=(False, True, True),
        latent_mean=tuple(golden["inputs/latent_mean"].tolist()),
        latent_std=tuple(golden["inputs/latent_std"].tolist()),
    )


@pytest.fixture(scope="module")
def official(golden) -> dict[str, torch.Tensor]:
    return {k.removeprefix("params/"): v for k, v in golden.items() if k.startswith("params/")}


@pytest.fixture(scope="module")
def vae(official, tiny_size, tmp_path_factory) -> WanVAE:
    folder = tmp_path_factory.mktemp("vae")
    torch.save(official, folder / "Wan2.1_VAE.pth")
    return WanVAE.load(folder, tiny_size)


def relative(got: torch.Tensor, expected: torch.Tensor) -> float:
    return ((got - expected).abs().max() / expected.abs().max()).item()


def test_encodes_the_golden_clip(vae, golden):
    assert relative(vae.encode(golden["inputs/video"]), golden["encode/9frames"]) < 2e-6


def test_encodes_the_golden_first_frame(vae, golden):
    latents = vae.encode(golden["inputs/video"][:, :, :1])
    assert relative(latents, golden["encode/first_frame_only"]) < 2e-6


def test_an_observation_is_the_first_latent_of_its_clip(vae, golden):
    video = golden["inputs/video"]
    assert relative(vae.encode(video)[:, :, :1], vae.encode(video[:, :, :1])) < 1e-6


def test_a_latent_depends_on_no_later_frame(vae, golden):
    video = golden["inputs/video"].clone()
    before = vae.encode(video)
    video[:, :, 5:] = 0
    after = vae.encode(video)
    assert relative(after[:, :, :2], before[:, :, :2]) < 1e-6
    assert relative(after[:, :, 2], before[:, :, 2]) > 1e-2


def test_decodes_the_golden_latents(vae, official, golden, tiny_size, tmp_path):
    # A quarter of the last layer (exact in binary) keeps the picture inside the clamp: all of it is compared.
    quarter = {k: v / 4 if k.startswith("decoder.head.2.") else v for k, v in official.items()}
    torch.save(quarter, tmp_path / "Wan2.1_VAE.pth")
    small = WanVAE.load(tmp_path, tiny_size)
    assert relative(small.decode(golden["encode/9frames"]) * 4, golden["decode/9frames"]) < 2e-6
    clamped = vae.decode(golden["encode/9frames"])
    torch.testing.assert_close(clamped, golden["decode/9frames"].clamp(-1, 1), rtol=0, atol=5e-6)
    assert clamped.abs().max() == 1


def test_batches_are_independent(vae, golden):
    video = golden["inputs/video"]
    both = vae.encode(torch.cat([video.flip(-1), video]))
    assert relative(both[1:], vae.encode(video)) < 2e-6


def test_official_names_and_counts_at_full_size():
    published = json.loads(gzip.decompress((GOLDEN / "lightwam_keys.json.gz").read_bytes()))["vae"]
    with torch.device("meta"):
        vae = WanVAE()
    own = {name: list(tensor.shape) for name, tensor in vae.module.state_dict().items()}
    assert dict(zip(diffusers_names(published), published.values(), strict=True)) == own

    counts = {name: part.numel() for name, part in vae.named_parameters()}
    encoder = sum(
        n for name, n in counts.items() if name.startswith(("module.encoder.", "module.quant_conv."))
    )
    assert encoder == 53_596_928
    assert sum(counts.values()) - encoder == 73_295_603
    assert sum(counts.values()) == 126_892_531
    assert vae.channels == len(WAN21.latent_std) == 16


def test_loads_the_same_weights_from_every_layout(vae, official, tiny_size, tmp_path):
    (tmp_path / "vae").mkdir()
    save_file(to_diffusers(official, tiny_size), tmp_path / "vae" / "diffusion_pytorch_model.safetensors")
    save_file({f"model.{k}": v for k, v in official.items()}, tmp_path / "prefixed.safetensors")
    for path in (tmp_path, tmp_path / "vae", tmp_path / "prefixed.safetensors"):
        assert WanVAE.load(path, tiny_size).fingerprint == vae.fingerprint


def test_loading_builds_no_random_weights(official, tiny_size, tmp_path):
    torch.save({name: x.bfloat16() for name, x in official.items()}, tmp_path / "Wan2.1_VAE.pth")
    state = torch.get_rng_state()
    loaded = WanVAE.load(tmp_path, tiny_size)
    assert torch.equal(torch.get_rng_state(), state)
    assert {x.dtype for x in loaded.parameters()} == {torch.bfloat16}
    assert {x.device.type for x in (*loaded.parameters(), *loaded.buffers())} == {"cpu"}
    assert all(name.startswith("module.") for name in loaded.state_dict())  # latent statistics are no weights


def test_fingerprint_follows_weights_and_statistics(vae, official, tiny_size, tmp_path):
    official = dict(official) | {"conv2.bias": official["conv2.bias"] + 1e-3}
    torch.save(official, tmp_path / "Wan2.1_VAE.pth")
    assert WanVAE.load(tmp_path, tiny_size).fingerprint != vae.fingerprint


def test_stays_frozen(vae):
    vae.train()
    assert not vae.training and not vae.module.training
    assert not any(p.requires_grad for p in vae.parameters())


def test_dtype_follows_the_weights(official, tiny_size, golden, tmp_path):
    torch.save({k: v.bfloat16() for k, v in official.items()}, tmp_path / "Wan2.1_VAE.pth")
    vae = WanVAE.load(tmp_path, tiny_size)
    latents = vae.encode(golden["inputs/video"])
    assert latents.dtype == torch.bfloat16
    assert relative(latents.float(), golden["encode/9frames"]) < 0.1


@pytest.mark.parametrize("shape", [(1, 3, 4, 16, 16), (1, 3, 5, 12, 16), (1, 3, 1, 16, 20)])
def test_refuses_what_diffusers_would_cut(vae, shape):
    with pytest.raises(BadInput, match="multiples of 8"):
        vae.encode(torch.zeros(shape))


def test_missing_file_says_what_to_download(tiny_size, tmp_path):
    with pytest.raises(BadInput, match=r"hf download Wan-AI/Wan2.1-T2V-1.3B Wan2.1_VAE.pth"):
        WanVAE.load(tmp_path, tiny_size)


def test_wrong_or_broken_files_are_explained(official, tiny_size, tmp_path):
    file = tmp_path / "Wan2.1_VAE.pth"
    torch.save({k: v for k, v in official.items() if k != "conv2.bias"}, file)
    with pytest.raises(BadInput, match=r"1 missing: post_quant_conv.bias"):
        WanVAE.load(file, tiny_size)
    torch.save(official, file)
    with pytest.raises(BadInput, match="of another shape"):
        WanVAE.load(file, replace(tiny_size, width=8))
    file.write_bytes(file.read_bytes()[:20_000])
    with pytest.raises(BadInput, match="not a complete torch file"):
        WanVAE.load(file, tiny_size)


def test_memory_does_not_grow_with_the_batch(vae, golden, monkeypatch):
    """A batch that is too large at once goes through in parts."""
    video = torch.cat([golden["inputs/video"], golden["inputs/video"].flip(-1), golden["inputs/video"]])
    whole, parts = vae.encode(video), []
    encode = vae.module._encode
    monkeypatch.setattr(vae.module, "_encode", lambda x: parts.append(len(x)) or encode(x))
    monkeypatch.setattr("wamkit.wan.vae.PIXELS_AT_ONCE", 2 * 4 * video.shape[3] * video.shape[4])
    assert relative(vae.encode(video), whole) < 2e-6
    assert parts == [2, 1]
