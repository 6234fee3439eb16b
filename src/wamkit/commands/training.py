"""From a recipe and datasets to a run directory: encode, train."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from tyro.conf import Positional, arg
from wamkit_client.types import BadInput

from wamkit.commands.clusters import RayAddress, refuse_device
from wamkit.commands.datasets import Datasets
from wamkit.commands.devices import Device, use_device
from wamkit.commands.outputs import CACHE, output_folder
from wamkit.commands.overrides import ListedRecipe, Overrides, changed
from wamkit.commands.ranks import ranks_of_torchrun
from wamkit.io.progress import command, console, say
from wamkit.recipes import recipe

if TYPE_CHECKING:
    from wamkit.config import Run
    from wamkit.train.ranks import Ranks

Weights = Annotated[
    tuple[float, ...],
    arg(
        help="How often samples of each --dataset are seen, relative to the others, one number for each; encode and "
        "train take the same. Omit the flag to read all as one dataset."
    ),
]


@dataclass(frozen=True)
class Encode:
    """Compute the latents of a dataset once, so that training decodes no video; several processes may share the work.

    Examples: wamkit encode metaworld3 --dataset demo/dataset --cache demo/cache
              wamkit encode libero_fast_wam --dataset spatial --dataset object --cache cache
              wamkit encode libero_spatial --dataset /shared/spatial --cache /shared/cache --ray auto
    """

    recipe: Positional[ListedRecipe]
    dataset: Datasets
    cache: Path
    weights: Weights = ()
    device: Device = ""
    ray: RayAddress = ""

    def __call__(self, overrides: Overrides) -> int:
        refuse_device(self.ray, self.device)
        use_device(self.device)
        run = _weighted(changed(recipe(self.recipe), overrides), self.dataset, self.weights)
        output_folder(self.cache, becomes=CACHE)
        if self.ray:
            from wamkit.stages import encode_on_cluster  # needs a package that nothing else needs

            encode_on_cluster.encode(self.ray, run, self.dataset, self.cache)
            return 0
        from wamkit.stages.run import best_device, encode

        encode(run, self.dataset, self.cache, best_device())
        return 0


@dataclass(frozen=True)
class Train:
    """Train a policy; run the same command again to resume.

    Examples: wamkit train metaworld3 --dataset demo/dataset --cache demo/cache --out demo/run --train.steps 1000
              torchrun --nproc-per-node 8 -m wamkit train metaworld3 --dataset demo/dataset --out demo/run
              wamkit train metaworld3 --dataset old --dataset new --weights 1 3 --out run --train.workers 2
              wamkit train metaworld3 --dataset new --init demo/run --out runs/finetuned --train.learning-rate 1e-4
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
    device: Device = ""
    init: Path = Path()
    """Fine-tuning: a run directory whose weights training begins with. `wamkit convert` makes one of released ones."""
    init_normalizer: Literal["kept", "refitted"] = "kept"
    """With --init: keep the normalizer of that run, or refit it to the dataset, as another robot needs it."""
    tracker: Literal["tensorboard", "wandb"] = "tensorboard"
    """Where curves are shown, besides the files in the run directory; wandb needs wamkit[wandb]."""
    plan: bool = False
    """Print parameters, memory and whether it fits, data facts and, for a published recipe, what its _ours variant
    changes; then stop."""
    memory: float = 0.0
    """GiB of the device that --plan is for; 0: of this machine's."""

    def __call__(self, overrides: Overrides) -> int:
        use_device(self.device)
        with ranks_of_torchrun() as ranks:
            with ranks.together():
                run = _weighted(changed(recipe(self.recipe), overrides), self.dataset, self.weights)
                self._check_init()
                if self.plan:
                    return self._plan(run)
                if self.memory:
                    raise BadInput(
                        "--memory: is for --plan; training takes what it needs. Omit it, or give --plan"
                    )
                _expect_ranks(run, ranks)
                output_folder(self.out)
            from wamkit.stages.run import best_device, train
            from wamkit.train.parallel import parallel

            more = self.stats, self.init, self.init_normalizer, self.tracker
            own = parallel(run.train.parallel, ranks)
            train(run, self.dataset, self.cache, self.out, best_device(), *more, own)
        from wamkit.data.joined import dataset_flags

        report = ("report", self.out, *dataset_flags(self.dataset))
        say(f"{self.out}: done. Next: {command('wamkit', *(('eval', self.out) if run.suite else report))}")
        return 0

    def _check_init(self) -> None:
        """BadInput where flags of fine-tuning do not go together."""
        if self.init == Path() and self.init_normalizer != "kept":
            raise BadInput("--init-normalizer: there is no --init; give both, or omit both flags")
        if self.init != Path() and self.init_normalizer == "kept" and self.stats != Path():
            raise BadInput(
                "--stats: the normalizer of --init is kept; omit it, or give --init-normalizer refitted"
            )

    def _plan(self, run: Run) -> int:
        from wamkit.stages.fit import Place, this_place
        from wamkit.stages.run import best_device
        from wamkit.stages.start import expect_fits
        from wamkit.stages.tables import plan_tables

        if self.init != Path():
            expect_fits(self.init, run)
        if self.memory < 0:
            raise BadInput(f"--memory {self.memory:g}: expected GiB, above 0")
        asked = Place(f"{self.memory:g} GiB", int(self.memory * 2**30))
        place = asked if self.memory else this_place(best_device())
        for table in plan_tables(run, self.dataset, self.stats, place):
            console.print(table)
        if run.train.ranks > 1:
            from wamkit.bench.scaling_table import scaling_table

            console.print(scaling_table(run))
        return 0


def _expect_ranks(run: Run, ranks: Ranks) -> None:
    """BadInput where a run asks for another number of ranks, or for what these cannot do."""
    asked, count = run.train.ranks, ranks.share.count
    if asked not in (1, count):
        raise BadInput(
            f"train.ranks: {asked}, and {count} processes were started; it is for --plan: omit it, or start "
            f"torchrun --nproc-per-node {asked} -m wamkit train ..."
        )
    if count > 1 and run.train.parallel != "ddp" and run.train.evaluate_every:
        raise BadInput(
            f"train.evaluate_every: with train.parallel {run.train.parallel} no process has all weights; "
            "give --train.parallel ddp, or --train.evaluate-every 0 and evaluate afterwards"
        )


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
