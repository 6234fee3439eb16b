"""analyse: what trained world models predict and imagine, what latency costs a policy and what it withstands, as a
record and a page."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from tyro.conf import Positional, arg, subcommand
from wamkit_client.chunk import ExecutorName
from wamkit_client.types import BadInput

from wamkit.commands.datasets import Datasets
from wamkit.commands.devices import Device, use_device
from wamkit.commands.outputs import output_folder
from wamkit.commands.overrides import BEFORE_LISTS, Overrides, changed, flag_of, refuse, words
from wamkit.commands.simulators import LiberoAssets, SimulatorPython, Tasks, use_simulator
from wamkit.io.progress import command, say

if TYPE_CHECKING:
    from wamkit.stages.robustness import Subject

AnalysedRun = Annotated[Path, arg(metavar="RUN", help=f"A run directory. {BEFORE_LISTS}")]
Out = Annotated[Path, arg(help="Where JSON and page are written; by default RUN/analysis.")]


@dataclass(frozen=True)
class AnalyseRollout:
    """Roll a latent world model out on its own predictions, over whole episodes, beside baselines.

    Example: wamkit analyse rollout lawam_demo/run --dataset lawam_demo/dataset
    """

    run: Positional[AnalysedRun]
    dataset: Datasets
    out: Out = Path()
    trajectories: int = 500
    """Most episodes that are rolled out."""
    least: int = 50
    """A curve ends where fewer trajectories are left."""
    seed: int = 0
    """Of the bootstrap intervals."""

    def __call__(self, overrides: Overrides) -> int:
        refuse(overrides)
        from wamkit.data.joined import dataset_flags
        from wamkit.report.analyses import RolloutConfig
        from wamkit.stages.analyse import rollout

        out = self.run / "analysis" if self.out == Path() else self.out
        config = RolloutConfig(trajectories=self.trajectories, least=self.least, seed=self.seed)
        output_folder(out)
        numbers = ("--trajectories", self.trajectories, "--least", self.least, "--seed", self.seed)
        flags = (*dataset_flags(self.dataset), "--out", out, *map(str, numbers))
        rollout(
            self.run, self.dataset, config, out, command("wamkit", "analyse", "rollout", self.run, *flags)
        )
        say(f"page: {out / 'rollout.html'}")
        return 0


@dataclass(frozen=True)
class AnalyseHeatmap:
    """Show predicted features of an episode as maps: similarity to an anchor patch, and principal components.

    Example: wamkit analyse heatmap lawam_demo/run --dataset lawam_demo/dataset --episode 3 --anchor 1,2
    """

    run: Positional[AnalysedRun]
    dataset: Datasets
    out: Out = Path()
    episode: int = 0
    """Its number in the dataset."""
    anchor: str = ""
    """ROW,COLUMN of a patch of its first frame, from 0; by default at 3/16 of the height, 7/16 of the width."""
    chunks: int = 6
    """Most that are shown."""

    def __call__(self, overrides: Overrides) -> int:
        refuse(overrides)
        from wamkit.data.joined import dataset_flags
        from wamkit.report.analyses import HeatmapConfig
        from wamkit.stages.analyse import heatmap

        out = self.run / "analysis" if self.out == Path() else self.out
        config = HeatmapConfig(self.episode, self._anchor(), self.chunks)
        output_folder(out)
        place = ("--anchor", self.anchor) if self.anchor else ()
        flags = (*dataset_flags(self.dataset), "--out", out, "--episode", str(self.episode), *place)
        heatmap(
            self.run, self.dataset, config, out, command("wamkit", "analyse", "heatmap", self.run, *flags)
        )
        say(f"page: {out / 'heatmap.html'}")
        return 0

    def _anchor(self) -> tuple[int, ...]:
        words = self.anchor.split(",") if self.anchor else []
        if not all(word.strip().isdecimal() for word in words) or len(words) not in (0, 2):
            raise BadInput(f"--anchor {self.anchor}: expected a row and a column, as --anchor 3,7")
        return tuple(map(int, words))


@dataclass(frozen=True)
class AnalyseImagination:
    """Let a policy imagine whole episodes from their first images, beside what was recorded and the image repeated.

    Example: wamkit analyse imagination demo/run --dataset demo/dataset
    """

    run: Positional[AnalysedRun]
    dataset: Datasets
    out: Out = Path()
    episodes: int = 40
    """Most that are imagined; those that training held out, where it held some out."""
    least: int = 5
    """A curve ends where fewer episodes are left."""
    seed: int = 0
    """Of the noise."""

    def __call__(self, overrides: Overrides) -> int:
        refuse(overrides)
        from wamkit.data.joined import dataset_flags
        from wamkit.report.analyses import ImaginationConfig
        from wamkit.stages.imagination import imagination

        out = self.run / "analysis" if self.out == Path() else self.out
        config = ImaginationConfig(self.episodes, self.least, self.seed)
        output_folder(out)
        numbers = ("--episodes", self.episodes, "--least", self.least, "--seed", self.seed)
        flags = (*dataset_flags(self.dataset), "--out", out, *map(str, numbers))
        again = command("wamkit", "analyse", "imagination", self.run, *flags)
        imagination(self.run, self.dataset, config, out, again)
        say(f"page: {out / 'imagination.html'}")
        return 0


@dataclass(frozen=True)
class AnalyseMixedHz:
    """Show what runs solve at each control rate that they were evaluated at; the first is what others are held against.

    Example: wamkit analyse mixed-hz rates/seconds rates/none rates/index --out rates
    """

    runs: Positional[Annotated[tuple[Path, ...], arg(metavar="RUN")]]
    """Run directories, with evaluations at several rates (wamkit eval RUN --eval.robot ROBOT)."""
    out: Path
    """Where mixed_hz.json and mixed_hz.html are written."""

    def __call__(self, overrides: Overrides) -> int:
        refuse(overrides)
        from wamkit.stages.mixed_rates import mixed_rates

        output_folder(self.out)
        mixed_rates(
            self.runs, self.out, command("wamkit", "analyse", "mixed-hz", *self.runs, "--out", self.out)
        )
        say(f"page: {self.out / 'mixed_hz.html'}")
        return 0


@dataclass(frozen=True)
class AnalyseExecution:
    """Measure what latency costs: every executor at every delay, in closed loop. Success, jerk, idle time, staleness.

    Run the same command again to resume; finished evaluations are only read.

    Examples: wamkit analyse execution demo/run --delays 0 50 --out delays
              wamkit analyse execution runs/fast_wam runs/lawam --executors sync async ensemble guided --out delays
    """

    runs: Positional[Annotated[tuple[Path, ...], arg(metavar="RUN", help=f"Run directories. {BEFORE_LISTS}")]]
    out: Path
    """Where the evaluations, execution.json and execution.html are written."""
    delays: tuple[float, ...] = (0.0, 50.0, 100.0, 200.0)
    """From a query to its answer, milliseconds."""
    executors: tuple[ExecutorName, ...] = ("sync", "async", "ensemble")
    """The first, at the least delay, is what others are held against."""
    suite: str = ""
    """By default the one of the first run."""
    episodes: int = 0
    """Per task; 0: as many as the protocol of the suite says."""
    device: Device = ""
    libero_assets: LiberoAssets = Path()
    simulator_python: SimulatorPython = Path()

    def __call__(self, overrides: Overrides) -> int:
        for path in ("eval.executor", "eval.delay_ms"):
            if path in overrides:
                raise BadInput(f"{flag_of(path)}: this command tries several; use --executors and --delays")
        use_device(self.device)
        use_simulator(self.simulator_python, self.libero_assets)
        from wamkit.config import load_run
        from wamkit.stages.execution import PAGE, Grid, execution

        runs = {path: changed(load_run(path), overrides) for path in self.runs}
        output_folder(self.out)
        execution(
            Grid(runs, self.executors, self.delays, self.out, self.suite, self.episodes),
            self._command(overrides),
        )
        say(f"page: {self.out / PAGE}")
        return 0

    def _command(self, overrides: Overrides) -> str:
        numbers = ("--delays", *(f"{delay:g}" for delay in self.delays), "--executors", *self.executors)
        suite = ("--suite", self.suite) if self.suite else ()
        rest = ("--episodes", str(self.episodes), *suite, *words(overrides))
        return command("wamkit", "analyse", "execution", *self.runs, "--out", self.out, *numbers, *rest)


@dataclass(frozen=True)
class AnalyseRobustness:
    """Measure what policies solve where something is otherwise: object layout, camera, the robot's first pose, words of
    the instruction, light, background, noise of cameras, delay and noise of actions, each at three strengths.

    Run the same command again to resume; finished evaluations are only read. `wamkit suites` lists axes and strengths.

    Examples: wamkit analyse robustness demo/run --episodes 5 --out robust
              wamkit analyse robustness runs/fast_wam runs/lawam --axes camera light --out robust
              wamkit analyse robustness --server ws://robot-pc:8000 --suite metaworld3 --out robust
    """

    runs: Positional[Annotated[tuple[Path, ...], arg(metavar="RUN", help=f"Run directories. {BEFORE_LISTS}")]]
    out: Path
    """Where the evaluations, robustness.json and robustness.html are written."""
    axes: tuple[str, ...] = ()
    """By default all of them."""
    suite: str = ""
    """By default the one of the first run."""
    tasks: Tasks = ()
    episodes: int = 0
    """Per task; 0: as many as the protocol of the suite says."""
    device: Device = ""
    libero_assets: LiberoAssets = Path()
    simulator_python: SimulatorPython = Path()
    server: str = ""
    """In place of run directories the URL of a server that has the policy."""
    served: str = ""
    """The policy's name, where the server has several."""

    def __call__(self, overrides: Overrides) -> int:
        if bool(self.runs) == bool(self.server) or (self.served and not self.server):
            raise BadInput("expected run directories, or --server with the URL of one that has the policy")
        use_device(self.device)
        use_simulator(self.simulator_python, self.libero_assets)
        from wamkit.config import load_run
        from wamkit.stages.robustness import of_runs, of_server
        from wamkit.stages.served import Told

        if not self.server:
            self._grid(of_runs({path: changed(load_run(path), overrides) for path in self.runs}), overrides)
            return 0
        from wamkit_client.client import NoAnswer, PolicyFailed, RemotePolicy

        try:
            with RemotePolicy(self.server, self.served) as remote:
                told = Told.by(remote)
                self._grid(of_server(remote, told, changed(told.run, overrides)), overrides)
        except (NoAnswer, PolicyFailed) as error:
            raise BadInput(f"{error}. Finished episodes are kept; the same command goes on") from None
        return 0

    def _grid(self, subjects: dict[str, Subject], overrides: Overrides) -> None:
        from wamkit.stages.robustness import PAGE, Grid, robustness

        output_folder(self.out)
        asked = Grid(subjects, self.out, self.suite, self.axes, self.episodes, self.tasks)
        robustness(asked, self._command(overrides))
        say(f"page: {self.out / PAGE}")

    def _command(self, overrides: Overrides) -> str:
        given = {"--suite": self.suite, "--server": self.server, "--served": self.served}
        flags = [word for flag, value in given.items() if value for word in (flag, value)]
        lists = [
            word
            for flag, own in (("--axes", self.axes), ("--tasks", self.tasks))
            for word in (flag, *own)
            if own
        ]
        rest = ("--episodes", str(self.episodes), *flags, *words(overrides), *lists)
        return command("wamkit", "analyse", "robustness", *self.runs, "--out", self.out, *rest)


@dataclass(frozen=True)
class AnalyseWarning:
    """Show whether the world model of a run warns of what breaks an episode, and of nothing else, beside simple scores.

    Example: wamkit analyse warning demo/run --episodes 10 --perturbations object_moved lights_off=0.5 --out demo/alarms

    The run must be calibrated (wamkit calibrate). Every perturbation is an evaluation; the same command goes on.
    """

    run: Positional[AnalysedRun]
    suite: str = ""
    """Of Meta-World; by default the run's."""
    perturbations: tuple[str, ...] = ("object_moved", "camera_shifted", "lights_off", "distractor")
    """What goes wrong, each with its strength after "=" where it is not the usual one."""
    episodes: int = 0
    """Per task; 0: as many as the suite says."""
    seconds: float = 0.5
    """After a perturbation, in which it should be noticed."""
    out: Out = Path()

    def __call__(self, overrides: Overrides) -> int:
        from wamkit.config import load_run
        from wamkit.stages.alarms import AlarmsConfig, alarms
        from wamkit.stages.run import best_device

        run = changed(load_run(self.run), overrides)
        out = self.run / "analysis" / "warning" if self.out == Path() else self.out
        config = AlarmsConfig(self.suite or run.suite, self.perturbations, self.episodes, self.seconds)
        output_folder(out)
        numbers = ("--episodes", self.episodes, "--seconds", self.seconds)
        flags = ("--suite", config.suite, *map(str, numbers), "--out", out, *words(overrides))
        chosen = ("--perturbations", *self.perturbations)
        again = command("wamkit", "analyse", "warning", self.run, *flags, *chosen)
        alarms(self.run, run, config, out, best_device(), again)
        say(f"page: {out / 'alarms.html'}")
        return 0


@dataclass(frozen=True)
class Analyse:
    """Look into trained world models, what they imagine and warn of, at policies asked at several rates, at what
    latency costs, and at what policies withstand."""

    command: (
        Annotated[AnalyseRollout, subcommand("rollout")]
        | Annotated[AnalyseHeatmap, subcommand("heatmap")]
        | Annotated[AnalyseImagination, subcommand("imagination")]
        | Annotated[AnalyseMixedHz, subcommand("mixed-hz")]
        | Annotated[AnalyseExecution, subcommand("execution")]
        | Annotated[AnalyseRobustness, subcommand("robustness")]
        | Annotated[AnalyseWarning, subcommand("warning")]
    )

    def __call__(self, overrides: Overrides) -> int:
        return self.command(overrides)
