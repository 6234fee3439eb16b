"""A rank that dies, or stops, ends the others, and one of them says which it was."""

from __future__ import annotations

import os
import signal
import sys
import time
from datetime import timedelta
from pathlib import Path

import pytest
from torch import distributed
from wamkit_client.types import BadInput

from tests.processes import context
from tests.until import SECONDS
from wamkit.train.ranks import group
from wamkit.train.watch import Watch

COUNT = 3


def rank_of(rank: int, port: int, folder: Path, what: str) -> None:
    """Sums again and again; rank 1 does `what` after some."""
    store = distributed.TCPStore("127.0.0.1", port, timeout=timedelta(seconds=SECONDS))

    def tell(sentence: str) -> None:
        (folder / f"told {rank}").write_text(sentence)

    try:
        with (
            Watch(store.clone(), rank, COUNT, tell, patience=3).over(),
            group(store, rank, COUNT, "gloo", 1) as ranks,
        ):
            for number in range(1000):
                if rank == 1 and number == 20:
                    happen(what)
                ranks.gathered(number)
                time.sleep(0.01)
                if what == "end" and number == 30:
                    return
    except BadInput as error:
        tell(str(error))
        sys.exit(2)


def happen(what: str) -> None:
    if what == "refuse":
        raise BadInput("a sample is broken")
    if what != "end":
        os.kill(os.getpid(), {"die": signal.SIGKILL, "stop": signal.SIGSTOP}[what])


@pytest.mark.parametrize(
    ("what", "statuses", "told"),
    [
        ("die", (1, -signal.SIGKILL, 1), "rank 1 of 3 ("),
        ("stop", (1, None, 1), "rank 1 of 3 ("),
        ("refuse", (1, 2, 1), "rank 1 of 3 ("),
        ("end", (0, 0, 0), ""),
    ],
)
def test_all_end_and_one_tells(
    tmp_path: Path, what: str, statuses: tuple[int | None, ...], told: str
) -> None:
    store = distributed.TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)
    processes = [
        context.Process(target=rank_of, args=(rank, store.port, tmp_path, what)) for rank in range(COUNT)
    ]
    for process in processes:
        process.start()
    try:
        for process, status in zip(processes, statuses, strict=True):
            if status is not None:
                process.join(SECONDS)
        assert [process.exitcode for process in processes] == list(statuses)
    finally:
        for process in processes:
            process.kill()
    said = [path.read_text() for path in sorted(tmp_path.glob("told *"))]
    assert len(said) == bool(told) and all(told in sentence for sentence in said), said
    if what in ("die", "stop"):
        why = {"die": "has died", "stop": "gives no sign of life for 3 s"}[what]
        assert why in said[0] and "run the same command again" in said[0]
