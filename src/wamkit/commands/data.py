"""Commands that look at a dataset or copy it: data check, data info, data downsample."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from tyro.conf import Positional, arg, subcommand
from wamkit_client.types import BadInput

from wamkit.commands.outputs import DATASET, output_folder
from wamkit.commands.overrides import Overrides, Recipe, refuse
from wamkit.io.progress import command, console, say
from wamkit.recipes import recipe

Kinds = Annotated[
    tuple[str, ...],
    arg(
        help="What each dimension of an action is: delta, rotation (three in a row), absolute, quaternion (four in a "
        "row) or gripper."
    ),
]


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
class DataDownsample:
    """Copy a LeRobot dataset at a lower rate: every k-th frame, and one action that does what k of them did.

    Displacements are added up, turns multiplied; of targets and grippers the last is kept. Run the same command again
    to resume.

    Examples: wamkit data downsample demo/dataset --by 2 --out demo/dataset_40hz --recipe metaworld3
              wamkit data downsample libero --by 4 --out libero_5hz --recipe libero_lawam --radians 0.5
    """

    path: Positional[Path]
    out: Path
    """The new dataset."""
    by: int
    """How many steps become one; the rate must divide by it."""
    recipe: Recipe = ""
    """A recipe for this robot, which says what actions mean; or give --kinds."""
    kinds: Kinds = ()
    robot: str = ""
    """The robot of the copy, whose statistics are its own; by default ROBOT-40hz where the copy has 40 Hz."""
    radians: float = 1.0
    """Of a rotation of length 1 in the dataset's units; LIBERO's controller: 0.5."""

    def __call__(self, overrides: Overrides) -> int:
        refuse(overrides)
        if (self.recipe == "") == (self.kinds == ()):
            raise BadInput(
                "say what the dimensions of an action mean: give --recipe or --kinds, one of the two"
            )
        output_folder(self.out, becomes=DATASET)
        from wamkit.convert.downsample import Downsampling, action_column, action_space, downsample

        action = action_column(self.path)
        if self.recipe:
            run = recipe(self.recipe)
            space, action = run.actions, run.data.columns.get("action", action)
        else:
            space = action_space(self.path, action, self.kinds)
        downsample(self.path, self.out, Downsampling(self.by, space, self.robot, self.radians, action))
        say(f"{self.out}: done. Next: {command('wamkit', 'data', 'check', self.out)}")
        return 0


@dataclass(frozen=True)
class Data:
    """Look at a dataset, or copy it at a lower rate."""

    command: (
        Annotated[DataCheck, subcommand("check")]
        | Annotated[DataInfo, subcommand("info")]
        | Annotated[DataDownsample, subcommand("downsample")]
    )

    def __call__(self, overrides: Overrides) -> int:
        return self.command(overrides)
