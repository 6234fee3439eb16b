"""Commands that look at a dataset: data check, data info."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from tyro.conf import Positional, subcommand

from wamkit.commands.overrides import Overrides, refuse
from wamkit.io.progress import console, say


@dataclass(frozen=True)
class DataCheck:
    """Look for problems that break training in a LeRobot dataset; exit status 1 if there are any.

    Example: wamkit data check demo/dataset
    """

    path: Positional[Path]

    def __call__(self, overrides: Overrides) -> int:
        refuse(overrides)
        from wamkit.data.check import check, remarks

        problems = check(self.path)
        for line in (*problems, *remarks(self.path)):
            say(str(line))
        say(f"{self.path}: {len(problems)} problem(s)" if problems else f"{self.path}: no problem found")
        return 1 if problems else 0


@dataclass(frozen=True)
class DataInfo:
    """Print what a LeRobot dataset holds: version, episodes, cameras, tasks, ranges of actions and proprio.

    Example: wamkit data info demo/dataset
    """

    path: Positional[Path]

    def __call__(self, overrides: Overrides) -> int:
        refuse(overrides)
        from wamkit.stages.tables import dataset_table

        console.print(dataset_table(self.path))
        return 0


@dataclass(frozen=True)
class Data:
    """Look at a dataset."""

    command: Annotated[DataCheck, subcommand("check")] | Annotated[DataInfo, subcommand("info")]

    def __call__(self, overrides: Overrides) -> int:
        return self.command(overrides)
