"""A policy for machines without wamkit: export."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from tyro.conf import Positional, arg
from wamkit_client.types import BadInput

from wamkit.commands.datasets import Datasets
from wamkit.commands.outputs import output_file
from wamkit.commands.overrides import BEFORE_LISTS, Overrides, changed
from wamkit.io.progress import say


@dataclass(frozen=True)
class Export:
    """Write a policy as one file that acts without wamkit: camera bytes, proprio and context in, physical actions out.

    Examples: wamkit export demo/run policy.onnx --dataset demo/dataset
              wamkit export demo/run policy.onnx --instructions "Press a button" --height 480 --width 480
              wamkit export demo/run policy.pt2 --format torch --dataset demo/dataset

    What was written answers 100 observations as the engine does, or is not kept. docs/export.md says how to run it.
    """

    run: Positional[Annotated[Path, arg(metavar="RUN", help=f"A run directory. {BEFORE_LISTS}")]]
    target: Positional[Path]
    """What to write: *.onnx, or *.pt2 for torch; rows of the instructions come beside it, as *.instructions.npz."""
    format: Literal["onnx", "torch", "compiled"] = "onnx"
    """onnx: for ONNX Runtime. torch: of torch.export. compiled: an AOTInductor package for this kind of processor."""
    dataset: Datasets = ()
    instructions: tuple[str, ...] = ()
    """What the robot will be told; those of the observations that are compared come of themselves."""
    robot: str = ""
    """Whose cameras and numbers, where the run was trained for several."""
    count: int = 100
    """Observations on which file and engine are compared: recorded ones of --dataset, else random ones."""
    height: int = 0
    """Of a camera's images, in pixels; by default as in the dataset, or as the policy looks at them."""
    width: int = 0

    def __call__(self, overrides: Overrides) -> int:
        output_file(self.target)
        try:
            import onnx  # noqa: F401 - stands for the extra
            import onnxruntime  # noqa: F401
            import onnxscript  # noqa: F401
        except ModuleNotFoundError as error:
            if self.format == "onnx":
                raise BadInput(f"{error.name} is not installed: pip install 'wamkit[onnx]'") from None
        from wamkit.config import load_run
        from wamkit.stages.export import Asked, export

        run = changed(load_run(self.run), overrides)
        asked = Asked(self.format, self.robot, self.instructions, self.count, self.height, self.width)
        made = export(self.run, run, self.target, asked, self.dataset)
        seen = "recorded" if self.dataset else "random"
        say(
            f"{', '.join(map(str, made.files))}: {made.asked} {seen} observations are answered as by the engine, at "
            f"most {made.apart:.1e} of an action's range apart"
        )
        return 0
