"""Locks, folders and the words for a disk's errors, on real files and real processes."""

from __future__ import annotations

import errno
import hashlib
import os
import signal
import subprocess
import sys
import time
import tracemalloc
from pathlib import Path

import pytest
from wamkit_client.types import BadInput

from wamkit.io.files import (
    LOCK,
    create_file,
    explained,
    only_writer,
    replace_text,
    sha256,
    try_lock,
)

HOLD = "import sys, time; from pathlib import Path; from wamkit.io.files import only_writer\n"
HOLD += "with only_writer(Path(sys.argv[1]), 'writes'): print('held', flush=True); time.sleep(60)"


def test_a_second_writer_is_refused_until_the_first_is_gone(tmp_path: Path) -> None:
    folder = tmp_path / "deep" / "folder"
    with subprocess.Popen([sys.executable, "-c", HOLD, str(folder)], stdout=subprocess.PIPE) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == b"held\n"
        with (
            pytest.raises(BadInput, match=r"folder: another process writes here; wait"),
            only_writer(folder, "writes"),
        ):
            pass
        holder.send_signal(signal.SIGKILL)
    with only_writer(folder, "writes"):
        assert (folder / LOCK).exists()
    assert list(folder.iterdir()) == []  # no file of ours stays in a user's folder


def test_a_claim_is_one_processs_however_many_ask(tmp_path: Path) -> None:
    path = tmp_path / "job.lock"
    with try_lock(path) as mine, try_lock(path) as also:
        assert mine and not also
    with try_lock(path) as mine:
        assert mine


@pytest.mark.parametrize("name", ["file", "file/below", "/dev/null", "/proc/wamkit"])
def test_a_place_that_is_no_folder_is_refused_by_name(tmp_path: Path, name: str) -> None:
    (tmp_path / "file").write_text("mine")
    place = tmp_path / name
    with pytest.raises(BadInput, match=str(place)), only_writer(place, "writes"):
        pass
    assert (tmp_path / "file").read_text() == "mine"


@pytest.mark.parametrize("code", [errno.EPERM, errno.ENOTSUP, errno.ENOSYS, errno.EMLINK, errno.EXDEV, 0])
def test_of_many_who_create_a_file_one_wins_also_without_hard_links(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int
) -> None:
    def link(source: Path, name: Path) -> None:
        raise OSError(code, os.strerror(code), name)

    if code:
        monkeypatch.setattr(os, "link", link)
    path = tmp_path / "claim"
    assert create_file(path, b"first") and not create_file(path, b"second")
    assert path.read_bytes() == b"first" and list(tmp_path.iterdir()) == [path]


def test_another_error_of_a_link_is_told_and_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def link(source: Path, name: Path) -> None:
        raise OSError(errno.ENOSPC, "full", name)

    monkeypatch.setattr(os, "link", link)
    with pytest.raises(OSError, match="full"):
        create_file(tmp_path / "claim", b"x")
    assert list(tmp_path.iterdir()) == []


def test_a_large_file_is_hashed_in_pieces(tmp_path: Path) -> None:
    path = tmp_path / "large"
    with path.open("wb") as file:
        file.truncate(64 * 2**20)  # sparse: takes no disk
    tracemalloc.start()
    try:
        digest = sha256(path)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert digest == hashlib.sha256(bytes(64 * 2**20)).hexdigest() and peak < 2 * 2**20


def test_a_text_that_is_the_same_is_not_written_again(tmp_path: Path) -> None:
    path = tmp_path / "run.json"
    replace_text(path, "ä")
    os.utime(path, (1, 1))
    replace_text(path, "ä")
    assert path.stat().st_mtime == 1 and path.read_bytes() == "ä".encode()
    replace_text(path, "b")
    assert path.stat().st_mtime > time.time() - 100


def test_every_error_of_a_disk_has_words_and_a_remedy(tmp_path: Path) -> None:
    full = explained(OSError(errno.ENOSPC, "No space left on device"), tmp_path)
    assert str(full).startswith(f"{tmp_path}: the disk is full; free some space")
    denied = explained(PermissionError(errno.EACCES, "Permission denied", "/x/y"))
    assert str(denied).startswith("/x/y: permission denied; choose another folder")
    assert "check the path" in str(explained(OSError("odd")))
