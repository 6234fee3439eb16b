"""From a recipe to a measured policy: demo, collect, encode, train, eval, report, compare."""

from __future__ import annotations

import os
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from tyro.conf import Positional, arg
from wamkit_client.types import BadInput

from wamkit.commands.datasets import Datasets
from wamkit.commands.outputs import CACHE, DATASET, output_file, output_folder
from wamkit.commands.overrides import (
    BEFORE_LISTS,
    ListedRecipe,
    Overrides,
    changed,
    refuse,
    refuse_seed,
    refuse_start,
    words,
)
from wamkit.io.progress import command, console, say
from wamkit.recipes import DEMOS, earlier, recipe

if TYPE_CHECKING:
    from wamkit.config import Run

    DemoPolicy = str
else:
    DemoPolicy = Literal[tuple(DEMOS)]

Tasks = Annotated[
    tuple[str, ...], arg(help="Some of the suite's tasks: names, numbers from 0, ranges (0-9).")
]
LiberoAssets = Annotated[Path, arg(help="LIBERO's meshes and textures, where the package has none.")]
SimulatorPython = Annotated[Path, arg(help="The Python of a simulator with an environment of its own.")]

Weights = Annotated[
    tuple[float, ...],
    arg(
        help="How often samples of each --dataset are seen, relative to the others, one number for each; encode and "
        "train take the same. Omit the flag to read all as one dataset."
    ),
]


def use_simulator(python: Path, libero_assets: Path) -> None:
    """Set what this process and those it starts will use. Path(): this Python; the assets that are found."""
    from wamkit_client.envs.foreign import PYTHON_VARIABLE
    from wamkit_client.envs.libero.install import ASSETS_VARIABLE

    for variable, path in ((PYTHON_VARIABLE, python), (ASSETS_VARIABLE, libero_assets)):
        if path != Path():
            os.environ[variable] = os.path.abspath(path)  # a virtual environment's python is a link; keep it


@dataclass(frozen=True)
class Demo:
    """Collect, check, encode, train, evaluate and report, on one machine; run it again to resume.

    Examples: wamkit demo --out demo
              wamkit demo --policy fast_wam --out fast_demo
              wamkit demo --policy lawam --out lawam_demo
    """

    policy: DemoPolicy = next(iter(DEMOS))
    smoke: bool = False
    """A few training steps only, to see that every stage works."""
    out: Path = Path("demo")
    """Where everything is written."""
    episodes: int = 40
    """Demonstrations per task."""
    seed: int = 0
    """Of training: initial weights, data order and noise."""

    def __call__(self, overrides: Overrides) -> int:
        from wamkit.recipes.metaworld import smoke
        from wamkit.stages.demo import demo

        refuse_seed(overrides, "--seed")
        name, other = DEMOS[self.policy]
        refuse_start(name, overrides)
        seed = {"train.seed": self.seed}
        before = [changed(smoke(run) if self.smoke else run, seed) for run in earlier(name)]
        run = smoke(recipe(name)) if self.smoke else recipe(name)
        output_folder(self.out)
        return demo(changed(run, overrides | seed), other, self.out, self.episodes, before)


@dataclass(frozen=True)
class Collect:
    """Record demonstrations of scripted experts as a LeRobot v3.0 dataset; successful episodes only.

    Examples: wamkit collect metaworld3 --out demo/dataset --episodes 40
              wamkit collect libero_object --tasks 0-4 --out runs/libero_object
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
    noise: float = 0.0
    """Standard deviation of noise on the executed actions; the recorded actions have none."""
    libero_assets: LiberoAssets = Path()
    simulator_python: SimulatorPython = Path()

    def __call__(self, overrides: Overrides) -> int:
        refuse(overrides)
        use_simulator(self.simulator_python, self.libero_assets)
        from wamkit_client.suites import suite

        from wamkit.stages.collect import CollectConfig, collect

        chosen = suite(self.suite).only(self.tasks) if self.tasks else suite(self.suite)
        output_folder(self.out, becomes=DATASET)
        collect(chosen, self.out, CollectConfig(self.episodes, self.workers, noise=self.noise))
        say(f"{self.out}: done. Next: {command('wamkit', 'data', 'check', self.out)}")
        return 0


def _weighted(run: Run, datasets: tuple[Path, ...], weights: tuple[float, ...]) -> Run:
    """The run with a source for each dataset, where `weights` are given. BadInput where there are not as many."""
    if not weights:
        return run
    from wamkit.config import Source

    alike = tuple(Source(f"dataset-{place}", run.data, run.actions) for place in range(len(datasets)))
    sources = run.sources or alike
    if len(weights) != len(sources):
        raise BadInput(
            f"--weights: {len(weights)} numbers for {len(sources)} datasets; give one for each --dataset, in order"
        )
    weighted = (replace(source, weight=weight) for source, weight in zip(sources, weights, strict=True))
    return replace(run, sources=tuple(weighted))


@dataclass(frozen=True)
class Encode:
    """Compute the latents of a dataset once, so that training decodes no video; several processes may share the work.

    Examples: wamkit encode metaworld3 --dataset demo/dataset --cache demo/cache
              wamkit encode libero_fast_wam --dataset spatial --dataset object --cache cache
    """

    recipe: Positional[ListedRecipe]
    dataset: Datasets
    cache: Path
    weights: Weights = ()

    def __call__(self, overrides: Overrides) -> int:
        run = _weighted(changed(recipe(self.recipe), overrides), self.dataset, self.weights)
        output_folder(self.cache, becomes=CACHE)
        from wamkit.stages.run import best_device, encode

        encode(run, self.dataset, self.cache, best_device())
        return 0


@dataclass(frozen=True)
class Train:
    """Train a policy; run the same command again to resume.

    Examples: wamkit train metaworld3 --dataset demo/dataset --cache demo/cache --out demo/run --train.steps 1000
              wamkit train metaworld3 --dataset old --dataset new --weights 1 3 --out run --train.workers 2
    """

    recipe: Positional[ListedRecipe]
    dataset: Datasets = ()
    cache: Path = Path()
    """Latents encoded beforehand; omit the flag to encode while training."""
    out: Path = Path("runs/new")
    """The run directory."""
    weights: Weights = ()
    stats: Path = Path()
    """A released *_dataset_stats.json, whose statistics replace those of the dataset."""
    plan: bool = False
    """Print parameters, memory, data facts and, for a published recipe, what its _ours variant changes; then stop."""

    def __call__(self, overrides: Overrides) -> int:
        run = _weighted(changed(recipe(self.recipe), overrides), self.dataset, self.weights)
        if self.plan:
            from wamkit.stages.tables import plan_tables

            for table in plan_tables(run, self.dataset):
                console.print(table)
            return 0
        output_folder(self.out)
        from wamkit.stages.run import best_device, train

        train(run, self.dataset, self.cache, self.out, best_device(), self.stats)
        measured = f" Next: {command('wamkit', 'eval', self.out)}" if run.suite else ""
        say(f"{self.out}: done.{measured}")
        return 0


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
    libero_assets: LiberoAssets = Path()
    simulator_python: SimulatorPython = Path()
    robotwin: Path = Path()
    """A checkout of RoboTwin, for its suites."""

    def __call__(self, overrides: Overrides) -> int:
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


@dataclass(frozen=True)
class Report:
    """Write the report page of a run: success, videos, imagined futures or subgoals, attention, curves.

    Examples: wamkit report demo/run --dataset demo/dataset
              wamkit report demo/run --dataset demo/dataset --sections success future
    """

    run: Positional[Path]
    dataset: Datasets
    results: Path = Path()
    """The results folder of an evaluation; by default RUN/eval/SUITE."""
    out: Path = Path()
    """The page; by default RUN/report.html."""
    sections: tuple[str, ...] = ()
    """Some of its sections: success, rollouts, future, ...; by default all that the policy has something for."""

    def __call__(self, overrides: Overrides) -> int:
        refuse(overrides)
        from wamkit.config import load_run
        from wamkit.stages import run as stages

        results = self.run / "eval" / load_run(self.run).suite if self.results == Path() else self.results
        page = self.run / "report.html" if self.out == Path() else self.out
        output_file(page)
        stages.report(self.run, self.dataset, results, page, {}, self.sections)
        say(f"page: {page}")
        return 0


@dataclass(frozen=True)
class Compare:
    """Train and measure recipes on one dataset, with equal steps and data order, and write one page.

    Run the same command again to resume; several processes with the same command share the work.

    Example: wamkit compare metaworld3 metaworld3_fast_wam --dataset demo/dataset --cache demo/cache --out comparison
    """

    recipes: Positional[tuple[str, ...]]
    """The first of each kind of policy is the baseline of the others of its kind."""
    dataset: Datasets
    cache: Path
    """Latents of what is trained first; samples that it lacks are encoded. Policies that read others have their own
    caches in OUT."""
    out: Path
    """Where run directories and the page are written."""
    seeds: tuple[int, ...] = (0, 1)
    """Training seeds; every recipe is trained once with each."""
    episodes: int = 0
    """Per task; 0: as many as the protocol of the suite says."""

    def __call__(self, overrides: Overrides) -> int:
        refuse_seed(overrides, "--seeds")
        for name in self.recipes:
            refuse_start(name, overrides)
        runs = tuple(changed(recipe(name), overrides) for name in self.recipes)
        from wamkit.stages.compare import compare
        from wamkit.stages.rows import Comparison
        from wamkit.stages.tables import comparison_table

        output_folder(self.out)
        output_folder(self.cache, becomes=CACHE)
        asked = Comparison(runs, self.seeds, self.dataset, self.cache, self.out, self.episodes)
        comparison = compare(asked, self._command(overrides))
        if comparison:
            console.print(comparison_table(comparison))
            say(f"page: {asked.page}")
        return 0

    def _command(self, overrides: Overrides) -> str:
        from wamkit.data.joined import dataset_flags

        folders = (*dataset_flags(self.dataset), "--cache", self.cache, "--out", self.out)
        numbers = ("--seeds", *map(str, self.seeds), "--episodes", str(self.episodes))
        return command("wamkit", "compare", *self.recipes, *folders, *numbers, *words(overrides))
