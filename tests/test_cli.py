"""What a command line says on terminals, pipes and disks that take it badly: real processes, one message, a status."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import replace

import pytest

from tests.test_bad_input import record
from tests.until import SECONDS
from wamkit.cli import main
from wamkit.config import to_json
from wamkit.io.progress import MESSAGE_LENGTH, shortened
from wamkit.recipes import recipe

HELP = ["--help"]
REFUSED = ["inspect", "no"]
LISTED = ["recipes"]
TABLES = ["train", "metaworld3", "--plan"]
ASCII = {"LC_ALL": "POSIX", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
UNBUFFERED = {"PYTHONUNBUFFERED": "1"}
FULL = "error: a file, or standard output: the disk is full"


def wamkit(words: list[str], shell: str = "", **variables: str) -> subprocess.CompletedProcess[str]:
    """`wamkit words` with the shell's redirections behind it."""
    return subprocess.run(
        [
            "bash",
            "-c",
            f'"$@" {shell}; exit ${{PIPESTATUS[0]}}',
            "-",
            sys.executable,
            "-m",
            "wamkit.cli",
            *words,
        ],
        capture_output=True,
        text=True,
        timeout=SECONDS,
        check=False,
        env=os.environ | variables,
    )


@pytest.mark.parametrize(
    ("words", "variables"),
    [
        (HELP, {"PYTHONIOENCODING": "ascii"}),
        (HELP, ASCII),
        (TABLES, {"PYTHONIOENCODING": "ascii"}),
    ],
)
def test_a_terminal_that_only_knows_ascii(words, variables):
    done = wamkit(words, **variables)
    assert done.returncode == 0 and done.stderr == "" and done.stdout.isascii() and len(done.stdout) > 500


def test_a_saved_run_is_utf_8_whatever_the_terminal_is(tmp_path):
    run = recipe("metaworld3")
    (tmp_path / "run.json").write_text(to_json(replace(run, recipe="männlein")), encoding="utf-8")
    done = wamkit(["eval", str(tmp_path), "--eval.processes", "0"], **ASCII)
    assert done.returncode == 2 and done.stderr.startswith("error: eval.processes: expected at least 1")


@pytest.mark.parametrize(
    ("words", "shell", "status", "says", "variables"),
    [
        (HELP, ">&-", 0, "", {}),
        (REFUSED, ">&-", 2, "error: no: neither a run directory", {}),
        (REFUSED, "2>&-", 2, "", {}),
        (REFUSED, "2>/dev/full", 2, "", {}),
        (HELP, ">/dev/full", 2, FULL, {}),
        (HELP, ">/dev/full", 2, FULL, UNBUFFERED),
        (LISTED, ">/dev/full", 2, FULL, {}),
    ],
)
def test_an_output_that_takes_nothing(words, shell, status, says, variables):
    done = wamkit(words, shell, **variables)
    assert done.returncode == status
    assert done.stderr.startswith(says) and done.stderr.count("\n") == bool(says)


@pytest.mark.parametrize(("words", "variables"), [(HELP, {}), (HELP, UNBUFFERED), (LISTED, {})])
def test_a_reader_who_leaves(words, variables):
    reader, writer = os.pipe()
    os.close(reader)  # before anything is written: a reader that is only about to leave may still take it all
    try:
        done = subprocess.run(
            [sys.executable, "-m", "wamkit.cli", *words],
            stdout=writer,
            stderr=subprocess.PIPE,
            text=True,
            timeout=SECONDS,
            check=False,
            env=os.environ | variables,
        )
    finally:
        os.close(writer)
    assert done.returncode == 1 and done.stderr == ""


def test_a_huge_message_is_cut(capsys):
    assert main(["convert", "hdf5", "word " * 200_000, "dataset"]) == 2
    error = capsys.readouterr().err
    assert len(error) < MESSAGE_LENGTH + 100 and "more characters" in error
    assert error.startswith("error: word word")


@pytest.mark.parametrize("wrong", ["--bogus", "--train.steps"])
def test_wrong_words_are_told_once_by_the_processes_of_torchrun(wrong):
    words = ["train", "metaworld3", wrong, "no"]
    first, second = (wamkit(words, LOCAL_RANK=rank) for rank in "01")
    assert first.returncode == second.returncode == 2
    assert first.stderr and second.stdout == second.stderr == ""


def test_a_short_message_is_left_alone():
    assert shortened("a" * 10, 10) == "a" * 10
    assert shortened("abcdefghi", 8) == "abcdef [... 1 more characters ...] hi"


def test_a_huge_instruction_and_one_with_brackets(tmp_path, capsys):
    assert main(["data", "info", str(record(tmp_path / "huge", task="word " * 200_000))]) == 0
    assert len(capsys.readouterr().out) < 4 * MESSAGE_LENGTH
    assert main(["data", "info", str(record(tmp_path / "[red]", task="press [/b] twice"))]) == 0
    out = capsys.readouterr().out
    assert "press [/b] twice" in out and "[red]" in out
