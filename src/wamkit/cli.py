"""The command line. Each command is a dataclass: its fields are the flags, its docstring the help.

Nothing heavy is imported before a command runs, so that `wamkit --help` answers at once. Values of a recipe are
changed by their path: `wamkit train metaworld3 ... --train.steps 2000 --policy.objective action_only`.
"""

from __future__ import annotations

import os
import shlex
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import tyro
from rich.console import Console
from tyro.conf import Positional, arg, subcommand
from wamkit_client.types import BadInput

from wamkit.progress import console
from wamkit.recipes import DEMOS, RECIPES, recipe

if TYPE_CHECKING:
    from wamkit.config import Run

SECTIONS = ("--policy.", "--data.", "--train.", "--eval.", "--normalization.")
Recipe = Annotated[str, arg(metavar="{" + ",".join(RECIPES) + "}")]


def changed(run: Run, overrides: list[str]) -> Run:
    """The run with values changed by path; tyro explains a wrong path or value and exits with 2."""
    from wamkit.config import Run as RunType

    if not overrides:
        return run
    return tyro.cli(
        RunType, default=run, args=overrides, prog="wamkit train", config=(tyro.conf.AvoidSubcommands,)
    )


def refuse(overrides: list[str]) -> None:
    """For commands without a recipe."""
    if overrides:
        raise BadInput(f"{overrides[0]}: this command takes no recipe values; see --help")


@dataclass(frozen=True)
class Demo:
    """Collect, check, encode, train, evaluate and report, on one machine; run again to go on where it stopped.

    Examples: wamkit demo --out demo
              wamkit demo --policy fast_wam --out fast_demo
    """

    policy: Literal["light_wam", "fast_wam"] = "light_wam"
    smoke: bool = False
    """A few steps of training, to see that every stage works; learns nothing."""
    out: Path = Path("demo")
    """Everything is written here."""
    episodes: int = 40
    """Demonstrations per task."""
    seed: int = 0
    """Of training: data order and noise."""

    def __call__(self, overrides: list[str]) -> int:
        from wamkit.demo import demo
        from wamkit.recipes.metaworld import smoke

        run = recipe(DEMOS[self.policy])
        seeded = [*overrides, "--train.seed", str(self.seed)]
        return demo(changed(smoke(run) if self.smoke else run, seeded), self.out, self.episodes)


@dataclass(frozen=True)
class Collect:
    """Record demonstrations of scripted experts as a LeRobot v3.0 dataset; successful episodes only.

    Example: wamkit collect metaworld3 --out demo/dataset --episodes 40
    """

    suite: Positional[str]
    """Suite (metaworld3, metaworld_mt10, ...) or one task ("metaworld:reach-v3")."""
    out: Path
    episodes: int = 40
    """Per task."""
    workers: int = 2
    noise: float = 0.0
    """Standard deviation of noise on what the expert executes; what it meant is recorded."""

    def __call__(self, overrides: list[str]) -> int:
        refuse(overrides)
        from wamkit_client.suites import suite

        from wamkit.collect import CollectConfig, collect

        collect(suite(self.suite), self.out, CollectConfig(self.episodes, self.workers, noise=self.noise))
        console.print(f"{self.out}: done. Next: wamkit data check {self.out}")
        return 0


@dataclass(frozen=True)
class DataCheck:
    """Look for everything that breaks training in a LeRobot dataset; exit status 1 where something is found.

    Example: wamkit data check demo/dataset
    """

    path: Positional[Path]

    def __call__(self, overrides: list[str]) -> int:
        refuse(overrides)
        from wamkit.data.check import check

        problems = check(self.path)
        for problem in problems:
            console.print(str(problem), soft_wrap=True, markup=False)
        console.print(
            f"{self.path}: {len(problems)} problem(s)" if problems else f"{self.path}: no problem found"
        )
        return 1 if problems else 0


@dataclass(frozen=True)
class DataInfo:
    """What a LeRobot dataset holds: version, episodes, cameras, tasks, ranges of actions and proprio.

    Example: wamkit data info demo/dataset
    """

    path: Positional[Path]

    def __call__(self, overrides: list[str]) -> int:
        refuse(overrides)
        from wamkit.tables import dataset_table

        console.print(dataset_table(self.path))
        return 0


@dataclass(frozen=True)
class Data:
    """Look at a dataset."""

    command: Annotated[DataCheck, subcommand("check")] | Annotated[DataInfo, subcommand("info")]

    def __call__(self, overrides: list[str]) -> int:
        return self.command(overrides)


@dataclass(frozen=True)
class Encode:
    """Compute the latents of a dataset once, for training without video; several processes may share the work.

    Example: wamkit encode metaworld3 --dataset demo/dataset --cache demo/cache
    """

    recipe: Positional[Recipe]
    dataset: Path
    cache: Path

    def __call__(self, overrides: list[str]) -> int:
        from wamkit.stages import best_device, encode

        encode(changed(recipe(self.recipe), overrides), self.dataset, self.cache, best_device())
        return 0


@dataclass(frozen=True)
class Train:
    """Train a policy from a latent cache; the same command again goes on where it stopped.

    Example: wamkit train metaworld3 --dataset demo/dataset --cache demo/cache --out demo/run --train.steps 1000
    """

    recipe: Positional[Recipe]
    dataset: Path = Path("dataset")
    cache: Path = Path("cache")
    out: Path = Path("runs/new")
    """The run directory."""
    plan: bool = False
    """Print parameters, memory and data facts, and stop; nothing is allocated."""

    def __call__(self, overrides: list[str]) -> int:
        run = changed(recipe(self.recipe), overrides)
        if self.plan:
            from wamkit.tables import plan_tables

            for table in plan_tables(run, self.dataset):
                console.print(table)
            return 0
        from wamkit.stages import best_device, train

        train(run, self.dataset, self.cache, self.out, best_device())
        console.print(f"{self.out}: done. Next: wamkit eval {self.out}")
        return 0


@dataclass(frozen=True)
class Eval:
    """Measure a policy in closed loop on initial states that were never demonstrated.

    Examples: wamkit eval demo/run --episodes 20
              wamkit eval demo/run --like demo/run/eval/metaworld3/results.json
              wamkit eval fast_demo/run --policy.sample-steps 5 --out fast_demo/five_steps
    """

    run: Positional[Path]
    """A run directory."""
    suite: str = ""
    """Another suite than the run's own."""
    episodes: int = 0
    """Per task; 0 means as many as the suite's protocol says."""
    like: Path = Path()
    """Repeat this result (same suite, seeds and protocol) and say what differs."""
    out: Path = Path()
    """Where results go; by default RUN/eval/SUITE, and RUN/eval/SUITE-again for --like."""

    def __call__(self, overrides: list[str]) -> int:
        from wamkit import stages
        from wamkit.config import load_run
        from wamkit.tables import results_table

        run = changed(load_run(self.run), overrides)
        name = self.suite or run.suite
        out = self.run / "eval" / name if self.out == Path() else self.out
        if self.like == Path():
            results = stages.evaluate(self.run, run, name, self.episodes, out)
            console.print(results_table(results))
            return 0
        out = out.with_name(f"{name}-again") if self.out == Path() else out
        results, changes = stages.repeat(self.run, run, self.like, out)
        console.print(results_table(results))
        console.print("\n".join(changes) or "every episode ended as before", markup=False)
        return 0


@dataclass(frozen=True)
class Report:
    """Write the page of a run: success, videos, imagined futures, attention, curves.

    Example: wamkit report demo/run --dataset demo/dataset
    """

    run: Positional[Path]
    dataset: Path
    """The dataset it was trained on (for the histograms)."""
    results: Path = Path()
    """Folder of an evaluation; by default RUN/eval/SUITE of the run's own suite."""
    out: Path = Path()
    """The page; by default RUN/report.html."""

    def __call__(self, overrides: list[str]) -> int:
        refuse(overrides)
        from wamkit import stages
        from wamkit.config import load_run

        results = self.run / "eval" / load_run(self.run).suite if self.results == Path() else self.results
        page = self.run / "report.html" if self.out == Path() else self.out
        stages.report(self.run, self.dataset, results, page, {})
        console.print(f"page: {page}", soft_wrap=True)
        return 0


@dataclass(frozen=True)
class Compare:
    """Train and measure recipes on one dataset, with equal steps and equal data order, and write one page.

    The same command again goes on where it stopped; several processes with the same command share the rows.

    Example: wamkit compare metaworld3 metaworld3_fast_wam --dataset demo/dataset --cache demo/cache --out comparison
    """

    recipes: Positional[tuple[str, ...]]
    """The first of each kind of policy is what the others are compared with."""
    dataset: Path
    cache: Path
    """Filled where it is not yet."""
    out: Path
    """Run directories and the page."""
    seeds: tuple[int, ...] = (0, 1)
    """Of training; every recipe is trained once with each."""
    episodes: int = 0
    """Per task; 0 means as many as the suite's protocol says."""

    def __call__(self, overrides: list[str]) -> int:
        if "--train.seed" in overrides:
            raise BadInput("--train.seed: the seeds of a comparison are given by --seeds")
        runs = tuple(changed(recipe(name), overrides) for name in self.recipes)
        from wamkit.compare import Comparison, compare
        from wamkit.tables import comparison_table

        asked = Comparison(runs, self.seeds, self.dataset, self.cache, self.out, self.episodes)
        comparison = compare(asked, self._command(overrides))
        if comparison:
            console.print(comparison_table(comparison))
            console.print(f"page: {asked.page}", soft_wrap=True)
        return 0

    def _command(self, overrides: list[str]) -> str:
        flags = {
            "--dataset": self.dataset,
            "--cache": self.cache,
            "--out": self.out,
            "--episodes": self.episodes,
        }
        words = ["wamkit", "compare", *self.recipes, "--seeds", *map(str, self.seeds)]
        words += [str(word) for flag in flags.items() for word in flag]
        return shlex.join(words + overrides)


@dataclass(frozen=True)
class Inspect:
    """Look at a run directory (what it is, its parameters), or at this machine ("system").

    Examples: wamkit inspect demo/run
              wamkit inspect system
    """

    what: Positional[str]

    def __call__(self, overrides: list[str]) -> int:
        refuse(overrides)
        if self.what == "system":
            return _system()
        from wamkit.tables import run_tables

        for table in run_tables(Path(self.what)):
            console.print(table)
        return 0


def _system() -> int:
    from wamkit_client.envs.rendering import probe

    found = probe()
    console.print(found.describe(), soft_wrap=True, markup=False)
    return 0 if found.working else 1


@dataclass(frozen=True)
class Convert:
    """Turn a released checkpoint into a run directory, or a run directory into a released checkpoint; bit for bit.

    Examples: wamkit convert fast-wam libero_uncond_2cam224.pt runs/libero --recipe libero_fast_wam
                  --stats libero_uncond_2cam224_dataset_stats.json
              wamkit convert fast-wam runs/libero mine.pt --to official
    """

    model: Positional[Literal["fast-wam", "light-wam"]]
    source: Positional[Path]
    """The released file (of Fast-WAM also LeRobot's model.safetensors); with --to official a run directory."""
    target: Positional[Path]
    """What to write; it must not exist."""
    to: Literal["run", "official"] = "run"
    recipe: Recipe = ""
    """What the file was trained with; sizes are taken from the file."""
    stats: Path = Path()
    """The statistics that were released with it (*_dataset_stats.json)."""
    robot: str = "panda"
    """Whose statistics they are, as observations name it."""

    def __call__(self, overrides: list[str]) -> int:
        from wamkit.conversion import from_official, to_official

        if self.to == "official":
            refuse(overrides)
            step = to_official(self.model, self.source, self.target)
            console.print(f"{self.target}: written, step {step}", soft_wrap=True)
            return 0
        if not self.recipe:
            raise BadInput("a run directory needs --recipe, what the file was trained with, and --stats")
        run = changed(recipe(self.recipe), overrides)
        from_official(self.model, self.source, run, self.stats, self.robot, self.target)
        console.print(f"{self.target}: done. Next: wamkit inspect {self.target}", soft_wrap=True)
        return 0


Command = (
    Annotated[Demo, subcommand("demo")]
    | Annotated[Collect, subcommand("collect")]
    | Annotated[Data, subcommand("data")]
    | Annotated[Encode, subcommand("encode")]
    | Annotated[Train, subcommand("train")]
    | Annotated[Eval, subcommand("eval")]
    | Annotated[Report, subcommand("report")]
    | Annotated[Compare, subcommand("compare")]
    | Annotated[Inspect, subcommand("inspect")]
    | Annotated[Convert, subcommand("convert")]
)


def split_overrides(args: list[str]) -> tuple[list[str], list[str]]:
    """Flags of the command, and the `--section.name value...` pairs that change a recipe."""
    own: list[str] = []
    overrides: list[str] = []
    target = own
    for word in args:
        if word.startswith("--"):
            target = overrides if word.startswith(SECTIONS) else own
        target.append(word)
    return own, overrides


def main() -> None:
    """Entry point of `wamkit`. Exit status: 0 done, 1 problems found, 2 bad input, 130 interrupted."""
    # Threads that spin while they wait starve the simulators and loaders beside them (three times slower, measured).
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")
    sys.exit(run_command(sys.argv[1:]))


def run_command(args: list[str]) -> int:
    """Parse and run one command; its exit status."""
    own, overrides = split_overrides(args)
    command = tyro.cli(
        Command,
        args=own,
        prog="wamkit",
        description="Train, measure and run World Action Models. Start with: wamkit demo",
        config=(tyro.conf.OmitArgPrefixes,),
    )
    try:
        return command(overrides)
    except BadInput as error:
        Console(stderr=True, highlight=False).print(
            f"error: {error}", soft_wrap=True, markup=False, style="red"
        )
        return 2
    except KeyboardInterrupt as interrupt:
        Console(stderr=True).print(f"interrupted. {interrupt}", soft_wrap=True, markup=False)
        return 130


if __name__ == "__main__":
    main()
