"""Every command in the README and the docs runs, in a folder where a small demo has run before.

A block that says how long it takes (```bash title="takes five minutes") is not run: its commands are parsed as the
command line would, with every flag and value. Links between pages lead somewhere.
"""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from shutil import copytree

import pytest

from wamkit.commands.comparing import Compare
from wamkit.commands.measuring import Eval
from wamkit.commands.overrides import changed
from wamkit.commands.parsing import parse
from wamkit.commands.training import Encode, Train
from wamkit.recipes import recipe

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]
FENCE = re.compile(r"^```(\w+)([^\n]*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"\]\((?!https?://|#)([^)#\s]+)")
WAMKIT = str(Path(sys.executable).with_name("wamkit"))
SHOWN_ONLY = ("git", "cd", "sudo", "pip", "hf", "pre-commit")


@dataclass(frozen=True)
class Block:
    """A fenced block; `title` is what stands behind the language."""

    page: Path
    line: int
    language: str
    title: str
    text: str

    def __str__(self) -> str:
        return f"{self.page.relative_to(ROOT)}:{self.line}"

    def commands(self) -> Iterator[list[str]]:
        """The words of each command: one a line, or more lines joined by a backslash."""
        for line in self.text.replace("\\\n", " ").splitlines():
            words = shlex.split(line, comments=True)
            if words:
                yield [words[0].removeprefix(".venv/bin/"), *words[1:]]


def blocks(language: str) -> list[Block]:
    return [
        Block(page, text.count("\n", 0, found.start()) + 1, *found.groups())
        for page in PAGES
        for text in [page.read_text()]
        for found in FENCE.finditer(text)
        if found[1] == language
    ]


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder as a reader has it after `make demo`, made with seconds of training."""
    folder = tmp_path_factory.mktemp("reader")
    for name in ("examples", "pretrained", "tests", "src"):
        (folder / name).symlink_to(ROOT / name)
    run([WAMKIT, "demo", "--smoke", "--episodes", "2", "--out", "demo"], folder)
    results = folder / "demo" / "run" / "eval"
    copytree(results / "metaworld3_smoke", results / "metaworld3")  # where the full demo leaves them
    return folder


@pytest.mark.parametrize("block", blocks("bash"), ids=str)
def test_commands(block: Block, workspace: Path) -> None:
    for program, *words in block.commands():
        if program == "wamkit" and block.title:
            check_wamkit(words)
        elif program == "wamkit":
            run([WAMKIT, *words], workspace)
        elif program == "make":
            check_make(words)
        elif program == "python" and block.title:
            assert (workspace / words[0]).is_file()
        elif program == "python":
            run([sys.executable, *words], workspace)
        else:
            assert program in SHOWN_ONLY, f"{block}: what is {program}?"


def run(command: list[str], folder: Path) -> None:
    """A process of its own, as the reader has it (and without this suite's checks of shapes, which cost time)."""
    result = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False, timeout=300)
    assert result.returncode == 0, result.stdout + result.stderr


def check_wamkit(words: list[str]) -> None:
    """Parse as the command line does, without running; SystemExit or BadInput for a wrong flag."""
    command, overrides = parse(words)
    if overrides:
        for name in recipes_of(command):
            changed(recipe(name), overrides)


def recipes_of(command: object) -> tuple[str, ...]:
    """Whose values a command's overrides change."""
    match command:
        case Compare(recipes=names):
            return names
        case Eval():
            return ("metaworld3_fast_wam",)  # the only values that the pages ask a trained policy for
        case Train(recipe=name) | Encode(recipe=name):
            return (name,)
    raise AssertionError(f"{command} takes no recipe values")


def check_make(words: list[str]) -> None:
    """Targets and variables are those of the Makefile."""
    makefile = (ROOT / "Makefile").read_text()
    for word in words:
        name, is_variable, _ = word.partition("=")
        pattern = rf"^{name} \?=" if is_variable else rf"^{name}:"
        assert re.search(pattern, makefile, re.MULTILINE), f"the Makefile has no {word}"


@pytest.mark.parametrize(
    "page", sorted({block.page for block in blocks("python")}), ids=lambda page: page.name
)
def test_python_blocks(page: Path, workspace: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(workspace)
    names: dict[str, object] = {}
    for block in blocks("python"):
        if block.page == page:
            exec(compile(block.text, str(block), "exec"), names)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links(page: Path) -> None:
    broken = [link for link in LINK.findall(page.read_text()) if not (page.parent / link).exists()]
    assert not broken
