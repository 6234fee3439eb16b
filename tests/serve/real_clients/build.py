"""Build the environment in which other projects' clients run, as the oracles of our server.

    python -m tests.serve.real_clients.build        makes .venv-clients at the repository's root

openpi's client is a package, whose own pins (NumPy 1) are not needed for it, so it goes in without dependencies.
XPolicyLab's has none; what its checkout needs is here. Building again does nothing. It takes seconds and 90 MB.
"""

from __future__ import annotations

import hashlib
import os
import subprocess
import venv
from pathlib import Path

HERE = Path(__file__).resolve()
ENV = HERE.parents[3] / ".venv-clients"
PYTHON = ENV / "bin/python"
OPENPI = "openpi-client==0.1.2"
PACKAGES = ["numpy", "msgpack", "websockets", "typing_extensions", "pillow", "dm-tree"]
XPOLICYLAB = ["msgpack-numpy", "pydantic"]


def build() -> None:
    """Make the environment, unless the one there was made by this very script."""
    stamp = ENV / "built-by"
    digest = hashlib.sha256(repr((OPENPI, PACKAGES, XPOLICYLAB)).encode()).hexdigest()
    if stamp.exists() and stamp.read_text() == digest:
        return
    venv.create(ENV, with_pip=True, clear=True)
    for packages in (PACKAGES + XPOLICYLAB, ["--no-deps", OPENPI]):
        subprocess.run([str(PYTHON), "-m", "pip", "install", "-q", *packages], check=True)
    stamp.write_text(digest)


def run(script: str, *arguments: str, checkout: str = "") -> str:
    """Run a script of this folder with a real client; returns what it printed. CalledProcessError if it fails.

    checkout: the folder of the client's own repository, where it is no package.
    """
    command = [str(PYTHON), str(HERE.parent / script), *arguments]
    env = {**os.environ, "PYTHONPATH": checkout}
    return subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True, env=env).stdout


if __name__ == "__main__":
    build()
