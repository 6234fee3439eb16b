"""The ranks of a training, as torchrun starts them: from its environment variables to a process group."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from rich.console import Console
from wamkit_client.types import BadInput

from wamkit.io.progress import console

if TYPE_CHECKING:
    from wamkit.train.ranks import Ranks


@contextmanager
def ranks_of_torchrun() -> Iterator[Ranks]:
    """What this process is of a training: all of it, or, started by torchrun, one of its ranks.

    Leaves with an exit status and in silence where another rank tells the error. BadInput where the machine has fewer
    GPUs than ranks.
    """
    from wamkit.train.ranks import ALONE

    count = int(os.environ.get("WORLD_SIZE", "1"))
    if count == 1:
        yield ALONE
        return
    import torch
    from torch.distributed import PrefixStore, rendezvous

    from wamkit.train.ranks import group
    from wamkit.train.watch import Watch

    store, rank, _ = next(rendezvous("env://"))
    attempt = f"attempt {os.environ.get('TORCHELASTIC_RESTART_COUNT', '0')}"
    own = PrefixStore(attempt, store.clone())  # the watch looks while the other one waits
    store = PrefixStore(attempt, store)
    console.quiet = rank != 0
    with Watch(own, rank, count, tell).over():
        backend = "gloo"
        if torch.cuda.is_available():
            _use_gpu(int(os.environ["LOCAL_RANK"]))
            backend = "cpu:gloo,cuda:nccl"
        with group(store, rank, count, backend, int(os.environ["LOCAL_WORLD_SIZE"])) as ranks:
            yield ranks


def _use_gpu(number: int) -> None:
    import torch

    if number >= (there := torch.cuda.device_count()):
        raise BadInput(
            f"this process is number {number} of its machine, which has {there} GPUs; start torchrun with "
            f"--nproc-per-node {there}, and omit --device"
        )
    torch.cuda.set_device(number)


def tell(sentence: str) -> None:
    """What a rank says that is not asked: an error of another one."""
    Console(stderr=True, highlight=False).print(
        f"error: {sentence}", soft_wrap=True, markup=False, style="red"
    )
    sys.stderr.flush()
