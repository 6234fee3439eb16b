"""Frozen features of LaWAM: DINOv3 as transformers computes it, and coefficients of blocks."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import DINOv3ViTConfig, DINOv3ViTModel
from wamkit_client.types import BadInput

from wamkit.bench.counting import Operations
from wamkit.policies.lawam.features import PLACE, BlockFeaturesConfig, DINOv3Config, DINOv3Size
from wamkit.policies.lawam.fused_features import fused
from wamkit.wan.codec import BlockCodec

SIZE = DINOv3Size(width=16, blocks=3, heads=2, ffn=32, patch=4, registers=2)


def tiny_dinov3(folder: Path) -> DINOv3ViTModel:
    """A tiny DINOv3 as transformers saves it; nothing in it is zero."""
    config = DINOv3ViTConfig(
        hidden_size=16,
        num_hidden_layers=3,
        num_attention_heads=2,
        intermediate_size=32,
        patch_size=4,
        num_register_tokens=2,
    )
    model = DINOv3ViTModel(config).eval()
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    model.save_pretrained(folder)
    return model


def views(*shape: int) -> Tensor:
    return torch.randint(256, (*shape, 3), dtype=torch.uint8)


def test_one_block_less_is_the_state_before_the_last(tmp_path: Path) -> None:
    model, images = tiny_dinov3(tmp_path), views(2, 16, 24)
    features = DINOv3Config(str(tmp_path), SIZE).load()
    mean, std = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
    pixels = ((images / 255 - mean) / std).permute(0, 3, 1, 2)
    states = model(pixels, output_hidden_states=True).hidden_states
    assert len(states) == 4
    expected = F.layer_norm(states[-2][:, 3:], (16,))
    made = features(images)
    assert made.shape == (2, 24, 16) and DINOv3Config("", SIZE).grid(16, 24) == (4, 6)
    torch.testing.assert_close(made, expected, atol=1e-6, rtol=1e-6)
    assert not made.requires_grad


def test_names_of_every_version_of_transformers(tmp_path: Path) -> None:
    tiny_dinov3(tmp_path)
    first = DINOv3Config(str(tmp_path), SIZE).load()
    file = tmp_path / "model.safetensors"
    tensors = load_file(file)
    assert any(".layer.0" in name or name.startswith("layer.0") for name in tensors)
    bare = {name.removeprefix("model."): tensor for name, tensor in tensors.items()}
    for renamed in (bare, {("model." if "layer." in name else "") + name: x for name, x in bare.items()}):
        save_file(renamed, file, {"format": "pt"})
        assert DINOv3Config(str(tmp_path), SIZE).load().fingerprint == first.fingerprint
    save_file({name: x + 1 for name, x in bare.items()}, file, {"format": "pt"})
    assert DINOv3Config(str(tmp_path), SIZE).load().fingerprint != first.fingerprint
    del bare["norm.bias"]
    save_file(bare, file, {"format": "pt"})
    with pytest.raises(BadInput, match=r"1 missing: norm\.bias"):
        DINOv3Config(str(tmp_path), SIZE).load()


def test_a_wrong_folder_is_explained(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match=r"no DINOv3; expected config\.json"):
        DINOv3Config(str(tmp_path)).load()
    tiny_dinov3(tmp_path)
    with pytest.raises(BadInput, match=r"expected a DINOv3 of .*'width': 768.*got .*'width': 16"):
        DINOv3Config(str(tmp_path)).load()
    (tmp_path / "config.json").write_text('{"model_type": "bert"}')
    with pytest.raises(BadInput, match="model_type is 'bert'"):
        DINOv3Config(str(tmp_path)).load()


def test_the_published_size() -> None:
    with torch.device("meta"):
        features = DINOv3Config().build()
    assert sum(parameter.numel() for parameter in features.parameters()) == 85_660_416
    assert not any(parameter.requires_grad for parameter in features.parameters())
    assert (DINOv3Config().dim, DINOv3Config().grid(256, 256)) == (768, (16, 16))
    with pytest.raises(BadInput, match="multiples of the features' patch, 16"):
        DINOv3Config().grid(250, 256)


def test_block_features_are_the_codecs_coefficients_in_another_scale() -> None:
    images = views(2, 16, 24)
    features = BlockFeaturesConfig(27).load()
    codec = BlockCodec()
    pixels = (images / 127.5 - 1).permute(0, 3, 1, 2)[:, :, None]
    latents = (
        codec.encode(pixels)[:, :, 0] * codec.present_std[:, None, None] + codec.present_mean[:, None, None]
    )
    scales = codec.present_basis.norm(dim=1) / features.basis.norm(dim=1)
    own = (images / 127.5 - 1).unflatten(2, (-1, 8)).unflatten(1, (-1, 8)).permute(0, 1, 3, 5, 2, 4)
    unnormed = own.flatten(3).flatten(1, 2) @ features.basis.T
    sizes = (unnormed * scales).square().sum(-1)
    torch.testing.assert_close(sizes, latents.square().sum(1).flatten(1), rtol=1e-4, atol=1e-4)
    made = features(images)
    assert made.shape == (2, 6, 27 + PLACE) and BlockFeaturesConfig(27).grid(16, 24) == (2, 3)
    assert BlockFeaturesConfig(27).dim == 27 + PLACE
    # the norm moves and scales what is known already
    own, expected = (x[..., :27] - x[..., :27].mean(-1, keepdim=True) for x in (made, unnormed))
    torch.testing.assert_close(F.normalize(own, dim=-1), F.normalize(expected, dim=-1), atol=1e-5, rtol=1e-4)


def test_block_features_say_where_a_token_is() -> None:
    made = BlockFeaturesConfig(27).load()(torch.zeros(1, 32, 24, 3, dtype=torch.uint8))[0]
    assert torch.cdist(made, made).fill_diagonal_(1).min() > 0.1


@pytest.mark.parametrize("coefficients", [27, 64, 192])
def test_block_features_span_what_they_keep(coefficients: int) -> None:
    basis = F.normalize(BlockFeaturesConfig(coefficients).load().basis)
    torch.testing.assert_close(basis @ basis.T, torch.eye(coefficients), atol=1e-5, rtol=0)
    with pytest.raises(BadInput, match=r"policy\.features\.coefficients: expected from 1 to 192"):
        BlockFeaturesConfig(193)


def test_merged_blocks_are_one_token_each() -> None:
    images = views(2, 32, 16)
    one, four = BlockFeaturesConfig(27), BlockFeaturesConfig(27, merge=2)
    assert four.dim == 4 * 27 + PLACE and four.grid(32, 16) == (2, 1)
    made = four.load()(images)
    assert made.shape == (2, 2, 108 + PLACE)
    corner = four.load().basis @ ((images[:, :8, :8] / 127.5 - 1).permute(0, 3, 1, 2).flatten(1)).T
    ratio = made[:, 0, :27] - made[:, 0, :27].mean(1, keepdim=True)
    expected = corner.T - corner.T.mean(1, keepdim=True)
    assert one.grid(32, 16) == (4, 2)
    assert torch.cosine_similarity(ratio, expected).min() > 1 - 1e-6


@torch.inference_mode()
def test_fused_dinov3_is_the_same_in_half_the_operations(tmp_path: Path) -> None:
    tiny_dinov3(tmp_path)
    features, images = DINOv3Config(str(tmp_path), SIZE).load(), views(3, 16, 24)
    made = fused(features, 16, 24, None)
    torch.testing.assert_close(
        made(images), features(images), rtol=0, atol=1e-5 * float(features(images).max())
    )
    exact = features.double()(images)
    torch.testing.assert_close(fused(features, 16, 24, None)(images).double(), exact, rtol=0, atol=1e-5)
    half = fused(features, 16, 24, torch.bfloat16)(images)  # transformers' own takes no bfloat16 here
    assert half.dtype == torch.float32 and 0 < float((half - exact).square().mean()) ** 0.5 < 0.03


@torch.inference_mode()
def test_fused_dinov3_at_full_size() -> None:
    with torch.device("meta"):
        features = DINOv3Config().build()
        features.pixel_scale.to("meta")
    images = torch.zeros(1, 256, 256, 3, dtype=torch.uint8, device="meta")
    made, counts = fused(features.to("meta"), 256, 256, None), []
    for one in (features, made):
        with Operations() as counted:
            assert one(images).shape == (1, 256, 768)
        counts.append(counted.total())
    assert counts[1] <= 150 < counts[0]


@pytest.mark.parametrize("merge", [1, 2])
def test_fused_block_features_are_the_same(merge: int) -> None:
    features, images = BlockFeaturesConfig(27, merge).load(), views(3, 16, 32)
    torch.testing.assert_close(fused(features, 16, 32, None)(images), features(images), rtol=0, atol=1e-5)
