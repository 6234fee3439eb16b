"""Real-robot recordings: one HDF5 file per episode (Light-WAM spec 3.1).

    FOLDER/episode_<n>.hdf5
        attribute task                        the instruction; of "name@text" the text counts, as published
        action               [t, a]           targets, physical units
        observation/state    [t, p]           proprio, physical units
        observation/images/<camera>  [t]      one JPEG or PNG file per step: uint8 of variable length, uint8 [t, n]
                                              filled up with zeros, or byte strings

It does not know about datasets, nor how many steps a second has: the files do not tell.
"""

from __future__ import annotations

import io
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image
from wamkit_client.types import BadInput

from wamkit.io.files import explained

if TYPE_CHECKING:
    import h5py

ACTION, STATE, IMAGES = "action", "observation/state", "observation/images"
NAME = re.compile(r"episode_(\d+)\.hdf5")
ENDINGS = {"JPEG": b"\xff\xd9", "PNG": b"IEND"}
"""What only stands in a picture that was written to its end."""


@dataclass(frozen=True)
class Recording:
    """One file. Its pictures stay there until `pictures` is called.

    actions: float32 [k, a]. states: float32 [t, p], t = k, or k + 1 where a state and pictures were recorded after the
    last action. cameras: (height, width, format) of the first picture.
    left_out: rows at the end of a dataset that the others lack, by key; they are not read.
    """

    path: Path
    instruction: str
    actions: np.ndarray
    states: np.ndarray
    cameras: Mapping[str, tuple[int, int, str]]
    left_out: Mapping[str, int]

    @property
    def steps(self) -> int:
        """Rows of states and pictures."""
        return len(self.states)

    def pictures(self, camera: str) -> np.ndarray:
        """All pictures of a camera, channels as encoded: uint8 [t, h, w, 3].

        Raises BadInput where one is empty, truncated, no picture of three 8-bit channels, or of another size.
        """
        key = f"{IMAGES}/{camera}"
        height, width, _ = self.cameras[camera]
        pixels = np.empty((self.steps, height, width, 3), np.uint8)
        with opened(self.path) as file:
            for step, encoded in enumerate(file[key][: self.steps]):
                where = f"{self.path}: {key}, step {step}"
                picture = _decoded(encoded, where)
                if picture.size != (width, height):
                    raise BadInput(
                        f"{where}: the picture is {picture.height}x{picture.width}, the first {height}x{width}; "
                        "record every camera in one size, or leave the file out"
                    )
                pixels[step] = np.asarray(picture)
        return pixels


def find_recordings(folder: Path) -> list[Path]:
    """The files of a folder in the order of their numbers.

    Raises BadInput where there is none, a name is not understood, or a number stands there twice.
    """
    if not folder.is_dir():
        raise BadInput(f"{folder}: no such folder; name the one with episode_0.hdf5, episode_1.hdf5, ...")
    files = sorted(path for path in folder.iterdir() if path.suffix in (".hdf5", ".h5"))
    if not files:
        deeper = next(folder.rglob("episode_*.hdf5"), None)
        hint = f"; there is one below: name {deeper.parent}" if deeper else ""
        raise BadInput(f"{folder}: no recording found; expected files episode_<number>.hdf5{hint}")
    by_number: dict[int, Path] = {}
    for path in files:
        found = NAME.fullmatch(path.name)
        if found is None:
            raise BadInput(f"{path}: expected a name like episode_12.hdf5; rename it, or move it elsewhere")
        other = by_number.setdefault(int(found[1]), path)
        if other is not path:
            raise BadInput(f"{path} and {other.name} have the same number; rename or remove one")
    return [by_number[number] for number in sorted(by_number)]


def read_recording(path: Path, cut_to_shortest: bool) -> Recording:
    """Everything but the pictures, of which only the first of each camera is looked at.

    Lengths must agree, with one exception that recorders leave behind: states and pictures may all have one more
    row than the actions, what was seen after the last one. cut_to_shortest: other surplus is left out.
    Raises BadInput naming file and key where something is missing, empty, not finite or of another form.
    """
    with opened(path) as file:
        instruction = _instruction(file, path)
        tables = {key: _dataset(file, key, path) for key in (ACTION, STATE)}
        images = file.get(IMAGES, {})
        if not isinstance(images, Mapping) or not images:
            raise BadInput(f"{path}: no camera in {IMAGES}; a policy acts on pictures, record at least one")
        streams = {camera: _dataset(file, f"{IMAGES}/{camera}", path) for camera in images}
        lengths = {key: len(table) for key, table in tables.items()}
        lengths |= {f"{IMAGES}/{camera}": len(stream) for camera, stream in streams.items()}
        steps = _steps(lengths, cut_to_shortest, path)
        actions, states = (_numbers(table, steps[key], f"{path}: {key}") for key, table in tables.items())
        cameras = {camera: _form(stream, f"{path}: {IMAGES}/{camera}") for camera, stream in streams.items()}
    left_out = {key: length - steps[key] for key, length in lengths.items() if length > steps[key]}
    return Recording(path, instruction, actions, states, cameras, left_out)


def check_alike(recordings: Sequence[Recording]) -> None:
    """BadInput where a recording has other cameras, picture sizes or dimensions than the first."""
    first = recordings[0]
    for other in recordings[1:]:
        if other.cameras.keys() != first.cameras.keys():
            raise BadInput(
                f"{other.path}: {IMAGES} has cameras {sorted(other.cameras)}, {first.path.name} has "
                f"{sorted(first.cameras)}; record the same cameras in every episode, or leave the file out"
            )
        for camera, (height, width, _) in other.cameras.items():
            expected_height, expected_width, _ = first.cameras[camera]
            if (height, width) != (expected_height, expected_width):
                raise BadInput(
                    f"{other.path}: {IMAGES}/{camera} is {height}x{width}, in {first.path.name} "
                    f"{expected_height}x{expected_width}; record every camera in one size, or leave the file out"
                )
        for key, rows, expected in (
            (ACTION, other.actions, first.actions),
            (STATE, other.states, first.states),
        ):
            if rows.shape[1] != expected.shape[1]:
                raise BadInput(
                    f"{other.path}: {key} has {rows.shape[1]} dimensions, in {first.path.name} "
                    f"{expected.shape[1]}; one robot records one layout, leave the file out"
                )


@contextmanager
def opened(path: Path) -> Iterator[h5py.File]:
    """An HDF5 file to read. BadInput where it, or what is read inside the block, is damaged; or h5py is missing."""
    try:
        import h5py
    except ModuleNotFoundError as error:
        raise BadInput(
            "HDF5 files are read with h5py; install it with: pip install 'wamkit[hdf5]'"
        ) from error
    try:
        with h5py.File(path, "r") as file:
            yield file
    except PermissionError as error:
        raise explained(error, path) from error
    except (OSError, RuntimeError, KeyError) as error:  # how HDF5 says that bytes make no sense
        raise BadInput(
            f"{path}: cannot be read ({error}); copy it again, close the program that writes it, or leave it out"
        ) from error


def _instruction(file: h5py.File, path: Path) -> str:
    task = file.attrs.get("task", "")
    text = task.decode() if isinstance(task, bytes) else str(task)
    text = text.partition("@")[2] if "@" in text else text
    if not text.strip():
        raise BadInput(
            f"{path}: attribute 'task' is missing or empty; a policy is told what to do in words: "
            "h5py.File(path, 'a').attrs['task'] = 'fold the towel'"
        )
    return text.strip()


def _dataset(file: h5py.File, key: str, path: Path) -> h5py.Dataset:
    import h5py

    found = file.get(key)
    if not isinstance(found, h5py.Dataset):
        raise BadInput(f"{path}: no dataset {key!r}; expected {ACTION}, {STATE} and {IMAGES}/<camera>")
    if found.ndim == 0:
        raise BadInput(f"{path}: {key} is a single value; expected one row per step")
    return found


def _steps(lengths: Mapping[str, int], cut_to_shortest: bool, path: Path) -> dict[str, int]:
    """How many rows of each are taken: of actions as many as all have, of what is seen one more where all have it."""
    shortest = min(lengths.values())
    if shortest == 0:
        empty = next(key for key, length in lengths.items() if length == 0)
        raise BadInput(f"{path}: {empty} has no rows; leave the file out")
    surplus = {key: length - shortest for key, length in lengths.items()}
    seen_after = dict.fromkeys(lengths, 1) | {ACTION: 0}
    if any(surplus.values()) and surplus != seen_after and not cut_to_shortest:
        listed = ", ".join(f"{key} {length}" for key, length in lengths.items())
        raise BadInput(
            f"{path}: the datasets have different numbers of rows ({listed}), and nothing says which belong together; "
            "mend the recorder and leave the file out, or, where all begin together, cut to the shortest "
            "(--cut-to-shortest)"
        )
    seen = min(length for key, length in lengths.items() if key != ACTION)
    return dict.fromkeys(lengths, min(seen, shortest + 1)) | {ACTION: shortest}


def _numbers(table: h5py.Dataset, steps: int, where: str) -> np.ndarray:
    if table.ndim != 2 or table.shape[1] == 0 or table.dtype.kind not in "fiu":
        raise BadInput(f"{where} is {table.dtype} {list(table.shape)}; expected numbers [steps, dimensions]")
    with np.errstate(over="ignore"):  # what is too large for float32 is found below
        rows = table[:steps].astype(np.float32)
    if not np.isfinite(rows).all():
        step, dim = np.argwhere(~np.isfinite(rows))[0]
        raise BadInput(
            f"{where}, step {step}: dimension {dim} is {rows[step, dim]}; mend the value, or leave the file out"
        )
    return rows


def _form(stream: h5py.Dataset, where: str) -> tuple[int, int, str]:
    """Height, width and format of the first picture."""
    if stream.ndim != 1 and not (stream.ndim == 2 and stream.dtype == np.uint8):
        raise BadInput(
            f"{where} is {stream.dtype} {list(stream.shape)}; expected one encoded JPEG or PNG per step"
        )
    picture = _decoded(stream[0], f"{where}, step 0")
    if picture.height % 2 or picture.width % 2:
        raise BadInput(
            f"{where}: pictures are {picture.height}x{picture.width}; videos take even sizes only, crop one row or "
            "column when recording"
        )
    return picture.height, picture.width, str(picture.format)


def _decoded(encoded: bytes | np.ndarray | np.void, where: str) -> Image.Image:
    data = encoded if isinstance(encoded, bytes) else encoded.tobytes()
    try:
        picture = Image.open(io.BytesIO(data), formats=tuple(ENDINGS))
        picture.load()
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise _broken_picture(where, str(error) if data.strip(b"\0") else "it is empty") from error
    # A decoder may take the zeros behind a truncated JPEG for a grey rest.
    if ENDINGS[str(picture.format)] not in data:
        raise _broken_picture(where, "its end is missing")
    if picture.mode != "RGB":
        raise BadInput(f"{where}: the picture is {picture.mode}; expected three channels of 8 bits (RGB)")
    return picture


def _broken_picture(where: str, reason: str) -> BadInput:
    return BadInput(
        f"{where}: the picture does not decode ({reason}); expected a whole JPEG or PNG, leave the file out"
    )
