"""golden: what a policy answers to recorded observations, to be compared with what a server answers."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from tyro.conf import Positional, arg
from wamkit_client.types import BadInput

from wamkit.commands.datasets import Datasets
from wamkit.commands.devices import Device, use_device
from wamkit.commands.outputs import output_file
from wamkit.commands.overrides import BEFORE_LISTS, Overrides, changed
from wamkit.io.progress import say

GoldenRun = Annotated[Path, arg(metavar="RUN", help=f"A run directory. {BEFORE_LISTS}")]


@dataclass(frozen=True)
class Golden:
    """Write what a run directory answers to recorded observations, so that a robot can check its server with it.

    Example: wamkit golden arm/run --dataset arm/dataset --out golden.msgpack

    On the robot, which needs wamkit-client alone: python -m wamkit_client.golden golden.msgpack ws://HOST:PORT
    """

    run: Positional[GoldenRun]
    dataset: Datasets
    out: Path = Path("golden.msgpack")
    count: int = 8
    """Observations, at equal distances through the dataset."""
    device: Device = ""

    def __call__(self, overrides: Overrides) -> int:
        use_device(self.device)
        if not self.dataset:
            raise BadInput("--dataset is missing: the observations are those of a dataset")
        from wamkit.config import load_run
        from wamkit.stages.golden import golden

        asked = changed(load_run(self.run), overrides)
        output_file(self.out)
        golden(self.run, asked, self.dataset, self.count).save(str(self.out))
        say(f"{self.out}: {self.count} observations with their answers")
        return 0
