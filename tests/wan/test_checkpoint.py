"""Released Wan transformers: every known naming loads bit for bit, everything else is explained."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor
from wamkit_client.types import BadInput

from wamkit.nn.lora import add_lora
from wamkit.wan.checkpoint import NAMES, diffusers_names, load_wan, original_names
from wamkit.wan.dit import SIZES, Adapters, WanDiT, WanSize

TINY = WanSize(width=24, ffn=40, heads=2, head_dim=12, layers=2, channels=4, text_dim=10, time_dim=16)
NONE = Adapters(layers=(), dim=4)


def tiny(adapters: Adapters = NONE) -> WanDiT:
    return WanDiT(TINY, adapters)


@pytest.fixture
def released() -> dict[str, Tensor]:
    return {name: torch.randn_like(tensor) for name, tensor in tiny().state_dict().items()}


def equal(dit: WanDiT, tensors: dict[str, Tensor]) -> bool:
    own = dit.state_dict()
    return all(torch.equal(own[name], tensor) for name, tensor in tensors.items())


@pytest.mark.parametrize(
    "prefix", ["", "model.", "model.diffusion_model.", "diffusion_model.", "dit.", "pipe.dit."]
)
def test_original_files(released, tmp_path, prefix):
    file = tmp_path / "diffusion_pytorch_model.safetensors"
    save_file({prefix + name: tensor for name, tensor in released.items()}, file)
    for path in (file, tmp_path):
        dit = tiny()
        load_wan(dit, path)
        assert equal(dit, released)


@pytest.mark.parametrize("archive", [True, False])  # False: as torch wrote before 1.6
def test_torch_file(released, tmp_path, archive):
    torch.save(released, tmp_path / "wan.pth", _use_new_zipfile_serialization=archive)
    dit = tiny()
    load_wan(dit, tmp_path / "wan.pth")
    assert equal(dit, released)


def test_wrapped_diffusers_names(released, tmp_path):
    wrapped = {f"model.{name}": tensor for name, tensor in diffusers_names(released).items()}
    save_file(wrapped, tmp_path / "wan.safetensors")
    dit = tiny()
    load_wan(dit, tmp_path)
    assert equal(dit, released)


def test_loading_without_memory_takes_the_files(released, tmp_path):
    save_file({name: tensor.bfloat16() for name, tensor in released.items()}, tmp_path / "wan.safetensors")
    with torch.device("meta"):
        dit = tiny()
    load_wan(dit, tmp_path)
    assert {tensor.dtype for tensor in dit.state_dict().values()} == {torch.bfloat16}
    # Nothing was copied: every tensor lies where the file is mapped.
    mapped = [line.split() for line in Path("/proc/self/maps").read_text().splitlines()]
    pages = [
        [int(end, 16) for end in line[0].split("-")]
        for line in mapped
        if line[-1].endswith("wan.safetensors")
    ]
    for name, tensor in dit.state_dict().items():
        assert any(begin <= tensor.data_ptr() < end for begin, end in pages), name


def test_diffusers_folder_in_shards(released, tmp_path):
    folder = tmp_path / "transformer"
    folder.mkdir()
    names = sorted(renamed := diffusers_names(released))
    shards = {name: f"model-{i % 2}.safetensors" for i, name in enumerate(names)}
    for shard in set(shards.values()):
        save_file(
            {name: renamed[name].contiguous() for name in names if shards[name] == shard}, folder / shard
        )
    index = folder / "diffusion_pytorch_model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": shards}))
    dit = tiny()
    load_wan(dit, tmp_path)
    assert equal(dit, released)


def test_adapters_and_lora_keep_their_start(released, tmp_path):
    save_file(released, tmp_path / "wan.safetensors")
    dit = tiny(Adapters(layers=(1,), dim=4))
    add_lora(dit, ("blocks.0.self_attn.q", "blocks.1.ffn.2"), rank=2, alpha=4)
    fresh = {name: x.clone() for name, x in dit.state_dict().items() if name not in released}
    assert len(fresh) == 6 + 4
    load_wan(dit, tmp_path)
    assert equal(dit, released) and equal(dit, fresh)


def test_names_are_a_bijection_at_full_size():
    keys = json.loads(
        gzip.decompress((Path(__file__).parents[1] / "golden/lightwam_keys.json.gz").read_bytes())
    )
    prefix = "mixtures.video."
    base = {
        name.removeprefix(prefix): shape
        for name, shape in keys["mot"].items()
        if "lora_" not in name and "wam_adapters" not in name
    }
    with torch.device("meta"):
        dit = WanDiT(SIZES["1.3B"], NONE)
    assert {name: list(x.shape) for name, x in dit.state_dict().items()} == base
    assert len(base) == 825
    renamed = {NAMES.backward(name) for name in base}
    assert len(renamed) == 825
    assert {NAMES.forward(name) for name in renamed} == set(base)


def test_round_trip_of_names(released):
    assert original_names(diffusers_names(released), "memory").keys() == released.keys()


def test_other_networks_and_sizes_are_explained(released, tmp_path):
    file = tmp_path / "wan.safetensors"
    save_file(released, file)
    with pytest.raises(BadInput, match=r"of another shape: patch_embedding.weight \[24, 4, 1, 2, 2\]"):
        load_wan(WanDiT(SIZES["tiny"], NONE), file)
    save_file({name: x for name, x in released.items() if name != "blocks.1.ffn.2.bias"}, file)
    with pytest.raises(BadInput, match=r"1 missing: blocks.1.ffn.2.bias"):
        load_wan(tiny(), file)
    save_file(released | {"img_emb.proj.0.weight": torch.ones(2)}, file)
    with pytest.raises(BadInput, match=r"1 unexpected: img_emb.proj.0.weight"):
        load_wan(tiny(), file)
    save_file(
        diffusers_names(released) | {"condition_embedder.image_embedder.norm1.weight": torch.ones(2)}, file
    )
    with pytest.raises(BadInput, match="image-conditioned"):
        load_wan(tiny(), file)


def test_missing_truncated_and_unsafe_files_are_explained(released, tmp_path):
    with pytest.raises(BadInput, match=r"hf download .*Wan-AI"):
        load_wan(tiny(), tmp_path / "nothing")
    file = tmp_path / "wan.safetensors"
    save_file(released, file)
    file.write_bytes(file.read_bytes()[:-100])
    with pytest.raises(BadInput, match="not a complete safetensors file"):
        load_wan(tiny(), file)
    for archive in (True, False):
        torch.save(released, torch_file := tmp_path / "half.pth", _use_new_zipfile_serialization=archive)
        whole = torch_file.read_bytes()
        for size in (0, 1, 100, len(whole) // 2, len(whole) - 1):
            torch_file.write_bytes(whole[:size])
            with pytest.raises(BadInput, match="not a complete torch file"):
                load_wan(tiny(), torch_file)
    torch_file.write_text("version https://git-lfs.github.com/spec/v1")  # a checkout without its large files
    with pytest.raises(BadInput, match="git lfs pull"):
        load_wan(tiny(), torch_file)
    torch.save({"model": released, "extra": Path("x")}, tmp_path / "wan.pt")
    with pytest.raises(BadInput, match=r"more than tensors and plain containers \(pathlib.PosixPath\)"):
        load_wan(tiny(), tmp_path / "wan.pt")
    torch.save({"state": released}, tmp_path / "nested.pt")
    with pytest.raises(BadInput, match="one flat dict of tensors"):
        load_wan(tiny(), tmp_path / "nested.pt")
    (tmp_path / "two.safetensors").write_bytes(b"")
    with pytest.raises(BadInput, match="name the file itself"):
        load_wan(tiny(), tmp_path)


def test_a_folder_that_lacks_a_shard_or_half_its_index(released, tmp_path):
    index = tmp_path / "model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": dict.fromkeys(released, "model-2.safetensors")}))
    with pytest.raises(BadInput, match=r"model-2.safetensors: no such weight file"):
        load_wan(tiny(), tmp_path)
    for text in (index.read_text()[:40], "[]", '{"weight_map": 3}'):
        index.write_text(text)
        with pytest.raises(BadInput, match="not an index of weight files"):
            load_wan(tiny(), tmp_path)


def test_the_checkpoint_of_another_model(tmp_path):
    save_file({"encoder.conv1.weight": torch.ones(2), "scale": torch.ones(2)}, tmp_path / "vae.safetensors")
    with pytest.raises(
        BadInput, match=r"does not fit WanDiT .* missing: .* 2 unexpected: encoder.conv1.weight, scale"
    ):
        load_wan(tiny(), tmp_path / "vae.safetensors")
