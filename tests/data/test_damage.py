"""Datasets written by the real LeRobot, every file of them damaged in turn: a sentence comes out, never a traceback.

Whoever checks, opens and reads such a dataset to its end sees nothing but `Broken`.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from wamkit_client.types import BadInput

from wamkit.data.check import check
from wamkit.data.lerobot.dataset import Dataset

FIXTURES = Path(__file__).parent / "fixtures"
Damage = Callable[[Path, np.random.Generator], None]

POINTER = (
    "version https://git-lfs.github.com/spec/v1\noid sha256:4d7a214614ab2935c943f9e0ff69d22e\nsize 12345\n"
)


def cut(path: Path, random: np.random.Generator) -> None:
    path.write_bytes(path.read_bytes()[: random.integers(path.stat().st_size)])


def flip(path: Path, random: np.random.Generator) -> None:
    content = np.frombuffer(path.read_bytes(), np.uint8).copy()
    places = random.integers(len(content), size=max(1, len(content) // 2000))
    content[places] ^= random.integers(1, 256, size=len(places), dtype=np.uint8)
    path.write_bytes(content.tobytes())


def flip_end(path: Path, random: np.random.Generator) -> None:
    """A few bytes of the last kilobyte, where parquet and mp4 files say what is where."""
    content = np.frombuffer(path.read_bytes(), np.uint8).copy()
    places = len(content) - 1 - random.integers(min(1000, len(content)), size=3)
    content[places] ^= random.integers(1, 256, size=3, dtype=np.uint8)
    path.write_bytes(content.tobytes())


def noise(path: Path, random: np.random.Generator) -> None:
    path.write_bytes(random.bytes(path.stat().st_size))


def delete(path: Path, random: np.random.Generator) -> None:
    path.unlink()


def empty(path: Path, random: np.random.Generator) -> None:
    path.write_bytes(b"")


def folder(path: Path, random: np.random.Generator) -> None:
    path.unlink()
    path.mkdir()


def dangling(path: Path, random: np.random.Generator) -> None:
    path.unlink()
    path.symlink_to("gone")


def looping(path: Path, random: np.random.Generator) -> None:
    path.unlink()
    path.symlink_to(path.name)


def pipe(path: Path, random: np.random.Generator) -> None:
    """Opening it would wait for ever."""
    path.unlink()
    os.mkfifo(path)


def pointer(path: Path, random: np.random.Generator) -> None:
    path.write_text(POINTER)


RANDOM: tuple[Damage, ...] = (cut, flip, flip, flip_end, flip_end, flip_end, noise)
CERTAIN: dict[Damage, str] = {
    delete: "",
    empty: "",
    folder: "",
    dangling: "is missing: it is a symbolic link to gone, where nothing is",
    looping: "is a symbolic link that leads to itself",
    pipe: "is a pipe or a device where a file is needed",
    pointer: "run `git lfs pull`",
}
"""What is always noticed, and how it is called."""

UNREAD = ("meta/stats.json", "meta/episodes_stats.jsonl")


def files(root: Path) -> list[str]:
    """What wamkit reads of a dataset; of two files of a kind the last."""
    found = sorted(file.relative_to(root).as_posix() for file in root.rglob("*") if file.is_file())
    kinds = {(Path(file).parts[0], Path(file).suffix, Path(file).parts[-2]): file for file in found}
    meta = {file for file in found if file.startswith("meta/")}
    return sorted({*kinds.values(), *meta} - set(UNREAD))


CASES = [(root, file) for root in ("v2.1", "v3.0", "v3.0-images") for file in files(FIXTURES / root)]


def read(root: Path) -> None:
    """Everything a training would read."""
    dataset = Dataset.open(root)
    dataset.fingerprint()
    dataset.rows("action", dataset.episodes)
    dataset.rows("observation.state", dataset.episodes)
    for episode in dataset.episodes:
        for camera in dataset.cameras:
            dataset.frames(camera, episode.index, [episode.length - 1, 0])
        dataset.instruction(episode.index, 0)


@pytest.mark.parametrize(("name", "file"), CASES, ids=["/".join(case) for case in CASES])
def test_every_file_damaged_in_turn(name: str, file: str, tmp_path: Path) -> None:
    random = np.random.default_rng(len(file))
    for number, damage in enumerate([*CERTAIN, *RANDOM]):
        root = Path(shutil.copytree(FIXTURES / name, tmp_path / str(number)))
        damage(root / file, random)
        checked, refused = [str(problem) for problem in check(root)], ""
        try:
            read(root)
        except BadInput as error:
            refused = str(error)
        assert all("\n" not in line and len(line) < 600 for line in (*checked, refused))
        if damage in CERTAIN:
            what = f"{damage.__name__}: {checked}, {refused}"
            assert any(CERTAIN[damage] in line for line in checked) and CERTAIN[damage] in refused, what
            assert refused, what
