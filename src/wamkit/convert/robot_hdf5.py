"""Real-robot recordings in HDF5 -> a LeRobot v3.0 dataset, episode by episode; interrupted work goes on.

All files are looked at first, and what was found is printed; only then is anything written. It knows nothing of
robots or policies.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import zip_longest
from pathlib import Path

import numpy as np
from rich.table import Table
from wamkit_client.types import BadInput

from wamkit.convert.recordings import Recording, check_alike, find_recordings, read_recording
from wamkit.convert.sources import convert_sources
from wamkit.data.lerobot.files import ACTION_STEPS, CAMERA_PREFIX
from wamkit.data.lerobot.recorder import Episode, Format, vector, video
from wamkit.io.progress import bar, console


@dataclass(frozen=True)
class RobotHDF5:
    """What the files do not tell."""

    fps: float = 50.0
    """Control steps a second; a recipe's hz must be the same."""
    robot: str = "real_robot"
    """The dataset's robot_type, which is the key of the policy's normaliser."""
    swap_red_blue: bool = False
    """For pictures that were encoded from BGR as if it were RGB: red things look blue in the recording."""
    cut_to_shortest: bool = False
    """Where actions, states and pictures of a file differ in number: keep what all have, from the first on."""


def robot_to_lerobot(source: Path, out: Path, settings: RobotHDF5) -> None:
    """Convert the recordings of a folder into the dataset `out`; a finished dataset of the same is left alone.

    Raises BadInput where a recording cannot be used, naming file and key, or `out` holds something else; episodes
    that were written before stay, and the same call goes on behind them.
    """
    if not 0 < settings.fps < np.inf:
        raise BadInput(f"fps is {settings.fps}; expected the control steps a second, above 0")
    if not settings.robot.strip():
        raise BadInput("robot is empty; name it, a policy keeps one normaliser for each robot")
    recordings = _look(find_recordings(source), settings)
    console.print(_survey(source, recordings, settings), _ranges(recordings))
    first = recordings[0]
    features = {
        "action": vector(first.actions.shape[1], names=None),
        "observation.state": vector(first.states.shape[1], names=None),
    }
    for camera, (height, width, _) in first.cameras.items():
        features[CAMERA_PREFIX + camera] = video(height, width)
    red_and_blue = {"swap_red_blue": settings.swap_red_blue}
    form = Format(settings.fps, settings.robot, features)
    names = [recording.path.name for recording in recordings]
    convert_sources(
        out, form, red_and_blue, names, lambda number: _episode(recordings[number], settings.swap_red_blue)
    )


def _look(paths: Sequence[Path], settings: RobotHDF5) -> list[Recording]:
    recordings = []
    with bar("look", len(paths), unit="recordings") as advance:
        for path in paths:
            recordings.append(read_recording(path, settings.cut_to_shortest))
            advance(1)
    check_alike(recordings)
    return recordings


def _episode(recording: Recording, swap_red_blue: bool) -> Episode:
    videos = {}
    for camera in recording.cameras:
        pixels = recording.pictures(camera)
        videos[camera] = pixels[..., ::-1] if swap_red_blue else pixels
    # What was seen after the last action has a row, in which that action stands again and does not count.
    after = recording.steps - len(recording.actions)
    actions = np.concatenate([recording.actions, recording.actions[-1:].repeat(after, axis=0)])
    return Episode(
        columns={"action": actions, "observation.state": recording.states},
        videos=videos,
        task=recording.instruction,
        extra={"rows_left_out": sum(recording.left_out.values()), ACTION_STEPS: len(recording.actions)},
    )


def _survey(source: Path, recordings: Sequence[Recording], settings: RobotHDF5) -> Table:
    """What a person can tell at a glance to be wrong: rate, cameras, sizes, instructions, what is not taken."""
    steps = sum(recording.steps for recording in recordings)
    first, last = recordings[0], recordings[-1]
    table = Table(title=str(source), title_justify="left", show_header=False)
    table.add_row("recordings", f"{len(recordings)}: {first.path.name} .. {last.path.name}, {steps} steps")
    table.add_row("robot", settings.robot)
    table.add_row(
        "rate", f"{settings.fps:g} Hz as asked (the files do not tell): {steps / settings.fps:.1f} s"
    )
    for camera, (height, width, form) in first.cameras.items():
        channels = "red and blue swapped" if settings.swap_red_blue else "RGB as encoded"
        table.add_row(camera, f"{height}x{width} {form}, {channels}")
    for instruction, count in Counter(recording.instruction for recording in recordings).items():
        table.add_row(f"{count} x", instruction)
    after = [recording.path.name for recording in recordings if recording.steps > len(recording.actions)]
    if after:
        table.add_row("seen after the last action", f"1 step in {_listed(after)}; its action does not count")
    for rows, names in _left_out(recordings).items():
        table.add_row("LEFT OUT", f"{rows} in {_listed(names)}", style="bold")
    return table


def _listed(names: Sequence[str]) -> str:
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")


def _left_out(recordings: Sequence[Recording]) -> dict[str, list[str]]:
    """Which rows at the end are not taken, in words, and in which files."""
    files: dict[str, list[str]] = {}
    for recording in recordings:
        keys: dict[int, list[str]] = {}
        for key, count in recording.left_out.items():
            keys.setdefault(count, []).append(key)
        if keys:
            rows = "; ".join(f"the last {count} of {', '.join(names)}" for count, names in keys.items())
            files.setdefault(rows, []).append(recording.path.name)
    return files


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
