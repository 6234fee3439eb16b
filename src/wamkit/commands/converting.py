"""Between our files and those of others: convert."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

from tyro.conf import Positional, subcommand
from wamkit_client.types import BadInput

from wamkit.commands.datasets import Datasets
from wamkit.commands.outputs import CACHE, DATASET, output_folder
from wamkit.commands.overrides import Overrides, Recipe, changed, refuse, words
from wamkit.io.progress import command, say
from wamkit.recipes import recipe

if TYPE_CHECKING:
    from wamkit.config import Run


@dataclass(frozen=True)
class Released:
    """What the released files of both systems have in common."""

    model: ClassVar[str]

    source: Positional[Path]
    """The released file; with --to official a run directory."""
    target: Positional[Path]
    """What to write; it must not exist."""
    to: Literal["run", "official"] = "run"
    recipe: Recipe = ""
    """What the file was trained with; sizes are taken from the file."""
    stats: Path = Path()
    """The statistics that were released with it (*_dataset_stats.json)."""
    robot: str = "panda"
    """Whose statistics they are, as observations name it."""

    def trained_with(self) -> Run:
        """What the command line says the file was trained with."""
        if not self.recipe:
            raise BadInput("a run directory needs --recipe, what the file was trained with, and --stats")
        return recipe(self.recipe)

    def not_in_file(self, run: Run) -> str:
        """What the run has from the recipe although it changes what the policy does."""
        return ""

    def __call__(self, overrides: Overrides) -> int:
        output_folder(self.target.parent)
        from wamkit.convert.released import from_official, to_official

        if self.to == "official":
            refuse(overrides)
            step = to_official(self.model, self.source, self.target)
            say(f"{self.target}: written, step {step}")
            return 0
        run = changed(self.trained_with(), overrides)
        run = from_official(self.model, self.source, run, self.stats, self.robot, self.target)
        say(f"{self.not_in_file(run)}{self.target}: done. Next: {command('wamkit', 'inspect', self.target)}")
        return 0


@dataclass(frozen=True)
class FastWAM(Released):
    """A released Fast-WAM (also LeRobot's model.safetensors) -> a run directory, or back; bit for bit.

    Examples: wamkit convert fast-wam libero_uncond_2cam224.pt runs/libero --recipe libero_fast_wam
                  --stats libero_uncond_2cam224_dataset_stats.json
              wamkit convert fast-wam runs/libero mine.pt --to official
    """

    model = "fast-wam"

    def not_in_file(self, run: Run) -> str:
        """Files trained with another shift look the same and act badly."""
        policy: Any = run.policy
        shifts = ", ".join(
            f"{name} {shift.train:g} in training and {shift.sample:g} in sampling"
            for name, shift in (("chunks", policy.action_shift), ("video", policy.video_shift))
        )
        return f"Shift of flow times, which no file tells, from recipe {run.recipe}: {shifts}\n"


@dataclass(frozen=True)
class LightWAM(Released):
    """A released Light-WAM -> a run directory, or back; bit for bit.

    Examples: wamkit convert light-wam step_055000.pt runs/libero_spatial --config config.yaml
                  --stats dataset_stats.json
              wamkit convert light-wam runs/libero_spatial mine.pt --to official
    """

    model = "light-wam"

    config: Path = Path()
    """The config.yaml of the run that wrote the file, in place of --recipe."""

    def trained_with(self) -> Run:
        """What the command line says the file was trained with."""
        if self.config == Path():
            return super().trained_with()
        if self.recipe:
            raise BadInput("--recipe and --config both say what the file was trained with; give one of them")
        from wamkit.convert.official_config import read_config

        return read_config(self.config)


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
    """Recordings of a real robot, episode_<n>.hdf5 with pictures inside, -> a LeRobot v3.0 dataset.

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
    """For pictures that were encoded from BGR as if it were RGB: red things look blue in the recording."""
    cut_to_shortest: bool = False
    """Where actions, states and pictures of a file differ in number: keep what all have, from the first on."""

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
    """Whose tasks they are."""
    workers: int = 2
    """Simulators at a time."""

    def __call__(self, overrides: Overrides) -> int:
        refuse(overrides)
        output_folder(self.target, becomes=DATASET)
        from wamkit.convert.libero_hdf5 import libero_to_lerobot

        libero_to_lerobot(self.source, self.target, self.suite, self.workers)
        say(f"{self.target}: done. Next: {command('wamkit', 'data', 'check', self.target)}")
        return 0


@dataclass(frozen=True)
class Convert:
    """Turn files of others into ours: released checkpoints (and back), latent caches, recordings in HDF5."""

    command: (
        Annotated[FastWAM, subcommand("fast-wam")]
        | Annotated[LightWAM, subcommand("light-wam")]
        | Annotated[Latents, subcommand("latents")]
        | Annotated[HDF5, subcommand("hdf5")]
        | Annotated[LiberoHDF5, subcommand("libero-hdf5")]
    )

    def __call__(self, overrides: Overrides) -> int:
        return self.command(overrides)
