"""Build the environment in which the real LeRobot runs, as the oracle of our reader and writer.

    python -m tests.data.lerobot_oracle.build              makes .venv-lerobot at the repository's root
    python -m tests.data.lerobot_oracle.build fixtures     and writes tests/data/fixtures anew

Two versions live in it, each in a folder of its own: 0.4.4 (datasets v3.0, the newest for Python 3.11) and
0.3.3 (v2.1). Their pins cannot be resolved beside ours, so both go in without dependencies, and what the dataset
half needs is named below, as is what wamkit needs, whose plug-in is tried there (tests/lerobot_plug_in). Building again
does nothing. It takes about 2 minutes and 1.7 GB (with a CPU torch; pip takes torch from wherever it is configured to).
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
import venv
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from tests.data.lerobot_oracle.robots import COMMITTED, FRESH

HERE = Path(__file__).resolve()
ENV = HERE.parents[3] / ".venv-lerobot"
PYTHON = ENV / "bin/python"

TORCH = ["torch==2.13.0"]
WITHOUT_DEPENDENCIES = ["torchvision==0.28.0", "torchcodec==0.13.0"]
LEROBOTS = {"0.4.4": [], "0.3.3": ["datasets==3.6.0"]}
"""Versions, and what each needs in its own folder because the other cannot share it."""

FFMPEG = (
    "libavutil",
    "libavcodec",
    "libavformat",
    "libavdevice",
    "libavfilter",
    "libswscale",
    "libswresample",
)

FIXTURES = {"v2.1": ("0.3.3", "video"), "v3.0": ("0.4.4", "video"), "v3.0-images": ("0.4.4", "image")}
"""Name of each fixture, the version that writes it, and how it stores pictures."""
WAMKIT = [
    "cachetools",
    "hatchling",
    "jaxtyping",
    "jinja2",
    "matplotlib",
    "msgpack",
    "pydantic",
    "pyyaml",
    "rich",
    "safetensors",
    "tensorboard",
    "tyro",
    "websockets",
]
PACKAGES = [
    *WAMKIT,
    "datasets==4.8.5",
    "huggingface-hub==0.35.3",
    "pandas>=2.2",
    "pyarrow>=21",
    "numpy==2.2.6",
    "av==15.1.0",
    "pillow>=10",
    "draccus==0.10.0",
    "diffusers==0.35.2",
    "accelerate",
    "gymnasium",
    "deepdiff",
    "jsonlines",
    "einops",
    "pyserial",
    "termcolor",
    "imageio",
    "opencv-python-headless==4.12.0.88",
    "packaging",
    "pytest",
]


def build() -> None:
    """Make the environment, unless the one there was made by this very script."""
    stamp = ENV / "built-by"
    digest = hashlib.sha256(repr((TORCH, PACKAGES, WITHOUT_DEPENDENCIES, LEROBOTS)).encode()).hexdigest()
    if stamp.exists() and stamp.read_text() == digest:
        print(f"{ENV} is up to date")
        return
    venv.create(ENV, with_pip=True, clear=True)
    _pip(*TORCH)
    _pip(*PACKAGES)
    _pip("--no-deps", *WITHOUT_DEPENDENCIES)
    for version, own in LEROBOTS.items():
        _pip("--no-deps", "--target", str(_folder(version)), f"lerobot=={version}", *own)
    _link_ffmpeg()
    stamp.write_text(digest)


def run(version: str, script: str | Path, *arguments: str | Path, path: Sequence[Path] = ()) -> str:
    """Run a script of this folder, or of another, with that LeRobot; returns what it printed.

    path: folders to import from besides. CalledProcessError if it fails.
    """
    settings = {
        "PYTHONPATH": os.pathsep.join(map(str, [*path, _folder(version)])),
        "LD_LIBRARY_PATH": str(ENV / "ffmpeg"),
        "HF_HUB_OFFLINE": "1",
        "SVT_LOG": "1",
        "HF_DATASETS_CACHE": str(ENV / "datasets-cache"),
    }
    command = [str(PYTHON), str(HERE.parent / script), *map(str, arguments)]
    return subprocess.run(
        command, env={**os.environ, **settings}, check=True, stdout=subprocess.PIPE, text=True
    ).stdout


def write_fixtures() -> None:
    """Small datasets written by the real LeRobot, and beside each what the real LeRobot reads from it."""
    folder = HERE.parents[1] / "fixtures"
    for name, (version, kind) in FIXTURES.items():
        shutil.rmtree(folder / name, ignore_errors=True)
        run(version, "write_fixture.py", folder / name, kind)
        shutil.rmtree(
            folder / name / "images", ignore_errors=True
        )  # where lerobot kept pictures while recording; empty now
        with tempfile.TemporaryDirectory() as temporary:
            print(name, run(version, "read_items.py", folder / name, f"{temporary}/items.npz"), end="")
            items = dict(np.load(f"{temporary}/items.npz"))
        rows = np.arange(0, len(items["index"]), 4)  # some frames: enough to compare, small enough to commit
        items = {key: array for key, array in items.items() if not key.startswith("stats/")}
        items = {key: array[rows] if array.ndim == 4 else array for key, array in items.items()}
        np.savez_compressed(folder / f"{name}.npz", frame_rows=rows, **items)
    for name in COMMITTED:
        write_robot(name, folder / "robots" / name)


def write_robot(name: str, target: Path) -> None:
    """The dataset of a row of robots.py, written by the real LeRobot into an empty or new folder."""
    shutil.rmtree(target, ignore_errors=True)
    target.parent.mkdir(parents=True, exist_ok=True)
    run(FRESH[name].version, "write_robot.py", target, name)
    shutil.rmtree(target / "images", ignore_errors=True)


def _folder(version: str) -> Path:
    return ENV / f"lerobot-{version}"


def _pip(*arguments: str) -> None:
    subprocess.run([str(PYTHON), "-m", "pip", "install", "-q", *arguments], check=True)


def _link_ffmpeg() -> None:
    """Let torchcodec find the FFmpeg that PyAV brings, under the names it looks for; no system package needed."""
    packages = next((ENV / "lib").glob("python3*")) / "site-packages"
    folder = ENV / "ffmpeg"
    folder.mkdir()
    for library in (packages / "av.libs").glob("lib*.so.*"):
        name, _, rest = library.name.partition("-")
        if name in FFMPEG:
            major = rest.split(".so.")[1].split(".")[0]
            (folder / f"{name}.so.{major}").symlink_to(library)


if __name__ == "__main__":
    build()
    if sys.argv[1:] == ["fixtures"]:
        write_fixtures()
