"""A policy in closed loop: eval."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from tyro.conf import Positional, arg
from wamkit_client.types import BadInput

from wamkit.commands.devices import Device, use_device
from wamkit.commands.outputs import output_folder
from wamkit.commands.overrides import BEFORE_LISTS, Overrides, changed
from wamkit.commands.simulators import LiberoAssets, SimulatorPython, Tasks, use_simulator
from wamkit.io.progress import console, say

if TYPE_CHECKING:
    from wamkit.config import Run


@dataclass(frozen=True)
class Eval:
    """Measure a policy in closed loop, on initial states that were not demonstrated.

    Examples: wamkit eval demo/run --episodes 20
              wamkit eval runs/libero --suite libero_object --tasks 0-9 --trials 50
              wamkit eval runs/robotwin --suite robotwin_clean --robotwin ../RoboTwin
              wamkit eval demo/run --like demo/run/eval/metaworld3/results.json
              wamkit eval fast_demo/run --policy.sample-steps 5 --out fast_demo/five_steps
    """

    run: Positional[Annotated[Path, arg(metavar="RUN", help=f"A run directory. {BEFORE_LISTS}")]]
    suite: str = ""
    """The suite to measure on; by default the one of the run."""
    tasks: Tasks = ()
    episodes: Annotated[int, arg(aliases=["--trials"])] = 0
    """Per task; 0: as many as the protocol of the suite says."""
    precision: Literal["", "stored", "bf16", "fp32"] = ""
    """Of the weights when acting; by default the precision they are stored in, which is the published one."""
    like: Path = Path()
    """Repeat this result (same suite, seeds and protocol) and print what differs."""
    out: Path = Path()
    """The results folder; by default RUN/eval/SUITE, and RUN/eval/SUITE-again with --like."""
    device: Device = ""
    libero_assets: LiberoAssets = Path()
    simulator_python: SimulatorPython = Path()
    robotwin: Path = Path()
    """A checkout of RoboTwin, for its suites."""

    def __call__(self, overrides: Overrides) -> int:
        use_device(self.device)
        use_simulator(self.simulator_python, self.libero_assets)
        from wamkit.config import load_run
        from wamkit.stages import run as stages
        from wamkit.stages.tables import results_table

        if self.precision:
            overrides = overrides | {"eval.precision": self.precision}
        run = changed(load_run(self.run), overrides)
        name = self.suite or run.suite
        if not name:
            raise BadInput(f"run {self.run} has no suite; name one with --suite")
        out = self.run / "eval" / name if self.out == Path() else self.out
        if self.like == Path():
            if not (
                out / "results.json"
            ).exists():  # a finished evaluation is only read, also on a read-only disk
                output_folder(out)
            console.print(results_table(self._results(run, name, out)))
            return 0
        if self.suite or self.tasks or self.episodes:
            raise BadInput("--like repeats suite, tasks and episodes of a result; omit the other flags")
        out = out.with_name(f"{name}-again") if self.out == Path() else out
        output_folder(out)
        results, changes = stages.repeat(self.run, run, self.like, out)
        console.print(results_table(results))
        say("\n".join(changes) or "every episode ended as before")
        return 0

    def _results(self, run: Run, name: str, out: Path) -> dict[str, Any]:
        if name.startswith("robotwin"):
            from wamkit import robotwin  # needs packages that nothing else needs

            if self.tasks:
                chosen = robotwin.find_suite(name).only(self.tasks)
                name = f"{name.partition(':')[0]}:{','.join(task.name for task in chosen.tasks)}"
            return robotwin.evaluate(self.run, run, name, self.episodes, out, self.robotwin)
        if self.robotwin != Path():
            raise BadInput(f"--robotwin: suite {name} is none of RoboTwin's; choose one with --suite")
        from wamkit.stages import run as stages

        return stages.evaluate(self.run, run, name, self.episodes, out, self.tasks)
