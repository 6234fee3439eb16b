"""Tensor files in and out, strict loading: one explained error instead of a silently random layer.

Writes `.safetensors`. Reads them, `.pt`/`.pth`/`.bin` (only as plain tensors, never arbitrary pickles), folders with a
safetensors index, and torch dicts of several sections (Envelope). Does not know any model's names; they stand in
`wan/checkpoint.py` and the policies' `convert.py`.
"""

from __future__ import annotations

import hashlib
import json
import pickle
import re
import struct
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn
from wamkit_client.types import BadInput

from wamkit.io.files import refuse_pointer, replacing
from wamkit.io.renaming import Renaming

INDEX = ".safetensors.index.json"
DTYPES = {
    torch.bool: "BOOL",
    torch.uint8: "U8",
    torch.uint16: "U16",
    torch.uint32: "U32",
    torch.uint64: "U64",
    torch.int8: "I8",
    torch.int16: "I16",
    torch.int32: "I32",
    torch.int64: "I64",
    torch.bfloat16: "BF16",
    torch.float16: "F16",
    torch.float32: "F32",
    torch.float64: "F64",
    torch.float8_e4m3fn: "F8_E4M3",
    torch.float8_e5m2: "F8_E5M2",
}
"""What safetensors calls them."""
TYPES = {name: dtype for dtype, name in DTYPES.items()}


def read_tensors(path: Path) -> dict[str, Tensor]:
    """All tensors of a weight file, memory-mapped on the CPU, by name.

    `path` is a `.safetensors` file, a torch file that holds one flat dict of tensors, or a folder with one
    `*.safetensors.index.json` (shards beside it) or exactly one `*.safetensors` file.
    Raises BadInput when it is missing, truncated, not a weight file or ambiguous.
    """
    if path.is_dir():
        return _read_folder(path)
    if path.suffix == ".safetensors":
        return _read_safetensors(path)
    payload = read_torch(path)
    if not isinstance(payload, dict) or not all(isinstance(value, Tensor) for value in payload.values()):
        raise BadInput(f"{path}: expected one flat dict of tensors; got something nested; name another file")
    return payload


def write_tensors(path: Path, tensors: Mapping[str, Tensor]) -> str:
    """A `.safetensors` file, whole or absent, byte for byte the library's; its sha256.

    Unlike the library it holds one tensor at a time in memory, besides those that lie on the CPU already.
    """
    # Wide elements first, so that each tensor is aligned to its own.
    named = sorted(tensors.items(), key=lambda item: (-item[1].element_size(), item[0]))
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    end = 0
    for name, tensor in named:
        place = [end, end + tensor.nbytes]
        header[name] = {"dtype": DTYPES[tensor.dtype], "shape": list(tensor.shape), "data_offsets": place}
        end += tensor.nbytes
    text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-len(text) % 8)
    pieces: Iterator[bytes | memoryview] = chain(
        [struct.pack("<Q", len(text)), text], (_bytes(tensor) for _, tensor in named)
    )
    sha = hashlib.sha256()
    with replacing(path) as file:
        for data in pieces:
            file.write(data)
            sha.update(data)
    return sha.hexdigest()


def write_torch(path: Path, payload: Any) -> None:
    """`torch.save`, whole or not at all. OSError where the disk refuses, which torch.save itself may hide."""
    try:
        with replacing(path) as file:
            torch.save(payload, file)
    except RuntimeError as error:
        if isinstance(error.__context__, OSError):
            raise error.__context__ from None
        raise


def not_finite(tensors: Mapping[str, Tensor]) -> list[str]:
    """The names of those that hold NaN or infinity."""
    # A finite sum has finite terms, and takes a sixth of the time; that of large numbers may overflow.
    suspects = {name: tensor for name, tensor in tensors.items() if not tensor.sum().isfinite()}
    return [name for name, tensor in suspects.items() if not tensor.isfinite().all()]


def read_torch(path: Path) -> Any:
    """What `torch.save` wrote to `path`: tensors and plain containers only (`weights_only=True`).

    Memory-mapped, except that a file from before torch 1.6 (no zip archive) is read into memory.
    """
    if not path.is_file():
        raise BadInput(f"{path}: no such weight file")
    refuse_pointer(path)
    with path.open("rb") as file:
        is_archive = file.read(2) == b"PK"
    try:
        return torch.load(path, map_location="cpu", weights_only=True, mmap=is_archive)
    except (RuntimeError, EOFError, ValueError, LookupError, OSError, struct.error) as error:
        reason = (str(error) or type(error).__name__).splitlines()[0]
    except pickle.UnpicklingError as error:
        # torch's own words begin with the advice to read the file unsafely.
        if found := re.search(r"GLOBAL (\S+)", str(error)):
            raise BadInput(
                f"{path}: holds more than tensors and plain containers ({found[1]}) and is refused: it could run code; "
                "save it again as a plain dict of tensors"
            ) from None
        if "Can only" in str(error):
            raise BadInput(
                f"{path}: holds objects beside its tensors that cannot be read without their code; save its tensors "
                "again as a plain dict"
            ) from None
        reason = "its contents make no sense"
    raise BadInput(f"{path}: not a complete torch file ({reason}); download or copy it again")


class Blank:
    """In place of an object of another class than tensors and plain containers. It does nothing."""

    def __new__(cls, *given: Any) -> Blank:
        """Whatever the object was made of."""
        return super().__new__(cls)

    def __setstate__(self, state: Any) -> None:
        """Whatever the object held."""


def read_torch_blanked(path: Path) -> Any:
    """`read_torch` of a file that holds objects of any class beside its tensors: each of them becomes a Blank.

    So a training framework's checkpoint is read without its code: nothing that the file names is imported or called.
    """
    try:
        foreign = torch.serialization.get_unsafe_globals_in_checkpoint(path)
    except (RuntimeError, EOFError, ValueError, OSError, pickle.UnpicklingError):
        foreign = []  # no complete archive: read_torch says so
    blanks: list[Any] = [(Blank, name) for name in foreign]
    with torch.serialization.safe_globals(blanks):
        return read_torch(path)


def _read_safetensors(path: Path) -> dict[str, Tensor]:
    if not path.is_file():
        raise BadInput(f"{path}: no such weight file")
    refuse_pointer(path)
    try:
        with safe_open(path, framework="pt"):  # which checks the file, header and all
            return _mapped(path)
    except SafetensorError as error:
        raise BadInput(
            f"{path}: not a complete safetensors file ({error}); download or copy it again"
        ) from error


def _mapped(path: Path) -> dict[str, Tensor]:
    """Each tensor is mapped by itself, so that the memory of its pages goes with it; the library maps a file whole."""
    with path.open("rb") as file:
        (length,) = struct.unpack("<Q", file.read(8))
        header = json.loads(file.read(length))
    header.pop("__metadata__", None)
    if unknown := sorted({facts["dtype"] for facts in header.values()} - {*TYPES}):
        raise BadInput(f"{path}: holds tensors of {unknown[0]}; expected one of {', '.join(TYPES)}")
    return {name: _mapped_tensor(path, 8 + length, **facts) for name, facts in header.items()}


def _mapped_tensor(
    path: Path, base: int, dtype: str, shape: Sequence[int], data_offsets: Sequence[int]
) -> Tensor:
    begin, end = data_offsets
    if begin == end:  # nothing to map
        return torch.empty(shape, dtype=TYPES[dtype])
    raw = np.memmap(path, np.uint8, "c", base + begin, (end - begin,))
    return torch.from_numpy(raw).view(TYPES[dtype]).view(shape)


def _read_folder(folder: Path) -> dict[str, Tensor]:
    indices, files = sorted(folder.glob(f"*{INDEX}")), sorted(folder.glob("*.safetensors"))
    if len(indices) == 1:
        tensors: dict[str, Tensor] = {}
        for shard in _shards(indices[0]):
            tensors |= _read_safetensors(folder / shard)
        return tensors
    if not indices and len(files) == 1:
        return _read_safetensors(files[0])
    raise BadInput(
        f"{folder}: expected one *{INDEX} or one *.safetensors file, "
        f"found {len(indices)} and {len(files)}; name the file itself"
    )


def _shards(index: Path) -> list[str]:
    refuse_pointer(index)
    try:
        return sorted(set(json.loads(index.read_text())["weight_map"].values()))
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise BadInput(f"{index}: not an index of weight files ({error!r}); download it again") from error


def load_strict(
    module: nn.Module,
    tensors: Mapping[str, Tensor],
    source: str,
    fresh: Sequence[str] = (),
    group: Callable[[str], str] = lambda name: "",
) -> None:
    """Fill every tensor of `module` and use every one of `tensors`, or raise one BadInput naming the rest.

    A module on the meta device takes the tensors as they are (file's dtype, memory-mapped); any other is
    filled in place and keeps its dtype and device.
    fresh: regular expressions (full match) of names that `tensors` may lack; they keep their initial values.
    group: in which part of the file a tensor belongs, for the message; "": it is not divided.
    """
    own = module.state_dict()
    allowed = re.compile("|".join(f"(?:{pattern})" for pattern in fresh) or r"(?!)")
    missing = {name: name for name in own if name not in tensors and not allowed.fullmatch(name)}
    unexpected = {name: name for name in tensors if name not in own}
    reshaped = {
        name: f"{name} {list(tensors[name].shape)} instead of {list(own[name].shape)}"
        for name in own
        if name in tensors and tensors[name].shape != own[name].shape
    }
    problems = [
        f"{len(told)} {what}{_listed(map(group, told))}: {_some([*told.values()])}"
        for what, told in (("missing", missing), ("unexpected", unexpected), ("of another shape", reshaped))
        if told
    ]
    if problems:
        raise BadInput(
            f"{source}: does not fit {type(module).__name__} ({len(own)} tensors): {'; '.join(problems)}. "
            "Check that file and model are of the same kind and size."
        )
    on_meta = any(tensor.is_meta for tensor in own.values())
    module.load_state_dict(dict(tensors), strict=False, assign=on_meta)


FACTS = ("step", "torch_dtype")
"""What torch dicts of several sections usually say about themselves."""


@dataclass(frozen=True)
class Envelope:
    """The outside of a released checkpoint: one torch dict of `sections` (tensors by name) and the facts about them.

    model: its title. names: "section.name" in the file <-> ours. facts: keys it has besides; optional: may have.
    others: what a file with other sections is and what to do with it, by its sections.
    earlier: further sections, which hold an earlier stage and have an Envelope of their own.
    groups: beginnings of "section.name" that tell the parts of a file apart, for messages; (): nothing to tell apart.
    """

    model: str
    sections: tuple[str, ...]
    names: Renaming
    others: Mapping[frozenset[str], str]
    facts: tuple[str, ...] = FACTS
    optional: tuple[str, ...] = ()
    earlier: tuple[str, ...] = ()
    groups: tuple[str, ...] = ()

    def read(self, path: Path) -> dict[str, Any]:
        """The dict of a file (tensors memory-mapped). Raises BadInput where it is something else."""
        return self.checked(read_torch(path), str(path))

    def checked(self, payload: Any, source: str) -> dict[str, Any]:
        """What a file holds, if it is such a dict. Raises BadInput where it is something else."""
        keys = set(payload) if isinstance(payload, dict) else set()
        sections = (*self.sections, *self.earlier)
        needed = {*sections, *self.facts}
        if needed <= keys <= {*needed, *self.optional} and all(
            isinstance(payload[section], dict) for section in sections
        ):
            return dict(payload)
        found = sorted(map(str, keys)) if keys else type(payload).__name__
        expected = f"expected {', '.join(sections)} (and {', '.join(self.facts)}), got {str(found)[:200]}"
        given = frozenset(str(key).partition(".")[0] for key in keys)
        what = self.others.get(given - {*FACTS, *self.facts, *self.optional}, expected)
        raise BadInput(f"{source}: not a {self.model} checkpoint; {what}")

    def group(self, name: str) -> str:
        """The part of a file that a tensor of ours belongs to; "" where the file is not divided."""
        official = self.names.backward(name) if self.groups else ""
        return next((group for group in self.groups if official.startswith(group)), "")

    def ours(self, official: Mapping[str, Any], source: str) -> dict[str, Tensor]:
        """The tensors of all sections under our names, not copied. Raises BadInput for a name of neither side."""
        try:
            return {
                self.names.forward(f"{section}.{name}"): tensor
                for section in self.sections
                for name, tensor in official[section].items()
            }
        except KeyError as error:
            raise BadInput(
                f"{source}: {error} is no part of a {self.model} checkpoint; is it another model's?"
            ) from error

    def official(self, tensors: Mapping[str, Tensor]) -> dict[str, Any]:
        """The sections of a file, from tensors under our names; not copied."""
        official: dict[str, Any] = {section: {} for section in self.sections}
        for name, tensor in tensors.items():
            section, _, key = self.names.backward(name).partition(".")
            official[section][key] = tensor
        return official


def numbers(names: Iterable[str], prefix: str) -> tuple[int, ...]:
    """The numbers that follow `prefix`, in order."""
    found = {name[len(prefix) :].split(".")[0] for name in names if name.startswith(prefix)}
    return tuple(sorted(int(number) for number in found if number.isdigit()))


def expect_structure(expected: Mapping[str, Any], found: Mapping[str, Any], source: str) -> None:
    """Raises BadInput naming leaf by leaf where the structure a file holds, by kind of value, is not the policy's."""
    ours, theirs = _leaves(expected), _leaves(found)
    differences = [
        f"{name.partition('.')[2]} is {theirs[name]} in the file and {ours[name]} in the policy"
        for name in ours
        if theirs[name] != ours[name]
    ]
    if differences:
        raise BadInput(
            f"{source}: holds another structure than the policy: {'; '.join(differences)}. "
            "Build the policy from `structure(...)` of this file or choose its recipe"
        )


def _leaves(tree: Mapping[str, Any], path: str = "") -> dict[str, Any]:
    leaves: dict[str, Any] = {}
    for name, value in tree.items():
        leaves |= _leaves(value, f"{path}{name}.") if isinstance(value, dict) else {f"{path}{name}": value}
    return leaves


def _listed(groups: Iterable[str]) -> str:
    named = sorted({*groups} - {""})
    return f" in {', '.join(named)}" if named else ""


def _some(names: Sequence[str]) -> str:
    return ", ".join(names[:4]) + (", ..." if len(names) > 4 else "")


def digest(named: Iterable[tuple[str, Tensor]], about: str = "") -> str:
    """16 hex digits over `about` and the names, dtypes, shapes and values of tensors, wherever they lie."""
    sha = hashlib.sha256(about.encode())
    for name, tensor in sorted(named, key=lambda item: item[0]):
        sha.update(f"{name} {tensor.dtype} {list(tensor.shape)}\n".encode())
        sha.update(_bytes(tensor))
    return sha.hexdigest()[:16]


def _bytes(tensor: Tensor) -> memoryview:
    return tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data
