"""Build the environment in which the real openpi client runs, as the oracle of our server.

    python -m tests.serve.openpi_oracle.build        makes .venv-openpi at the repository's root

The package's own pins (NumPy 1) are not needed for its client, so it goes in without dependencies. Building again does
nothing. It takes seconds and 80 MB.
"""

from __future__ import annotations

import hashlib
import subprocess
import venv
from pathlib import Path

HERE = Path(__file__).resolve()
ENV = HERE.parents[3] / ".venv-openpi"
PYTHON = ENV / "bin/python"
CLIENT = "openpi-client==0.1.2"
PACKAGES = ["numpy", "msgpack", "websockets", "typing_extensions", "pillow", "dm-tree"]


def build() -> None:
    """Make the environment, unless the one there was made by this very script."""
    stamp = ENV / "built-by"
    digest = hashlib.sha256(repr((CLIENT, PACKAGES)).encode()).hexdigest()
    if stamp.exists() and stamp.read_text() == digest:
        return
    venv.create(ENV, with_pip=True, clear=True)
    for packages in (PACKAGES, ["--no-deps", CLIENT]):
        subprocess.run([str(PYTHON), "-m", "pip", "install", "-q", *packages], check=True)
    stamp.write_text(digest)


def run(script: str, *arguments: str) -> str:
    """Run a script of this folder with the real client; returns what it printed. CalledProcessError if it fails."""
    command = [str(PYTHON), str(HERE.parent / script), *arguments]
    return subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout


if __name__ == "__main__":
    build()
