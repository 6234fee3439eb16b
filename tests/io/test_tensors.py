"""Tensor files and strict loading."""

from __future__ import annotations

import functools
import hashlib
import os
import subprocess
from argparse import Namespace
from collections import defaultdict
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save
from torch import nn
from wamkit_client.types import BadInput

from wamkit.io.files import sha256
from wamkit.io.tensors import (
    DTYPES,
    Blank,
    digest,
    load_strict,
    not_finite,
    read_tensors,
    read_torch,
    read_torch_blanked,
    write_tensors,
)


def test_a_filled_module_keeps_its_dtype_and_a_meta_module_takes_the_files():
    tensors = {"weight": torch.randn(3, 2).bfloat16(), "bias": torch.randn(3).bfloat16()}
    filled = nn.Linear(2, 3)
    load_strict(filled, tensors, "memory")
    assert filled.weight.dtype == torch.float32 and torch.equal(filled.weight, tensors["weight"].float())
    empty = nn.Linear(2, 3, device="meta").requires_grad_(False)
    load_strict(empty, tensors, "memory")
    assert empty.weight.dtype == torch.bfloat16 and torch.equal(empty.weight, tensors["weight"])
    assert not empty.weight.requires_grad


def test_only_named_tensors_may_stay_fresh():
    model = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2))
    tensors = {"0.weight": torch.zeros(2, 2), "0.bias": torch.zeros(2), "1.bias": torch.zeros(2)}
    with pytest.raises(
        BadInput, match=r"file\.pt: does not fit Sequential \(4 tensors\): 1 missing: 1\.weight"
    ):
        load_strict(model, tensors, "file.pt", fresh=(r"1\.w", r"weight"))
    assert model[1].bias.abs().sum() > 0  # nothing was loaded
    load_strict(model, tensors, "file.pt", fresh=(r"1\.weight",))
    assert model[1].bias.abs().sum() == 0


def test_all_misfits_are_told_at_once():
    tensors = {"weight": torch.zeros(2, 2), "scale": torch.zeros(1)}
    with pytest.raises(BadInput) as error:
        load_strict(nn.Linear(2, 3), tensors, "file.pt")
    for part in ("1 missing: bias", "1 unexpected: scale", "weight [2, 2] instead of [3, 2]"):
        assert part in str(error.value)


def test_misfits_are_told_by_the_part_of_the_file_that_they_are_in():
    model = nn.Linear(2, 2)
    with pytest.raises(BadInput, match=r"1 missing in head: bias; 1 unexpected in body: extra"):
        groups = {"bias": "head", "extra": "body"}
        tensors = {"weight": torch.zeros(2, 2), "extra": torch.zeros(1)}
        load_strict(model, tensors, "file.pt", group=groups.__getitem__)


def test_digest_sees_names_values_shapes_and_dtypes():
    base = {"a": torch.zeros(2, 3), "b": torch.ones(1)}
    others = [
        {"b": base["a"], "a": base["b"]},
        base | {"a": torch.zeros(3, 2)},
        base | {"a": torch.zeros(2, 3).half()},
        base | {"b": torch.ones(1) + 1e-6},
    ]
    assert len({digest(x.items()) for x in (base, *others)}) == 5
    assert digest(reversed(base.items())) == digest(base.items()) != digest(base.items(), about="x")
    assert digest({"a": torch.zeros(3, 2).T, "b": base["b"]}.items()) == digest(base.items())


def test_missing_file():
    for name in ("nothing.safetensors", "nothing.pt"):
        with pytest.raises(BadInput, match=rf"{name}: no such weight file"):
            read_tensors(Path(name))


POINTER = f"version https://git-lfs.github.com/spec/v1\noid sha256:{'0' * 64}\nsize 3721512345\n"


@pytest.mark.parametrize("name", ["model.safetensors", "Wan2.1_VAE.pth", "x.safetensors.index.json"])
def test_a_git_lfs_pointer_is_told_from_a_broken_file(tmp_path: Path, name: str) -> None:
    file = tmp_path / name
    file.write_text(POINTER)
    with pytest.raises(BadInput, match=rf"{name}: is a Git LFS pointer.*run `git lfs pull`"):
        read_tensors(tmp_path if file.suffix == ".json" else file)


def test_a_written_file_is_the_librarys_byte_for_byte(tmp_path: Path) -> None:
    odd = (torch.arange(15).reshape(3, 5) % 2).T  # not contiguous
    tensors = {
        f"{dtype}": odd.to(dtype) for dtype in (torch.float32, torch.int64, torch.bfloat16, torch.bool)
    }
    tensors |= {
        "scalar": torch.tensor(3.5),
        "none": torch.zeros(0, 4),
        "größe": torch.ones(7, dtype=torch.uint8),
    }
    file = tmp_path / "x.safetensors"
    sha = write_tensors(file, tensors)
    assert file.read_bytes() == save(
        {name: tensor.contiguous() for name, tensor in tensors.items()}, metadata={"format": "pt"}
    )
    assert sha == hashlib.sha256(file.read_bytes()).hexdigest() == sha256(file)
    assert [path.name for path in tmp_path.iterdir()] == ["x.safetensors"]


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_every_dtype_comes_back(tmp_path: Path, dtype: torch.dtype) -> None:
    tensor = torch.tensor([[0, 1], [1, 0]]).to(dtype)
    write_tensors(tmp_path / "x.safetensors", {"x": tensor})
    found = read_tensors(tmp_path / "x.safetensors")["x"]
    assert found.dtype == dtype and torch.equal(found, tensor)


def test_a_write_that_fails_leaves_the_file_that_was_there(tmp_path: Path) -> None:
    file = tmp_path / "x.safetensors"
    write_tensors(file, {"x": torch.ones(2)})
    with pytest.raises(RuntimeError):  # a tensor on the meta device has no bytes
        write_tensors(file, {"x": torch.ones(2), "y": torch.ones(2, device="meta")})
    assert torch.equal(read_tensors(file)["x"], torch.ones(2))
    assert [path.name for path in tmp_path.iterdir()] == ["x.safetensors"]


def test_tensors_that_are_not_finite_are_named() -> None:
    tensors = {
        "a": torch.ones(3),
        "b": torch.tensor([1.0, torch.nan]),
        "c": torch.tensor([-torch.inf]).bfloat16(),
    }
    assert not_finite(tensors | {"n": torch.arange(3), "empty": torch.zeros(0)}) == ["b", "c"]


class Marks:
    """Unpickled by anything but a safe reader, it makes a folder."""

    def __init__(self, function: Any, folder: Path) -> None:
        self.call = function, (["mkdir", str(folder)],)

    def __reduce__(self) -> Any:
        return self.call


def test_objects_beside_tensors_are_left_blank_and_never_made(tmp_path: Path) -> None:
    """As training frameworks write them. Fails where the file's own code is called."""
    path, tensors = tmp_path / "a.ckpt", {"a": torch.randn(3), "b": torch.randn(2).bfloat16()}
    beside = {
        "class": torch.optim.AdamW,
        "call": functools.partial(torch.optim.AdamW, lr=1.0),
        "object": Namespace(model=nn.Linear(2, 2)),
        "marks": Marks(subprocess.check_call, tmp_path / "made"),
    }
    torch.save({"state_dict": tensors, "global_step": 3, **beside}, path)
    with pytest.raises(BadInput, match=r"a\.ckpt: holds more than tensors and plain containers"):
        read_torch(path)
    found = read_torch_blanked(path)
    assert found["global_step"] == 3 and all(
        torch.equal(found["state_dict"][n], x) for n, x in tensors.items()
    )
    assert found["class"] is Blank and all(
        isinstance(found[name], Blank) for name in ("call", "object", "marks")
    )
    assert not (tmp_path / "made").exists()
    with pytest.raises(BadInput, match="holds more than tensors"):  # blanks are of one call
        read_torch(path)


def test_what_cannot_be_left_blank_is_told(tmp_path: Path) -> None:
    path = tmp_path / "a.ckpt"
    torch.save({"state_dict": {}, "beside": defaultdict(list, {"a": [1]})}, path)
    with pytest.raises(
        BadInput, match=r"holds objects beside its tensors that cannot be read without their code"
    ):
        read_torch_blanked(path)
    torch.save({"state_dict": {}, "beside": Marks(os.system, tmp_path)}, path)
    with pytest.raises(BadInput, match=r"holds more than tensors and plain containers \(posix\.system\)"):
        read_torch_blanked(path)
    path.write_bytes(path.read_bytes()[:200])
    with pytest.raises(BadInput, match="not a complete torch file"):
        read_torch_blanked(path)
    with pytest.raises(BadInput, match="no such weight file"):
        read_torch_blanked(tmp_path / "none.ckpt")
