"""init: a recipe for a dataset of one's own, as a file to read and change."""

from __future__ import annotations

import os
import sys
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from rich.console import Console
from tyro.conf import Positional, arg
from wamkit_client.types import BadInput

from wamkit.commands.columns import COLUMNS, VIEWS, cameras
from wamkit.commands.overrides import BEFORE_LISTS, Overrides, refuse
from wamkit.recipes.scales import POLICIES, SIZES

if TYPE_CHECKING:
    from wamkit.stages.proposal import Proposal

    Kind = str
    Size = str
else:
    Kind, Size = Literal[POLICIES], Literal[SIZES]


@dataclass(frozen=True)
class Init:
    """Write a recipe for a LeRobot dataset of any robot, as a Python file, on standard output.

    It has cameras, columns, what actions mean, timing, sizes and training, with the evidence in comments.

    Examples: wamkit init recordings > my_recipe.py
              wamkit init recordings --policy lawam --size full > my_recipe.py
              wamkit init recordings --data.columns action=cmd,proprio=qpos[0:7] --data.views front=cam_1 > my_recipe.py
    """

    dataset: Positional[
        Annotated[
            tuple[Path, ...],
            arg(metavar="DATASET", help=f"One or several folders, read as one. {BEFORE_LISTS}"),
        ]
    ]
    policy: Kind = POLICIES[0]
    size: Size = SIZES[0]
    """tiny: from nothing, on a CPU. full: from released weights (docs/weights.md), on a GPU."""
    name: str = ""
    """Of the recipe; by default that of the dataset's folder."""
    memory: float = 0.0
    """GiB of the GPU that it is for; 0: of this machine's."""

    def __call__(self, overrides: Overrides) -> int:
        refuse({path: value for path, value in overrides.items() if path not in (COLUMNS, VIEWS)})
        if not self.dataset:
            raise BadInput("no dataset; name at least one folder: wamkit init FOLDER")
        from wamkit.recipes.scales import SCALES
        from wamkit.stages.proposal import propose
        from wamkit.stages.recipe_text import commands, expect_fitting, questions, recipe_text

        views = dict(cameras(overrides.get(VIEWS, ())))
        columns = {view: camera for view, camera in views.items() if camera} | overrides.get(COLUMNS, {})
        scale = SCALES[self.policy, self.size]
        proposal = propose(self.dataset, scale, self.name, columns, tuple(views))
        proposal = self._fitted(proposal)
        file = saved_as(f"{proposal.name}.py")
        text = recipe_text(proposal, file)
        expect_fitting(text, proposal)
        sys.stdout.write(text)  # alone, for `> my_recipe.py`; what is said of it goes to standard error
        _say_next(file, questions(proposal), commands(proposal, file))
        return 0

    def _fitted(self, proposal: Proposal) -> Proposal:
        """With a batch that fits the GPU at hand, or, of what needs none, the memory of this machine."""
        from wamkit.stages.fit import Place, this_place
        from wamkit.stages.recipe_text import fitted
        from wamkit.stages.run import best_device

        device = best_device()
        if self.memory < 0:
            raise BadInput(f"--memory {self.memory:g}: expected GiB, above 0")
        if self.memory:
            return fitted(proposal, Place(f"{self.memory:g} GiB", int(self.memory * 2**30)))
        if proposal.scale.gpu and device.type != "cuda":
            unknown = "this machine has no GPU; give --memory 80 for one of 80 GiB"
            return replace(proposal, memory=(unknown,))
        return fitted(proposal, this_place(device))


def saved_as(proposed: str) -> str:
    """The file that standard output goes to, relative to this folder, where it is a Python file; else what is
    proposed."""
    try:
        target = Path(os.readlink("/proc/self/fd/1"))
    except OSError:  # no such folder on this system
        return proposed
    return os.path.relpath(target) if target.suffix == ".py" else proposed


def _say_next(file: str, asked: list[str], trainings: list[str]) -> None:
    """What to do with the file."""
    out = Console(stderr=True, highlight=False, soft_wrap=True, markup=False)
    if asked:
        out.print(f"{file} says what the dataset does not tell; look at each '?':")
        for line in asked:
            out.print(f"  {line}")
    out.print("Next:")
    for line in trainings:
        out.print(f"  {line} --plan")
        out.print(f"  {line}")
