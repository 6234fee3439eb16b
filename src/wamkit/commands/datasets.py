"""`--dataset FOLDER`: a LeRobot dataset; repeat the flag to read several as one."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from tyro.conf import UseAppendAction, arg

Datasets = Annotated[
    tuple[Path, ...],
    UseAppendAction,
    arg(metavar="FOLDER", help="A LeRobot dataset; repeat the flag to read several as one."),
]
