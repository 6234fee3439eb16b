"""Flags of the commands that run a simulator: its tasks, its files and its Python."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

from tyro.conf import arg

Tasks = Annotated[
    tuple[str, ...], arg(help="Some of the suite's tasks: names, numbers from 0, ranges (0-9).")
]
LiberoAssets = Annotated[Path, arg(help="LIBERO's meshes and textures, where the package has none.")]
SimulatorPython = Annotated[Path, arg(help="The Python of a simulator with an environment of its own.")]


def use_simulator(python: Path, libero_assets: Path) -> None:
    """Set what this process and those it starts will use. Path(): this Python; the assets that are found."""
    from wamkit_client.envs.foreign import PYTHON_VARIABLE
    from wamkit_client.envs.libero.install import ASSETS_VARIABLE

    for variable, path in ((PYTHON_VARIABLE, python), (ASSETS_VARIABLE, libero_assets)):
        if path != Path():
            os.environ[variable] = os.path.abspath(path)  # a virtual environment's python is a link; keep it
