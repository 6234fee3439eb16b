"""wamkit convert: files of others into ours, and back."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, Union

from tyro.conf import Positional, subcommand
from wamkit_client.types import BadInput

from wamkit.commands.datasets import Datasets
from wamkit.commands.outputs import CACHE, DATASET, output_folder
from wamkit.commands.overrides import Overrides, Recipe, changed, refuse, words
from wamkit.io.progress import command, say
from wamkit.policies import released_formats
from wamkit.recipes import recipe


@dataclass(frozen=True)
class Released:
    """A released checkpoint of {policy} -> a run directory, or back; bit for bit.

    Examples: wamkit convert {policy} step_055000.pt runs/mine --recipe RECIPE --stats dataset_stats.json
              wamkit convert {policy} runs/mine mine.pt --to official
    A file that holds an earlier stage too becomes two run directories, that of the earlier stage beside the policy's.
    """

    kind: ClassVar[str]

    source: Positional[Path]
    """The released file; with --to official a run directory."""
    target: Positional[Path]
    """What to write; it must not exist."""
    to: Literal["run", "official"] = "run"
    recipe: Recipe = ""
    """What the file was trained with; sizes are taken from the file."""
    config: Path = Path()
    """The config.yaml of the run that wrote the file, in place of --recipe; not every policy has one."""
    stats: Path = Path()
    """The statistics that were released with it (*_dataset_stats.json)."""
    robot: str = "panda"
    """The robot that the statistics are of, as observations name it."""

    def __call__(self, overrides: Overrides) -> int:
        output_folder(self.target.parent)
        from wamkit.convert.released import earlier_run, from_official, released, to_official

        if self.to == "official":
            refuse(overrides)
            step = to_official(self.kind, self.source, self.target)
            say(f"{self.target}: written, step {step}")
            return 0
        if (self.recipe == "") == (self.config == Path()):
            raise BadInput(
                "a run directory needs --recipe or --config, which say what the file was trained with (give one of "
                "them), and --stats where statistics were released with it"
            )
        form = released(self.kind)
        run = recipe(self.recipe) if self.recipe else form.read_config(self.config, recipe)
        run = changed(run, overrides)
        run = from_official(self.kind, self.source, run, self.stats, self.robot, self.target)
        if untold := form.untold(run.policy):
            say(f"Not in any file, taken from recipe {run.recipe}: {untold}")
        for stage in form.earlier:
            say(f"{earlier_run(self.target, self.kind, stage.kind)}: done, the stage that it started from")
        say(f"{self.target}: done. Next: {command('wamkit', 'inspect', self.target)}")
        return 0


def _spelt(kind: str) -> str:
    """A kind of policy as the command line spells it."""
    return kind.replace("_", "-")


def _released(kind: str) -> Any:
    """The command for the released files of one kind of policy."""
    about = str(Released.__doc__).format(policy=_spelt(kind))
    made = type(f"Released_{kind}", (Released,), {"__doc__": about, "kind": kind})
    return Annotated[dataclass(frozen=True)(made), subcommand(_spelt(kind))]


@dataclass(frozen=True)
class Latents:
    """A released latent cache of Light-WAM -> ours, for the dataset it was computed from.

    Example: wamkit convert latents official/libero_spatial cache --recipe libero_spatial --dataset libero_spatial
    """

    source: Positional[Path]
    """The released folder."""
    target: Positional[Path]
    """The latent cache to write."""
    recipe: Recipe
    """What will be trained from it."""
    dataset: Datasets

    def __call__(self, overrides: Overrides) -> int:
        run = changed(recipe(self.recipe), overrides)
        output_folder(self.target, becomes=CACHE)
        from wamkit.convert.official_cache import import_latents
        from wamkit.stages.run import best_device

        import_latents(run, self.dataset, self.source, self.target, best_device())
        folders = ("--dataset", *self.dataset, "--cache", self.target)
        say(
            f"{self.target}: done. Next: {command('wamkit', 'train', self.recipe, *folders, *words(overrides))}"
        )
        return 0


@dataclass(frozen=True)
class HDF5:
    """Recordings of a real robot, episode_<n>.hdf5 with encoded images, -> a LeRobot v3.0 dataset.

    Example: wamkit convert hdf5 recordings dataset --fps 50
    """

    source: Positional[Path]
    """The folder of recordings."""
    target: Positional[Path]
    """The dataset to write."""
    fps: float = 50.0
    """Control steps a second; a recipe's hz must be the same."""
    robot: str = "real_robot"
    """The dataset's robot_type, which is the key of the policy's normaliser."""
    swap_red_blue: bool = False
    """For images that were encoded from BGR as if it were RGB: red things look blue in the recording."""
    cut_to_shortest: bool = False
    """Where actions, states and images of a file differ in number: keep what all have, from the first on."""

    def __call__(self, overrides: Overrides) -> int:
        refuse(overrides)
        output_folder(self.target, becomes=DATASET)
        from wamkit.convert.robot_hdf5 import robot_to_lerobot

        robot_to_lerobot(
            self.source, self.target, self.fps, self.robot, self.swap_red_blue, self.cut_to_shortest
        )
        say(f"{self.target}: done. Next: {command('wamkit', 'data', 'check', self.target)}")
        return 0


@dataclass(frozen=True)
class LiberoHDF5:
    """LIBERO's own demonstrations, *_demo.hdf5, -> a LeRobot v3.0 dataset.

    Example: wamkit convert libero-hdf5 datasets/libero_object dataset --suite libero_object
    """

    source: Positional[Path]
    """The folder of recordings."""
    target: Positional[Path]
    """The dataset to write."""
    suite: str
    """The suite that the tasks belong to."""
    workers: int = 2
    """Simulator processes."""

    def __call__(self, overrides: Overrides) -> int:
        refuse(overrides)
        output_folder(self.target, becomes=DATASET)
        from wamkit.convert.libero_hdf5 import libero_to_lerobot

        libero_to_lerobot(self.source, self.target, self.suite, self.workers)
        say(f"{self.target}: done. Next: {command('wamkit', 'data', 'check', self.target)}")
        return 0


Command: Any = Union[
    *(_released(kind) for kind in released_formats()),
    Annotated[Latents, subcommand("latents")],
    Annotated[HDF5, subcommand("hdf5")],
    Annotated[LiberoHDF5, subcommand("libero-hdf5")],
]


@dataclass(frozen=True)
class Convert:
    """Convert files of others into ours: released checkpoints (and back), latent caches, recordings in HDF5."""

    command: Command

    def __call__(self, overrides: Overrides) -> int:
        status: int = self.command(overrides)
        return status
