"""Recipes trained and measured alike: compare."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from tyro.conf import Positional

from wamkit.commands.clusters import RayAddress, refuse_device
from wamkit.commands.datasets import Datasets
from wamkit.commands.devices import Device, use_device
from wamkit.commands.outputs import CACHE, output_folder
from wamkit.commands.overrides import Overrides, changed, refuse_seed, refuse_start, words
from wamkit.io.progress import command, console, say
from wamkit.recipes import recipe


@dataclass(frozen=True)
class Compare:
    """Train and measure recipes on one dataset, in equal steps or time and one data order, and write one page.

    Run the same command again to resume; several processes with the same command share the work.

    Examples: wamkit compare metaworld3 metaworld3_no_video --dataset demo/dataset --cache demo/cache --out comparison
              wamkit compare metaworld3 metaworld3_lawam --dataset data --cache cache --out both --ray auto
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
    also: tuple[str, ...] = ()
    """Further suites that every policy is measured on, such as metaworld3+camera_2."""
    equal: Literal["steps", "time"] = "steps"
    """What trainings have in common. steps: recipes with other numbers of steps are refused. time: recipes have as many
    steps as take equally long, by your measure; the page says how long they take."""
    device: Device = ""
    ray: RayAddress = ""

    def __call__(self, overrides: Overrides) -> int:
        refuse_device(self.ray, self.device)
        use_device(self.device)
        refuse_seed(overrides, "--seeds")
        for name in self.recipes:
            refuse_start(name, overrides)
        runs = tuple(changed(recipe(name), overrides) for name in self.recipes)
        from wamkit.stages.compare import compare
        from wamkit.stages.rows import Comparison
        from wamkit.stages.tables import comparison_table

        output_folder(self.out)
        output_folder(self.cache, becomes=CACHE)
        protocol = self.episodes, self.also, self.equal
        asked = Comparison(runs, self.seeds, self.dataset, self.cache, self.out, *protocol)
        comparison = compare(asked, self._command(overrides), self.ray)
        if comparison:
            console.print(comparison_table(comparison))
            say(f"page: {asked.page}")
        return 0

    def _command(self, overrides: Overrides) -> str:
        from wamkit.data.joined import dataset_flags

        folders = (*dataset_flags(self.dataset), "--cache", self.cache, "--out", self.out)
        numbers = ("--seeds", *map(str, self.seeds), "--episodes", str(self.episodes))
        asked = (*(("--also", *self.also) if self.also else ()), "--equal", self.equal)
        return command("wamkit", "compare", *self.recipes, *folders, *numbers, *asked, *words(overrides))
