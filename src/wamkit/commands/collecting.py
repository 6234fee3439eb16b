"""Demonstrations of scripted experts: collect."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from tyro.conf import Positional, arg

from wamkit.commands.clusters import RayAddress
from wamkit.commands.outputs import DATASET, output_folder
from wamkit.commands.overrides import BEFORE_LISTS, Overrides, refuse
from wamkit.commands.simulators import LiberoAssets, SimulatorPython, Tasks, use_simulator
from wamkit.io.progress import command, say


@dataclass(frozen=True)
class Collect:
    """Record demonstrations of scripted experts as a LeRobot v3.0 dataset; successful episodes only.

    Examples: wamkit collect metaworld3 --out demo/dataset --episodes 40
              wamkit collect libero_object --tasks 0-4 --out runs/libero_object
              wamkit collect metaworld3 --out demo/unseen --episodes 20 --skip 1000
              wamkit collect metaworld_mt50 --out mt50 --ray auto --workers 64
    """

    suite: Positional[
        Annotated[
            str,
            arg(
                help=f'Suite (metaworld3, libero_object, ...) or one task ("metaworld:reach-v3"). {BEFORE_LISTS}'
            ),
        ]
    ]
    out: Path
    tasks: Tasks = ()
    episodes: int = 40
    """Per task."""
    workers: int = 2
    """Simulators at a time, here or on the cluster."""
    noise: float = 0.0
    """Standard deviation of noise on the executed actions; the recorded actions have none."""
    noise_seconds: float = 0.0
    """How long noise lasts before it is another (0: a step); it takes the robot farther from the expert's path."""
    noise_pause_seconds: float = 0.0
    """Quiet time after every noise_seconds, in which the expert recovers (0: none); it can bear stronger noise then."""
    skip: int = 0
    """Seeds that are passed over, for episodes that another collection does not have."""
    libero_assets: LiberoAssets = Path()
    simulator_python: SimulatorPython = Path()
    ray: RayAddress = ""

    def __call__(self, overrides: Overrides) -> int:
        refuse(overrides)
        use_simulator(self.simulator_python, self.libero_assets)
        from wamkit_client.suites import suite

        from wamkit.stages.collect import CollectConfig, collect
        from wamkit.stages.simulators import simulators

        chosen = suite(self.suite).only(self.tasks) if self.tasks else suite(self.suite)
        output_folder(self.out, becomes=DATASET)
        config = CollectConfig(
            self.episodes,
            self.workers,
            noise=self.noise,
            noise_seconds=self.noise_seconds,
            noise_pause_seconds=self.noise_pause_seconds,
            skip=self.skip,
        )
        collect(chosen, self.out, config, simulators(self.ray))
        say(f"{self.out}: done. Next: {command('wamkit', 'data', 'check', self.out)}")
        return 0
