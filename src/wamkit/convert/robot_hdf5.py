"""Recordings of a real robot -> a LeRobot v3.0 dataset (Light-WAM spec 3.1). One HDF5 file per episode:

    FOLDER/episode_<n>.hdf5
        attribute task                        the instruction; of "name@text" the text counts, as published
        action               [t, a]           targets, physical units
        observation/state    [t, p]           proprio, physical units
        observation/images/<camera>  [t]      one JPEG or PNG file per step: uint8 of variable length, uint8 [t, n]
                                              padded with zeros, or byte strings

All files are read first, and a survey of them is printed; only then is anything written. It knows nothing of robots or
policies, nor how many steps a second has: the files do not tell.
"""

from __future__ import annotations

import io
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import zip_longest
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image
from rich.table import Table
from wamkit_client.types import BadInput

from wamkit.convert.hdf5 import numbers, opened, place, rows_at
from wamkit.convert.sources import convert_sources
from wamkit.data.lerobot.files import ACTION_STEPS, CAMERA_PREFIX
from wamkit.data.lerobot.recorder import Episode, Format, vector, video
from wamkit.io.progress import bar, console

if TYPE_CHECKING:
    import h5py

ACTION, STATE, IMAGES = "action", "observation/state", "observation/images"
NAME = re.compile(r"episode_(\d+)\.hdf5")
ENDINGS = {"JPEG": b"\xff\xd9", "PNG": b"IEND"}
"""Bytes that only an image written to its end has."""


def robot_to_lerobot(
    source: Path,
    out: Path,
    fps: float,
    robot: str,
    swap_red_blue: bool = False,
    cut_to_shortest: bool = False,
) -> None:
    """Convert the recordings of a folder into the dataset `out`; a finished dataset of the same is left alone.

    fps: control steps a second. robot: the dataset's robot_type. The flags are those of `wamkit convert hdf5`.
    Raises BadInput where a recording cannot be used, naming file and key, or `out` holds something else; episodes
    that were written before are kept, and the same call resumes behind them.
    """
    if not 0 < fps < np.inf:
        raise BadInput(f"fps is {fps}; expected the control steps a second, above 0")
    if not robot.strip():
        raise BadInput("robot is empty; name it, a policy keeps one normaliser for each robot")
    recordings = _read_all(find_recordings(source), cut_to_shortest)
    table = _survey(source, recordings)
    table.add_row("robot", robot)
    seconds = sum(recording.steps for recording in recordings) / fps
    table.add_row("rate", f"{fps:g} Hz as asked (the files do not tell): {seconds:.1f} s")
    table.add_row("channels", "red and blue swapped" if swap_red_blue else "RGB as encoded")
    console.print(table, _ranges(recordings))
    first = recordings[0]
    features = {
        "action": vector(first.actions.shape[1], names=None),
        "observation.state": vector(first.states.shape[1], names=None),
    }
    for camera, (height, width, _) in first.cameras.items():
        features[CAMERA_PREFIX + camera] = video(height, width)
    convert_sources(
        out,
        Format(fps, robot, features),
        {"swap_red_blue": swap_red_blue},
        [recording.path.name for recording in recordings],
        lambda number: _episode(recordings[number], swap_red_blue),
    )


@dataclass(frozen=True)
class Recording:
    """One file, all but its images.

    actions: float32 [k, a]. states: float32 [t, p], t = k, or k + 1 where a state and images were recorded after the
    last action. cameras: (height, width, format) of the first image.
    left_out: how many rows at the end of a dataset are not read because the others lack them, by key.
    """

    path: Path
    instruction: str
    actions: np.ndarray
    states: np.ndarray
    cameras: Mapping[str, tuple[int, int, str]]
    left_out: Mapping[str, int]

    @property
    def steps(self) -> int:
        """Rows of states and images."""
        return len(self.states)

    @property
    def layout(self) -> dict[str, str]:
        """What must be the same in every recording of a dataset, in words, by key."""
        sizes = {f"{IMAGES}/{camera}": f"images of {h}x{w}" for camera, (h, w, _) in self.cameras.items()}
        vectors = {ACTION: self.actions, STATE: self.states}
        dimensions = {key: f"{rows.shape[1]} dimensions" for key, rows in vectors.items()}
        return {IMAGES: f"cameras {sorted(self.cameras)}", **sizes, **dimensions}

    def images(self, camera: str) -> np.ndarray:
        """All images of a camera, channels as encoded: uint8 [t, h, w, 3].

        Raises BadInput where one is empty, truncated, not of three 8-bit channels, or of another size.
        """
        height, width, _ = self.cameras[camera]
        pixels = np.empty((self.steps, height, width, 3), np.uint8)
        with opened(self.path) as file:
            stream = rows_at(file, f"{IMAGES}/{camera}")
            for step, encoded in enumerate(stream[: self.steps]):
                where = f"{place(stream)}, step {step}"
                image = _decoded(encoded, where)
                if image.size != (width, height):
                    raise BadInput(
                        f"{where}: the image is {image.height}x{image.width}, the first {height}x{width}; "
                        "record every camera in one size, or leave the file out"
                    )
                pixels[step] = np.asarray(image)
        return pixels


def find_recordings(folder: Path) -> list[Path]:
    """The files of a folder in the order of their numbers.

    Raises BadInput where there is none, a name has another form, or two have the same number.
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
    """Everything but the images, of which only the first of each camera is decoded.

    Lengths must agree, with one exception that recorders leave behind: states and images may all have one more row
    than the actions, observed after the last one. cut_to_shortest: other surplus is left out.
    Raises BadInput naming file and key where something is missing, empty, not finite or of another form.
    """
    with opened(path) as file:
        instruction = _instruction(file)
        images = file.get(IMAGES, {})
        if not isinstance(images, Mapping) or not images:
            raise BadInput(f"{path}: no camera in {IMAGES}; a policy acts on images, record at least one")
        tables = {
            key: rows_at(file, key) for key in (ACTION, STATE, *(f"{IMAGES}/{name}" for name in images))
        }
        steps = _steps({key: len(table) for key, table in tables.items()}, cut_to_shortest, path)
        return Recording(
            path,
            instruction,
            actions=numbers(tables[ACTION], steps[ACTION], np.float32),
            states=numbers(tables[STATE], steps[STATE], np.float32),
            cameras={camera: _form(tables[f"{IMAGES}/{camera}"]) for camera in images},
            left_out={
                key: len(table) - steps[key] for key, table in tables.items() if len(table) > steps[key]
            },
        )


def check_alike(recordings: Sequence[Recording]) -> None:
    """BadInput where a recording has other cameras, image sizes or dimensions than the first."""
    first = recordings[0]
    for other in recordings[1:]:
        for key, expected in first.layout.items():
            if other.layout.get(key) != expected:
                raise BadInput(
                    f"{other.path}: {key} has {other.layout.get(key)}, in {first.path.name} {expected}; record every "
                    "episode with the same cameras, sizes and dimensions, or leave the file out"
                )


def _read_all(paths: Sequence[Path], cut_to_shortest: bool) -> list[Recording]:
    recordings = []
    with bar("look", len(paths), unit="recordings") as advance:
        for path in paths:
            recordings.append(read_recording(path, cut_to_shortest))
            advance(1)
    check_alike(recordings)
    return recordings


def _instruction(file: h5py.File) -> str:
    task = file.attrs.get("task", "")
    text = task.decode() if isinstance(task, bytes) else str(task)
    text = text.partition("@")[2] if "@" in text else text
    if not text.strip():
        raise BadInput(
            f"{file.filename}: attribute 'task' is missing or empty; a policy is told what to do in words: "
            "h5py.File(path, 'a').attrs['task'] = 'fold the towel'"
        )
    return text.strip()


def _steps(lengths: Mapping[str, int], cut_to_shortest: bool, path: Path) -> dict[str, int]:
    """How many rows of each are read: actions as many as all have, observations one more where all of them do."""
    shortest = min(lengths.values())
    observed = min(length for key, length in lengths.items() if key != ACTION)
    steps = dict.fromkeys(lengths, min(observed, shortest + 1)) | {ACTION: shortest}
    if steps != lengths and not cut_to_shortest:
        listed = ", ".join(f"{key} {length}" for key, length in lengths.items())
        raise BadInput(
            f"{path}: the datasets have different numbers of rows ({listed}), and nothing says which belong together; "
            "mend the recorder and leave the file out, or, where all begin together, cut to the shortest "
            "(--cut-to-shortest)"
        )
    return steps


def _form(stream: h5py.Dataset) -> tuple[int, int, str]:
    """Height, width and format of the first image."""
    where = place(stream)
    if stream.ndim != 1 and not (stream.ndim == 2 and stream.dtype == np.uint8):
        raise BadInput(
            f"{where} is {stream.dtype} {list(stream.shape)}; expected one encoded JPEG or PNG per step"
        )
    image = _decoded(stream[0], f"{where}, step 0")
    if image.height % 2 or image.width % 2:
        raise BadInput(
            f"{where}: images are {image.height}x{image.width}; videos need even sizes, crop one row or column when "
            "recording"
        )
    return image.height, image.width, str(image.format)


def _decoded(encoded: bytes | np.ndarray | np.void, where: str) -> Image.Image:
    data = encoded if isinstance(encoded, bytes) else encoded.tobytes()
    try:
        image = Image.open(io.BytesIO(data), formats=tuple(ENDINGS))
        image.load()
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise _broken_image(where, str(error) if data.strip(b"\0") else "it is empty") from error
    # A decoder may take the zeros behind a truncated JPEG for a grey rest.
    if ENDINGS[str(image.format)] not in data:
        raise _broken_image(where, "its end is missing")
    if image.mode != "RGB":
        raise BadInput(f"{where}: the image is {image.mode}; expected three channels of 8 bits (RGB)")
    return image


def _broken_image(where: str, reason: str) -> BadInput:
    return BadInput(
        f"{where}: the image does not decode ({reason}); expected a whole JPEG or PNG, leave the file out"
    )


def _episode(recording: Recording, swap_red_blue: bool) -> Episode:
    channels = slice(None, None, -1 if swap_red_blue else 1)
    # What was observed after the last action has a row, in which that action is repeated and does not count.
    after = recording.steps - len(recording.actions)
    actions = np.concatenate([recording.actions, recording.actions[-1:].repeat(after, axis=0)])
    return Episode(
        columns={"action": actions, "observation.state": recording.states},
        videos={camera: recording.images(camera)[..., channels] for camera in recording.cameras},
        task=recording.instruction,
        extra={"rows_left_out": sum(recording.left_out.values()), ACTION_STEPS: len(recording.actions)},
    )


def _survey(source: Path, recordings: Sequence[Recording]) -> Table:
    """What a person can tell at a glance to be wrong: counts, cameras, sizes, instructions, what is left out."""
    steps = sum(recording.steps for recording in recordings)
    first, last = recordings[0], recordings[-1]
    table = Table(title=str(source), title_justify="left", show_header=False)
    table.add_row("recordings", f"{len(recordings)}: {first.path.name} .. {last.path.name}, {steps} steps")
    for camera, (height, width, form) in first.cameras.items():
        table.add_row(camera, f"{height}x{width} {form}")
    for instruction, count in Counter(recording.instruction for recording in recordings).items():
        table.add_row(f"{count} x", instruction)
    after = [recording.path.name for recording in recordings if recording.steps > len(recording.actions)]
    if after:
        table.add_row(
            "observed after the last action", f"1 step in {_listed(after)}; its action does not count"
        )
    left_out: dict[str, list[str]] = {}
    for recording in (recording for recording in recordings if recording.left_out):
        rows = ", ".join(f"the last {count} of {key}" for key, count in recording.left_out.items())
        left_out.setdefault(rows, []).append(recording.path.name)
    for rows, names in left_out.items():
        table.add_row("LEFT OUT", f"{rows} in {_listed(names)}", style="bold")
    return table


def _listed(names: Sequence[str]) -> str:
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")


def _ranges(recordings: Sequence[Recording]) -> Table:
    """Least and greatest value of every dimension."""
    table = Table(title="ranges", title_justify="left")
    cells = []
    table.add_column("dimension", justify="right")
    for name, rows in (
        ("action", [recording.actions for recording in recordings]),
        ("observation.state", [recording.states for recording in recordings]),
    ):
        table.add_column(name)
        low, high = np.min([r.min(0) for r in rows], axis=0), np.max([r.max(0) for r in rows], axis=0)
        cells.append([f"{a:.4g} .. {b:.4g}" for a, b in zip(low, high, strict=True)])
    for number, row in enumerate(zip_longest(*cells, fillvalue="")):
        table.add_row(str(number), *row)
    return table
