"""Training state on disk: `checkpoints/step_000500/`, whole or absent, and the run's `weights.safetensors`.

A checkpoint holds the raw weights, the moving average when there is one, the optimizer's state flattened to
`<parameter>.<entry>`, and `state.json` with the rest and the size and sha256 of every file. No pickles. Tensors go to
the disk one at a time. Does not know the training loop.
"""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, cast

import torch
from pydantic import ConfigDict
from torch import Tensor, nn
from wamkit_client.types import BadInput

from wamkit.io.files import sha256, sync
from wamkit.io.records import read_record, write_record
from wamkit.io.tensors import not_finite, read_tensors, write_tensors
from wamkit.io.weights import WEIGHTS, run_weights, save_weights
from wamkit.train.optim import MovingAverage, trained_parameters
from wamkit.types import Trainable

FOLDER = "checkpoints"
AVERAGE = "average.safetensors"
OPTIMIZER = "optimizer.safetensors"
STATE = "state.json"


@dataclass(frozen=True)
class Progress:
    """Where a run stands.

    step: optimizer steps done.
    rows: metrics rows written. window: by name, the scalars of the steps since the last one.
    config: the TrainConfig as a dict. samples: size of the source. held_out: rows of held_out.jsonl written.
    """

    __pydantic_config__: ClassVar[ConfigDict] = ConfigDict(extra="forbid")

    step: int
    rows: int
    window: dict[str, list[float]]
    config: dict[str, Any]
    samples: int
    held_out: int = 0


@dataclass(frozen=True)
class Contents:
    """`state.json`. bytes, sha256: of the files beside it, by name; older checkpoints have no sha256."""

    __pydantic_config__: ClassVar[ConfigDict] = ConfigDict(extra="forbid")

    progress: Progress
    bytes: dict[str, int]
    sha256: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class State:
    """Everything that training changes."""

    policy: Trainable
    optimizer: torch.optim.Optimizer
    average: MovingAverage

    @property
    def module(self) -> nn.Module:
        """The policy, which is an nn.Module."""
        return cast(nn.Module, self.policy)


def trained_tensors(module: nn.Module) -> dict[str, Tensor]:
    """What training changes: trained parameters and persistent buffers, by name."""
    parameters = dict(module.named_parameters(remove_duplicate=False))
    buffers = {name: tensor for name, tensor in module.state_dict().items() if name not in parameters}
    return {name: parameter.detach() for name, parameter in trained_parameters(module).items()} | buffers


def write_weights(run_dir: Path, state: State) -> None:
    """The weights of a run: what training changed, with the moving average in place of what it covers."""
    save_weights(run_dir, weights_of(state))


def weights_of(state: State) -> dict[str, Tensor]:
    """What a run's weights are: those that training changed, with the moving average in place of what it covers."""
    return trained_tensors(state.module) | state.average.tensors


def size(state: State) -> int:
    """About how many bytes a checkpoint takes."""
    learning = sum(tensor.nbytes for tensor in trained_tensors(state.module).values())
    return 3 * learning + sum(tensor.nbytes for tensor in state.average.tensors.values())


def read_weights(run_dir: Path, module: nn.Module) -> None:
    """Put a run's trained weights into `module`; what was frozen stays. On the meta device it takes them as they are.

    BadInput naming what is missing, damaged or not finite.
    """
    weights = run_weights(run_dir)
    _fit(run_dir / WEIGHTS, weights, trained_tensors(module))
    if broken := told_not_finite(not_finite(weights)):
        raise BadInput(f"{run_dir / WEIGHTS}: {broken}")
    on_meta = any(tensor.is_meta for tensor in trained_tensors(module).values())
    module.load_state_dict(weights, strict=False, assign=on_meta)


def told_not_finite(names: list[str]) -> str:
    """What to say of weights whose tensors `names` hold NaN or infinity; "" of none."""
    some = ", ".join(names[:4]) + (", ..." if len(names) > 4 else "")
    remedy = "train again with a lower train.learning-rate or train.precision fp32"
    told = f"{len(names)} of the weights are not finite ({some}), so the policy cannot act; {remedy}"
    return told if names else ""


def latest(run_dir: Path) -> Path | None:
    """The newest checkpoint, None before the first."""
    return max(checkpoints(run_dir), key=_step, default=None)


def checkpoints(run_dir: Path) -> list[Path]:
    """All of a run's, the oldest first."""
    return sorted(filter(_is_checkpoint, (run_dir / FOLDER).glob("*")), key=_step)


def unexpected(run_dir: Path) -> list[Path]:
    """What lies among the checkpoints and is none."""
    return sorted(path for path in (run_dir / FOLDER).glob("[!.]*") if not _is_checkpoint(path))


def write(run_dir: Path, progress: Progress, state: State, keep_last: int) -> Path:
    """Write the checkpoint of `progress.step`, then delete all but the newest `keep_last`; its folder."""
    files = {
        WEIGHTS: trained_tensors(state.module),
        OPTIMIZER: flat(state.module, state.optimizer),
        AVERAGE: state.average.tensors,
    }
    folder = folder_of(run_dir, progress.step)
    temporary = temporary_of(folder)
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir(parents=True)
    try:
        digests = {name: write_tensors(temporary / name, tensors) for name, tensors in files.items()}
        sizes = {name: (temporary / name).stat().st_size for name in files}
        write_record(temporary / STATE, Contents(progress, sizes, digests))
    except BaseException:
        shutil.rmtree(temporary)
        raise
    put_in_place(temporary, folder, run_dir, keep_last)
    return folder


def folder_of(run_dir: Path, step: int) -> Path:
    """Of the checkpoint of a step."""
    return run_dir / FOLDER / f"step_{step:06d}"


def temporary_of(folder: Path) -> Path:
    """Where a checkpoint is until it is whole."""
    return folder.with_name(f".{folder.name}.tmp")


def put_in_place(temporary: Path, folder: Path, run_dir: Path, keep_last: int) -> None:
    """A whole checkpoint becomes the newest; of the older ones all but the newest are deleted."""
    shutil.rmtree(folder, ignore_errors=True)  # the run was stopped here once, and damaged since
    os.rename(temporary, folder)
    sync(folder.parent)
    for old in checkpoints(run_dir)[:-keep_last]:
        shutil.rmtree(old)


def read_progress(folder: Path) -> Progress:
    """BadInput naming the file where the checkpoint in `folder` is incomplete."""
    contents = _contents(folder)
    if contents.progress.step != _step(folder):
        raise BadInput(f"{folder / STATE}: is of step {contents.progress.step}; {_remedy(folder)}")
    for name, expected in contents.bytes.items():
        file = folder / name
        if not file.is_file():
            raise BadInput(f"{file}: missing; {_remedy(folder)}")
        if (got := file.stat().st_size) != expected:
            raise BadInput(f"{file}: expected {expected} bytes, got {got}; {_remedy(folder)}")
    return contents.progress


Divided = Callable[[Tensor, Tensor], Tensor]
"""A whole tensor, and one of the same shape: it is divided among ranks as that one is."""


def not_divided(whole: Tensor, like: Tensor) -> Tensor:
    """Every process has all of it."""
    return whole


def restore(folder: Path, state: State, divided: Divided = not_divided) -> None:
    """Put the checkpoint's tensors in place. BadInput where a file has changed, or does not fit the policy."""
    expect_unchanged(folder)
    weights, ours = read_tensors(folder / WEIGHTS), trained_tensors(state.module)
    _fit(folder / WEIGHTS, weights, ours)
    state.module.load_state_dict({name: divided(x, ours[name]) for name, x in weights.items()}, strict=False)
    averages = read_tensors(folder / AVERAGE)
    _fit(folder / AVERAGE, averages, state.average.tensors)
    state.average.load({name: divided(x, state.average.tensors[name]) for name, x in averages.items()})
    unflatten(state.module, state.optimizer, read_tensors(folder / OPTIMIZER), divided)


def expect_unchanged(folder: Path) -> None:
    """BadInput where a file of a checkpoint has changed."""
    for name, expected in _contents(folder).sha256.items():
        if sha256(folder / name) != expected:
            raise BadInput(
                f"{folder / name}: its bytes have changed since it was written (sha256 differs); {_remedy(folder)}"
            )


def _contents(folder: Path) -> Contents:
    return read_record(folder / STATE, Contents, _remedy(folder))


def flat(module: nn.Module, optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    """What an optimizer has kept, as "<parameter>.<entry>"."""
    names = {id(parameter): name for name, parameter in trained_parameters(module).items()}
    return {
        f"{names[id(parameter)]}.{entry}": value
        for parameter, state in optimizer.state.items()
        for entry, value in state.items()
    }


def unflatten(
    module: nn.Module,
    optimizer: torch.optim.Optimizer,
    flat: Mapping[str, Tensor],
    divided: Divided = not_divided,
) -> None:
    """Give it to an optimizer."""
    names = {id(parameter): name for name, parameter in trained_parameters(module).items()}
    ordered = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    numbers = {names[id(parameter)]: number for number, parameter in enumerate(ordered)}
    state: dict[int, dict[str, Tensor]] = {}
    for key, value in flat.items():
        name, _, entry = key.rpartition(".")
        number = numbers[name]
        like = ordered[number]
        own = divided(value, like) if value.shape == like.shape else value
        # A copy of its own: `value` is the file. One at a time, so that no second copy is gathered on the CPU.
        state.setdefault(number, {})[entry] = own.to(like.device, copy=True)
    optimizer.load_state_dict({"state": state, "param_groups": optimizer.state_dict()["param_groups"]})


def _fit(path: Path, found: Mapping[str, Tensor], expected: Mapping[str, Tensor]) -> None:
    shapes = ({name: x.shape for name, x in tensors.items()} for tensors in (found, expected))
    expect_fit(path, *shapes)


def expect_fit(path: Path, found: Mapping[str, torch.Size], expected: Mapping[str, torch.Size]) -> None:
    """BadInput where a file has not the tensors of these shapes."""
    wrong = [
        f"{name}: expected {_shape(expected, name)}, got {_shape(found, name)}"
        for name in sorted(expected.keys() | found.keys())
        if _shape(expected, name) != _shape(found, name)
    ]
    if wrong:
        raise BadInput(
            f"{path}: does not fit the policy ({len(wrong)} tensors differ): {'; '.join(wrong[:4])}. "
            "Use the config the run was started with, or another run directory."
        )


def _shape(shapes: Mapping[str, torch.Size], name: str) -> str:
    return str(list(shapes[name])) if name in shapes else "(absent)"


def _remedy(folder: Path) -> str:
    return f"delete {folder} to resume from the checkpoint before it (or from the start)"


def _is_checkpoint(path: Path) -> bool:
    return path.is_dir() and bool(re.fullmatch(r"step_[0-9]+", path.name))


def _step(folder: Path) -> int:
    return int(folder.name.removeprefix("step_"))
