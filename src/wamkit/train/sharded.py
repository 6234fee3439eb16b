"""Checkpoints of several ranks: every rank writes its part while training goes on (torch.distributed.checkpoint).

A folder `checkpoints/step_000500/` as of one process (checkpoint.py), whole or absent, with other files of tensors. Any
number of ranks reads either kind. Its names: "weights.", "average." and "optimizer." before those of checkpoint.py.
"""

from __future__ import annotations

import shutil
import warnings
from collections.abc import Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from wamkit.io.files import sha256
from wamkit.io.records import write_record
from wamkit.train import checkpoint
from wamkit.train.checkpoint import STATE, Contents, Divided, Progress, State, not_divided, trained_tensors
from wamkit.train.optim import trained_parameters
from wamkit.train.ranks import Ranks

METADATA = ".metadata"
"""torch.distributed.checkpoint's table of contents, written last."""
OPTIMIZER = "optimizer."


class Saving:
    """Writes checkpoints of a run that one process trains."""

    def __init__(self, run_dir: Path, state: State, keep_last: int) -> None:
        self.run_dir, self.state, self.keep_last = run_dir, state, keep_last

    def save(self, progress: Progress) -> None:
        """Write the state as it is; it may be changed afterwards."""
        checkpoint.write(self.run_dir, progress, self.state, self.keep_last)

    def settle(self) -> None:
        """Return when what was saved is on the disk, on all ranks."""


class ShardedSaving(Saving):
    """Of one rank. One checkpoint is written at a time; what fails is raised by the next `save` or `settle`."""

    def __init__(self, ranks: Ranks, run_dir: Path, state: State, keep_last: int) -> None:
        super().__init__(run_dir, state, keep_last)
        from torch import distributed

        self._ranks, self._group = ranks, distributed.new_group(backend="gloo")
        self._thread = ThreadPoolExecutor(1, "checkpoint")
        self._written: Future[None] = Future()
        self._written.set_result(None)

    def save(self, progress: Progress) -> None:
        """See Saving."""
        from torch.distributed.checkpoint import FileSystemWriter, async_save

        self._wait()
        folder = checkpoint.folder_of(self.run_dir, progress.step)
        temporary = checkpoint.temporary_of(folder)
        if self._ranks.writes:
            shutil.rmtree(temporary, ignore_errors=True)
            temporary.mkdir(parents=True)
        self._ranks.gathered(())  # the folder is there
        # On a GPU what is written is copied from it; on the CPU it would be the tensors that training changes.
        now = {name: x if x.is_cuda else x.clone() for name, x in named_tensors(self.state).items()}
        parts = async_save(now, storage_writer=FileSystemWriter(temporary), process_group=self._group)
        self._written = self._thread.submit(self._finish, parts, folder, progress)

    def settle(self) -> None:
        """See Saving."""
        self._wait()
        self._ranks.gathered(())

    def _wait(self) -> None:
        from torch.distributed.checkpoint.api import CheckpointException

        try:
            self._written.result()
        except CheckpointException as error:
            causes = [cause for cause, _ in error.failures.values()]
            raise next((cause for cause in causes if isinstance(cause, OSError)), causes[0]) from error

    def _finish(self, parts: Any, folder: Path, progress: Progress) -> None:
        """Once every rank has written its part, the first one makes the folder a checkpoint."""
        parts.result()
        if not self._ranks.writes:
            return
        temporary = checkpoint.temporary_of(folder)
        files = sorted(temporary.iterdir())
        sizes = {file.name: file.stat().st_size for file in files}
        digests = {file.name: sha256(file) for file in files}
        write_record(temporary / STATE, Contents(progress, sizes, digests))
        checkpoint.put_in_place(temporary, folder, self.run_dir, self.keep_last)


def named_tensors(state: State) -> dict[str, Tensor]:
    """Everything that a checkpoint holds, the state's own tensors."""
    kinds = {
        "weights.": trained_tensors(state.module),
        "average.": state.average.tensors,
        OPTIMIZER: checkpoint.flat(state.module, state.optimizer),
    }
    return {kind + name: tensor for kind, tensors in kinds.items() for name, tensor in tensors.items()}


def restore(folder: Path, state: State, divided: Divided = not_divided) -> None:
    """Put the tensors of a checkpoint in place, however many ranks wrote it. BadInput where a file has changed, or does
    not fit the policy."""
    if not (folder / METADATA).exists():
        return checkpoint.restore(folder, state, divided)
    from torch.distributed.checkpoint import FileSystemReader, load
    from torch.distributed.checkpoint.metadata import TensorStorageMetadata

    checkpoint.expect_unchanged(folder)
    reader = FileSystemReader(folder)
    there = {
        name: facts
        for name, facts in reader.read_metadata().state_dict_metadata.items()
        if isinstance(facts, TensorStorageMetadata)
    }
    ours = {name: x for name, x in named_tensors(state).items() if not name.startswith(OPTIMIZER)}
    found = {name: facts.size for name, facts in there.items() if not name.startswith(OPTIMIZER)}
    checkpoint.expect_fit(folder, found, {name: x.shape for name, x in ours.items()})
    learned = _room(there, trained_parameters(state.module))
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="torch.distributed is disabled")  # one process reads it all
        load({**ours, **learned}, storage_reader=reader, no_dist=not torch.distributed.is_initialized())
    checkpoint.unflatten(
        state.module, state.optimizer, {name.removeprefix(OPTIMIZER): x for name, x in learned.items()}
    )


def _room(there: Mapping[str, Any], parameters: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Tensors for what the optimizer has kept; what is as large as its parameter is divided as that is."""
    room = {}
    for name, facts in there.items():
        if name.startswith(OPTIMIZER):
            parameter = parameters[name.removeprefix(OPTIMIZER).rpartition(".")[0]]
            whole = facts.size == parameter.shape
            dtype = facts.properties.dtype
            room[name] = (
                torch.zeros_like(parameter, dtype=dtype, requires_grad=False)
                if whole
                else torch.zeros(facts.size, dtype=dtype)
            )
    return room
