"""A policy in closed loop: eval."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from tyro.conf import Positional, arg
from wamkit_client.types import BadInput

from wamkit.commands.clusters import RayAddress, refuse_device
from wamkit.commands.devices import Device, use_device
from wamkit.commands.outputs import output_folder
from wamkit.commands.overrides import BEFORE_LISTS, Overrides, changed
from wamkit.commands.simulators import LiberoAssets, SimulatorPython, Tasks, use_simulator
from wamkit.io.progress import console, say

if TYPE_CHECKING:
    from collections.abc import Callable

    from wamkit_client.client import RemotePolicy
    from wamkit_client.suites import Suite

    from wamkit.config import Run


@dataclass(frozen=True)
class Eval:
    """Measure a policy in closed loop, on initial states that were not demonstrated.

    Examples: wamkit eval demo/run --episodes 20
              wamkit eval runs/libero --suite libero_object --tasks 0-9 --trials 50
              wamkit eval runs/robotwin --suite robotwin_clean --robotwin ../RoboTwin
              wamkit eval demo/run --like demo/run/eval/metaworld3/results.json
              wamkit eval fast_demo/run --policy.sample-steps 5 --out fast_demo/five_steps
              wamkit eval runs/arm --env my_env.py:make --episodes 50
              wamkit eval runs/libero --suite libero_90 --ray auto --eval.processes 64
              wamkit eval --server ws://robot-pc:8000 --suite metaworld3 --out results/served
    """

    run: Positional[Annotated[Path, arg(metavar="RUN", help=f"A run directory. {BEFORE_LISTS}")]]
    suite: str = ""
    """The suite to measure on; by default the one of the run."""
    env: str = ""
    """An environment of your own in place of a suite: "my_env.py:make" or "package.module:Class", a function or class
    that gives an Env (wamkit_client.envs.base); docs/evaluate.md."""
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
    server: str = ""
    """In place of RUN the URL of a server that has the policy, as `wamkit serve` prints it."""
    served: str = ""
    """The policy's name, where the server has several."""
    ray: RayAddress = ""

    def __call__(self, overrides: Overrides) -> int:
        if self.like != Path() and (self.suite or self.env or self.tasks or self.episodes):
            raise BadInput("--like repeats suite, tasks and episodes of a result; omit the other flags")
        refuse_device(self.ray, self.device)
        use_device(self.device)
        use_simulator(self.simulator_python, self.libero_assets)
        from wamkit.config import load_run
        from wamkit.stages.evaluation import measured, results_folder
        from wamkit.stages.tables import results_table

        if self.precision:
            overrides = overrides | {"eval.precision": self.precision}
        if self.server:
            return self._remotely(overrides)
        if self.served:
            raise BadInput("--served: names a policy of a server; give --server, or omit it")
        run = changed(load_run(self.run), overrides)
        if self.like != Path():
            again = self._again() if self.out == Path() else self.out
            return self._repeat(
                run, again, lambda asked, suite: measured(self.run, asked, suite, again, self.ray)
            )
        name = self._measured_on(run)
        out = results_folder(self.run, name) if self.out == Path() else self.out
        if not (
            out / "results.json"
        ).exists():  # a finished evaluation is only read, also on a read-only disk
            output_folder(out)
        console.print(results_table(self._results(run, name, out)))
        return 0

    def _remotely(self, overrides: Overrides) -> int:
        """As the policy of a server, which is asked about nothing but chunks and what results say of it."""
        from wamkit_client.client import NoAnswer, PolicyFailed, RemotePolicy

        if self.robotwin != Path() or self.ray:
            raise BadInput("--server: the policy is the server's; omit --robotwin and --ray")
        if self.out == Path():
            raise BadInput("--server: --out is missing, the folder for the results")
        try:
            with RemotePolicy(self.server, self.served) as remote:
                return self._of(remote, overrides)
        except (NoAnswer, PolicyFailed) as error:
            raise BadInput(
                f"{error}. Finished episodes are kept; the same command goes on with the others"
            ) from None

    def _of(self, remote: RemotePolicy, overrides: Overrides) -> int:
        from wamkit.stages.evaluation import chosen
        from wamkit.stages.served import Told, measured
        from wamkit.stages.tables import results_table

        told = Told.by(remote)
        run = changed(told.run, overrides)
        if self.like != Path():
            return self._repeat(
                run, self.out, lambda asked, suite: measured(remote, told, asked, suite, self.out)
            )
        suite = chosen(run, self._measured_on(run), self.episodes, self.tasks)
        output_folder(self.out)
        console.print(results_table(measured(remote, told, run, suite, self.out)))
        return 0

    def _measured_on(self, run: Run) -> str:
        """The name of the suite, or of the user's environment. BadInput where there is none, or both."""
        from wamkit_client.suites import is_own

        if self.suite and self.env:
            raise BadInput("--suite and --env: a policy is measured on one of them; omit the other")
        if self.env and not is_own(self.env):
            raise BadInput(
                f"--env {self.env}: expected my_env.py:make or package.module:Class; a suite that has a name is given "
                "by --suite"
            )
        name = self.env or self.suite or run.suite
        if not name:
            raise BadInput(
                f"run {self.run} has no suite; name one with --suite, or your own environment with --env my_env.py:make"
            )
        return name

    def _repeat(self, run: Run, out: Path, measure: Callable[[Run, Suite], dict[str, Any]]) -> int:
        from wamkit.stages.evaluation import repeat
        from wamkit.stages.tables import results_table

        output_folder(out)
        results, changes = repeat(run, self.like, measure)
        console.print(results_table(results))
        say("\n".join(changes) or "every episode ended as before")
        return 0

    def _again(self) -> Path:
        """Where a repetition of the earlier result goes, unless --out says otherwise."""
        from wamkit.eval.evaluate import read_results

        return self.run / "eval" / f"{read_results(self.like)['suite']['name']}-again"

    def _results(self, run: Run, name: str, out: Path) -> dict[str, Any]:
        if name.startswith("robotwin") and not self.env:
            if self.ray:
                raise BadInput("--ray: RoboTwin's suites are measured by its own evaluator; omit --ray")
            from wamkit import robotwin  # needs packages that nothing else needs

            if self.tasks:
                chosen = robotwin.find_suite(name).only(self.tasks)
                name = f"{name.partition(':')[0]}:{','.join(task.name for task in chosen.tasks)}"
            return robotwin.evaluate(self.run, run, name, self.episodes, out, self.robotwin)
        if self.robotwin != Path():
            raise BadInput(f"--robotwin: suite {name} is none of RoboTwin's; choose one with --suite")
        from wamkit.stages.evaluation import evaluate

        return evaluate(self.run, run, name, self.episodes, out, self.tasks, self.ray)
