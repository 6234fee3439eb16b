"""inspect: a run directory, a dataset, what a policy sees of a dataset, or this machine."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from tyro.conf import Positional
from wamkit_client.types import BadInput

from wamkit.commands.datasets import Datasets
from wamkit.commands.devices import Device, use_device
from wamkit.commands.outputs import output_file
from wamkit.commands.overrides import Overrides, Recipe, changed, refuse
from wamkit.io.progress import console, say
from wamkit.recipes import recipe

PAGE = "inspection.html"


@dataclass(frozen=True)
class Inspect:
    """Look at a run directory, a dataset, what a policy sees of a dataset (a page), or this machine.

    Examples: wamkit inspect demo/run
              wamkit inspect demo/run --dataset demo/dataset
              wamkit inspect demo/dataset --recipe metaworld3 --out metaworld3.html
              wamkit inspect system
              wamkit inspect libero
    """

    what: Positional[str]
    """A run directory, a dataset, "system" (rendering), or "libero" (its versions and assets)."""
    dataset: Datasets = ()
    recipe: Recipe = ""
    """The recipe whose policy looks at the dataset."""
    out: Path = Path()
    """The page; by default RUN/inspection.html, and inspection.html for a dataset."""
    device: Device = ""

    def __call__(self, overrides: Overrides) -> int:
        use_device(self.device)
        if not self.recipe:
            refuse(overrides)
        path = Path(self.what)
        if self.what == "system":
            return self._system()
        if self.what == "libero":
            return self._libero()
        if (path / "run.json").is_file():
            return self._run(path)
        if (path / "meta" / "info.json").is_file():
            return self._dataset(path, overrides)
        raise BadInput(
            f"{path}: neither a run directory (run.json) nor a dataset (meta/info.json); "
            'name one of them, or "system" or "libero"'
        )

    def _run(self, path: Path) -> int:
        if self.recipe:
            raise BadInput(f"{path} is a run directory and has its own recipe; omit --recipe")
        if not self.dataset:
            self._expect_no_page("--dataset")
            from wamkit.stages.tables import run_tables

            for table in run_tables(path):
                console.print(table)
            return 0
        from wamkit.config import load_run
        from wamkit.stages.inspection import inspect

        page = path / PAGE if self.out == Path() else self.out
        output_file(page)
        return _show(inspect(load_run(path), self.dataset, path, page), page)

    def _dataset(self, path: Path, overrides: Overrides) -> int:
        if self.dataset:
            raise BadInput(f"{path} is a dataset; omit --dataset, or name a run directory in its place")
        if not self.recipe:
            self._expect_no_page("--recipe")
            from wamkit.stages.tables import dataset_table

            console.print(dataset_table(path))
            return 0
        from wamkit.stages.inspection import inspect

        run = changed(recipe(self.recipe), overrides)
        page = Path(PAGE) if self.out == Path() else self.out
        output_file(page)
        return _show(inspect(run, [path], Path(), page), page)

    def _expect_no_page(self, flag: str) -> None:
        if self.out != Path():
            raise BadInput(f"a page shows what a policy sees of a dataset; --out needs {flag}")

    def _system(self) -> int:
        from wamkit_client.envs.rendering import probe

        found = probe()
        say(found.describe())
        return 0 if found.working else 1

    def _libero(self) -> int:
        from wamkit_client.suites import suite

        from wamkit.io.progress import announce

        env = suite("libero").env
        announce(env.facts(), env.warnings())
        return 0


def _show(findings: list[str], page: Path) -> int:
    for finding in findings:
        say(finding)
    say(f"page: {page}")
    return 0
