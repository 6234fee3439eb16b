"""What acting and training cost on this machine: bench."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from tyro.conf import Positional, arg, subcommand
from wamkit_client.types import BadInput

from wamkit.commands.datasets import Datasets
from wamkit.commands.devices import Device, use_device
from wamkit.commands.outputs import output_folder
from wamkit.commands.overrides import ListedRecipe, Overrides, changed
from wamkit.io.progress import say

if TYPE_CHECKING:
    import torch

    from wamkit.config import Run
    from wamkit.infer.presets import PresetName

Preset = Literal["plain", "exact", "compiled", "fast", "small", "int8", "float8_weights", "float8"]
What = Positional[
    Annotated[
        str,
        arg(
            metavar="RUN|RECIPE",
            help="A run directory; or a recipe, of whose sizes random weights are made, without any files.",
        ),
    ]
]
OUT = Path("bench")
Out = Annotated[Path, arg(help="The folder for the results: JSON, Markdown, an image.")]
Limit = Annotated[str, arg(help="A GPU's name, whose peaks are the limit; by default this device's.")]


@dataclass(frozen=True)
class Latency:
    """Measure how long a query takes, by part, and how near that is to what the device could do.

    Examples: wamkit bench latency demo/run
              wamkit bench latency robotwin --precision bf16 --reference --passes
              wamkit bench latency libero_fast_wam --reference --layers 2 4 --limit "RTX 4090"
    """

    what: What
    batch: tuple[int, ...] = (1,)
    """Observations per query; several numbers for several measurements."""
    rounds: int = 20
    preset: Preset = "exact"
    """How the policy acts (docs/serve.md)."""
    precision: Literal["", "bf16", "fp32"] = ""
    """Of the weights; by default as they are stored, and of random ones as the preset says, else fp32."""
    reference: bool = False
    """Also time the twin that does the official work, in turns, after checking that both give the same chunks."""
    passes: bool = False
    """Also add the passes one by one, and measure what each gains."""
    layers: tuple[int, ...] = ()
    """Two small depths, such as 2 4, from which full depth follows: for a recipe that does not fit in memory."""
    limit: Limit = ""
    official: Path = Path()
    """A program that times the official code of yours (docs/serve.md has the protocol)."""
    cold: bool = False
    """Also start a new process, and take the time and memory until its first chunks."""
    out: Out = OUT
    device: Device = ""

    def __call__(self, overrides: Overrides) -> int:
        device = begin(self.device, self.out, self.rounds, *(self.batch or (0,)))
        from wamkit.bench.latency import Asked
        from wamkit.bench.latency_report import report
        from wamkit.bench.subject import run_of

        run = acting_as(changed(run_of(self.what), overrides), self.preset, self.precision)
        asked = Asked(self.batch, self.rounds, self.preset, self.reference, self.passes, self.layers)
        path, agrees = report(self.what, run, device, asked, self.limit, self.cold, self.official, self.out)
        for line in path.read_text().splitlines():
            say(line)
        say(f"{path}: done")
        return 0 if agrees else 1


def acting_as(run: Run, preset: PresetName, precision: str) -> Run:
    """The run in the preset, and in the precision that is asked for, else in the preset's."""
    from wamkit.config import PRECISIONS
    from wamkit.infer.presets import PRESETS
    from wamkit.io.differences import replaced

    own = [name for name, kind in PRECISIONS.items() if kind == PRESETS[preset].precision]
    asked = precision or next(iter(own), run.eval.precision)
    acting: Run = replaced(run, {"eval.engine": preset, "eval.precision": asked})
    return acting


@dataclass(frozen=True)
class TrainStep:
    """Measure a step of training on random samples: milliseconds, samples, share of the device's peak, memory.

    Examples: wamkit bench train-step metaworld3 --batch 32
              wamkit bench train-step libero_spatial --batch 16 64
    """

    what: What
    batch: tuple[int, ...] = ()
    """Samples per step; several numbers for several measurements; by default as the run says."""
    rounds: int = 10
    reference: bool = False
    """Also time the twin that does the official work, in turns, after checking that both have the same losses."""
    limit: Limit = ""
    out: Out = OUT
    device: Device = ""

    def __call__(self, overrides: Overrides) -> int:
        device = begin(self.device, self.out, self.rounds, *self.batch)
        from wamkit.bench.limits import gpu, hardware_of
        from wamkit.bench.subject import run_of
        from wamkit.bench.tables import save
        from wamkit.bench.training import measure, page_table

        run = changed(run_of(self.what), overrides)
        steps = measure(run, device, self.batch or (run.train.part_size,), self.rounds, self.reference)
        hardware = gpu(self.limit) if self.limit else hardware_of(device)
        about = (
            f"Forward, backward and optimizer, {run.train.precision}, samples at hand; random weights. Counted on "
            f"shapes: FLOP, operations and what autograd keeps. The peak is that of {hardware.name}."
        )
        body = f"{about}\n\n{page_table(run, steps, hardware)}"
        return save("train-step", self.what, "A step of training", body, steps, device, self.out)


@dataclass(frozen=True)
class Encoding:
    """Measure how fast clips become latents, as `wamkit encode` makes them.

    Example: wamkit bench encode robotwin --batch 1 8
    """

    what: What
    batch: tuple[int, ...] = (1, 4)
    """Clips at a time."""
    rounds: int = 5
    out: Out = OUT
    device: Device = ""

    def __call__(self, overrides: Overrides) -> int:
        device = begin(self.device, self.out, self.rounds, *self.batch)
        from wamkit.bench.data import HEAD, encoding
        from wamkit.bench.results import table
        from wamkit.bench.subject import run_of, subject_of
        from wamkit.bench.tables import save

        subject = subject_of(self.what, changed(run_of(self.what), overrides), device)
        rates = encoding(subject, self.batch, self.rounds)
        body = table(HEAD, [rate.row for rate in rates])
        return save("encode", self.what, "Encoding clips", body, rates, device, self.out)


@dataclass(frozen=True)
class Loading:
    """Measure how fast a training run's batches are read.

    Example: wamkit bench loading metaworld3 --dataset demo/dataset --cache demo/cache --workers 0 2
    """

    recipe: Positional[ListedRecipe]
    dataset: Datasets
    cache: Path = Path()
    """A latent cache; without one, samples are decoded and encoded in every step."""
    workers: tuple[int, ...] = (0,)
    rounds: int = 50
    out: Out = OUT
    device: Device = ""

    def __call__(self, overrides: Overrides) -> int:
        device = begin(self.device, self.out, self.rounds)
        from wamkit.bench.data import HEAD, loading
        from wamkit.bench.results import table
        from wamkit.bench.tables import save
        from wamkit.recipes import recipe

        run = changed(recipe(self.recipe), overrides)
        rates = loading(run, self.dataset, self.cache, device, self.workers, self.rounds)
        body = table(HEAD, [rate.row for rate in rates])
        return save("loading", self.recipe, "Reading batches", body, rates, device, self.out)


@dataclass(frozen=True)
class EpisodeRate:
    """Measure how fast episodes go by in closed loop: simulator, policy and all.

    Example: wamkit bench episodes demo/run --episodes 4
    """

    run: Positional[Path]
    """A run directory."""
    suite: str = ""
    """By default the one of the run."""
    episodes: int = 2
    """Per task."""
    out: Out = OUT
    device: Device = ""

    def __call__(self, overrides: Overrides) -> int:
        device = begin(self.device, self.out, self.episodes)
        from wamkit.bench.episodes import measure
        from wamkit.bench.results import table
        from wamkit.bench.tables import save
        from wamkit.config import load_run

        run = changed(load_run(self.run), overrides)
        if not self.suite and not run.suite:
            raise BadInput(f"run {self.run} has no suite; name one with --suite")
        found = measure(self.run, run, self.suite or run.suite, self.episodes)
        row = [
            f"{found.episodes}",
            f"{60 * found.episodes / found.seconds:.3g}",
            f"{found.steps / found.seconds:.3g}",
            f"{found.latency['median_ms']:.1f}",
        ]
        head = ("episodes", "episodes per minute", "steps per second", "ms per query")
        body = table(head, [row])
        return save("episodes", str(self.run), "Episodes in closed loop", body, found, device, self.out)


@dataclass(frozen=True)
class Growth:
    """Measure how a query's time grows with what is asked, beside how its counted work grows.

    Examples: wamkit bench growth metaworld3 --over batch --factors 1 2 4 8
              wamkit bench growth robotwin --over resolution --factors 1 2 --precision bf16
    """

    recipe: Positional[ListedRecipe]
    over: Literal["batch", "resolution", "horizon", "cameras", "depth"] = "batch"
    """Observations per query, both sides of every view, actions of a chunk, views, or layers."""
    factors: tuple[int, ...] = (1, 2, 4)
    rounds: int = 10
    precision: Literal["", "bf16", "fp32"] = ""
    out: Out = OUT
    device: Device = ""

    def __call__(self, overrides: Overrides) -> int:
        device = begin(self.device, self.out, self.rounds, *self.factors)
        if len(set(self.factors)) < 2:
            raise BadInput("--factors: expected at least two different ones")
        from wamkit.bench.growth import growth_table, measure
        from wamkit.bench.tables import save
        from wamkit.recipes import recipe

        run = acting_as(changed(recipe(self.recipe), overrides), "exact", self.precision)
        points = measure(run, device, self.over, self.factors, self.rounds)
        body = growth_table(self.over, points)
        return save("growth", self.recipe, f"Growth over {self.over}", body, points, device, self.out)


def begin(device: str, out: Path, *numbers: int) -> torch.device:
    """What every measurement does first: the device, for one that was named; BadInput for a number below 1, or for
    results that cannot be written."""
    use_device(device)
    expect_numbers(*numbers)
    output_folder(out)
    from wamkit.stages.run import best_device

    return best_device()


def expect_numbers(*numbers: int) -> None:
    """BadInput for one below 1."""
    if min(numbers) < 1:
        raise BadInput(f"expected numbers from 1, got {min(numbers)}")


@dataclass(frozen=True)
class Bench:
    """Measure what acting and training cost on this machine: latency, train-step, encode, loading, episodes, growth."""

    measurement: (
        Annotated[Latency, subcommand("latency")]
        | Annotated[TrainStep, subcommand("train-step")]
        | Annotated[Encoding, subcommand("encode")]
        | Annotated[Loading, subcommand("loading")]
        | Annotated[EpisodeRate, subcommand("episodes")]
        | Annotated[Growth, subcommand("growth")]
    )

    def __call__(self, overrides: Overrides) -> int:
        return self.measurement(overrides)
