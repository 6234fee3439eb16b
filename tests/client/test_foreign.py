"""A simulator's own Python: what happens when it is none, dies at once or hangs. Real processes."""

from __future__ import annotations

import shlex
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import wamkit_client
from wamkit_client.envs import foreign
from wamkit_client.envs.base import Task
from wamkit_client.envs.foreign import PYTHON_VARIABLE, start_foreign
from wamkit_client.envs.vector import Host, env_processes
from wamkit_client.types import BadInput

from tests.client.toy import ToyConfig


def script(folder: Path, *lines: str) -> str:
    """A "Python" that is a shell script."""
    path = folder / "python"
    path.write_text("\n".join(["#!/bin/sh", *lines, ""]))
    path.chmod(0o755)
    return str(path)


@pytest.mark.parametrize(
    ("last", "said"),
    [
        ("exit 3", r"ended with status 3: no license for this simulator"),
        ("kill -9 $$", r"ended with status -9: no license"),
        ("exec >&- <&-; sleep 0.2; exit 4", r"ended with status 4: no license"),
        ("echo hello >&0; sleep 600", r"answers, but not as wamkit-client does"),
    ],
)
def test_a_python_that_ends_before_it_is_ready(tmp_path: Path, last: str, said: str) -> None:
    python = script(tmp_path, "echo starting >&2", "echo no license for this simulator >&2", last)
    with pytest.raises(BadInput, match=rf"{PYTHON_VARIABLE}=.*cannot host a simulator .*{said}"):
        start_foreign(python)


def test_a_python_that_hangs_is_ended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(foreign, "START_SECONDS", 0.5)
    started = []

    class Watched(subprocess.Popen[bytes]):
        def __init__(self, *words: Any, **options: Any) -> None:
            super().__init__(*words, **options)
            started.append(self)

    monkeypatch.setattr(subprocess, "Popen", Watched)
    with pytest.raises(BadInput, match="not ready after 0 s"):
        start_foreign(script(tmp_path, "exec sleep 600"))
    assert [process.returncode for process in started] == [-signal.SIGKILL]


def test_a_wrapper_is_a_python_and_its_words_reach_our_stderr(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    home = Path(wamkit_client.__file__).parents[1]
    tests = Path(__file__).parents[2]
    start = f"PYTHONPATH={shlex.quote(f'{home}:{tests}')} {shlex.quote(sys.executable)}"
    python = script(tmp_path, "echo from the wrapper >&2", f'{start} "$@"')
    monkeypatch.setenv(PYTHON_VARIABLE, python)
    with env_processes(ToyConfig(), 1) as (process,):
        process.send(_reset_and_ask, 3)
        assert process.receive() == (3, "")
    assert "from the wrapper" in capfd.readouterr().err


def _reset_and_ask(host: Host, seed: int) -> tuple[int, str]:
    """A simulator that reads its standard input finds nothing there."""
    return host.env(Task("reach", "please reach", "toys", 11)).reset(seed).seed, sys.stdin.read()
