"""Work of several ranks, each in a process forked from a server that has imported what they need."""

from __future__ import annotations

import pickle
import traceback
from collections.abc import Callable
from datetime import timedelta
from multiprocessing.connection import Connection
from typing import Any

import torch
from torch import distributed

from tests.processes import context
from tests.until import SECONDS
from wamkit.train.parallel import Kind, parallel
from wamkit.train.ranks import group

Work = Callable[..., Any]
"""Of a rank: it is given a Parallel and what follows it."""


def on_ranks(count: int, work: Work, *given: Any, kind: Kind = "ddp") -> list[Any]:
    """What the work of every rank returns. AssertionError with the traceback of the first that raises."""
    store = distributed.TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)
    pipes = [context.Pipe(duplex=False) for _ in range(count)]
    processes = [
        context.Process(target=_rank, args=(sender, store.port, rank, count, kind, work, given))
        for rank, (_, sender) in enumerate(pipes)
    ]
    for process in processes:
        process.start()
    for _, sender in pipes:
        sender.close()
    found = [_received(receiver) for receiver, _ in pipes]
    for process in processes:
        process.join(SECONDS)
    for error, _ in found:
        assert not error, error
    return [value for _, value in found]


def _received(receiver: Connection) -> tuple[str, Any]:
    assert receiver.poll(SECONDS), "a rank does not end"
    error, value = pickle.loads(receiver.recv_bytes())
    return error, value


def _rank(
    sender: Connection, port: int, rank: int, count: int, kind: Kind, work: Work, given: tuple[Any, ...]
) -> None:
    torch.set_num_threads(1)
    store = distributed.TCPStore("127.0.0.1", port, timeout=timedelta(seconds=SECONDS))
    try:
        with group(store, rank, count, "gloo", of_machine=min(count, 2)) as ranks:
            _send(sender, "", work(parallel(kind, ranks), *given))
    except BaseException:
        _send(sender, traceback.format_exc(), None)


def _send(sender: Connection, error: str, value: Any) -> None:
    """By value: multiprocessing's own way shares the memory of tensors, which ends with the rank."""
    sender.send_bytes(pickle.dumps((error, value)))
