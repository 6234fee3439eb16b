"""Every command in the README and the docs runs, in a folder where a small demo and a short story have run before.

A block that says how long it takes (```bash title="takes five minutes") is not run: its commands are parsed as the
command line would, with every flag and value. Links between pages lead somewhere.
"""

from __future__ import annotations

import re
from pathlib import Path
from shutil import copytree

import pytest

from tests.pages import PAGES, ROOT, Block, blocks, run
from tests.story import in_short, story
from wamkit.commands.comparing import Compare
from wamkit.commands.measuring import Eval
from wamkit.commands.overrides import changed
from wamkit.commands.parsing import parse
from wamkit.commands.training import Encode, Train
from wamkit.recipes import recipe

LINK = re.compile(r"\]\((?!https?://|#)([^)#\s]+)")
SHOWN_ONLY = ("git", "cd", "sudo", "pip", "hf", "pre-commit")


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder as a reader has it after `make demo` and the story of train.md, made with seconds of training."""
    folder = tmp_path_factory.mktemp("reader")
    for name in ("examples", "pretrained", "tests", "src"):
        (folder / name).symlink_to(ROOT / name)
    run(["wamkit", "demo", "--smoke", "--episodes", "2", "--out", "demo"], folder)
    results = folder / "demo" / "run" / "eval"
    copytree(results / "metaworld3_smoke", results / "metaworld3")  # where the full demo leaves them
    for words in story(ROOT / "docs/train.md"):
        if words[1] not in ("inspect", "report", "eval"):
            run(in_short(words), folder)
    return folder


@pytest.mark.parametrize("block", blocks("bash"), ids=str)
def test_commands(block: Block, workspace: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(workspace)  # where recipes in files are
    for program, *words in block.commands():
        if program == "wamkit" and block.title:
            check_wamkit(words)
        elif program == "wamkit":
            run(["wamkit", *words], workspace)
        elif program == "make":
            check_make(words)
        elif program == "python" and block.title:
            assert (workspace / words[0]).is_file()
        elif program == "python":
            run(["python", *words], workspace)
        else:
            assert program in SHOWN_ONLY, f"{block}: what is {program}?"


def check_wamkit(words: list[str]) -> None:
    """Parse as the command line does, without running; SystemExit or BadInput for a wrong flag."""
    command, overrides = parse(words[: words.index(">")] if ">" in words else words)
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
