"""Every command in the README and the docs runs, in a folder where a small demo and a short story have run before.

A block that says how long it takes (```bash title="takes five minutes") is not run: its commands are parsed as the
command line would, with every flag and value. Links between pages lead somewhere.
"""

from __future__ import annotations

import json
import re
import runpy
from importlib.util import find_spec
from pathlib import Path
from shutil import copytree

import pytest

from tests.pages import PAGES, ROOT, Block, blocks, run
from tests.story import in_short, story
from wamkit.commands.analysing import Analyse, AnalyseRobustness
from wamkit.commands.comparing import Compare
from wamkit.commands.measuring import Eval
from wamkit.commands.overrides import changed
from wamkit.commands.parsing import parse
from wamkit.commands.serving import Serve
from wamkit.commands.training import Encode, Train
from wamkit.recipes import recipe

ARM = ROOT / "examples" / "arm"
LINK = re.compile(r"\]\((?!https?://|#)([^)#\s]+)")
SHOWN_ONLY = ("git", "cd", "sudo", "pip", "hf", "pre-commit", "ray")


@pytest.fixture(scope="module")
def told(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """What each command of the story printed, by its name, in a folder with nothing but the example of the arm."""
    folder = tmp_path_factory.mktemp("reader")
    (folder / "examples").mkdir()
    for name in ("arm", "own_robot.py", "onnx_robot.py"):
        (folder / "examples" / name).symlink_to(ROOT / "examples" / name)
    printed = {}
    for words in story(ROOT / "docs/train.md"):
        name = "plan" if "--plan" in words else Path(words[1]).stem
        printed[name] = run(in_short(words), folder)
    return printed | {"folder": str(folder)}


@pytest.fixture(scope="module")
def workspace(told: dict[str, str]) -> Path:
    """A folder as a reader has it after the story and `make demo`, made with seconds of training."""
    folder = Path(told["folder"])
    for name in ("examples/own_policy", "pretrained", "tests", "src"):
        (folder / name).symlink_to(ROOT / name)
    run(["wamkit", "demo", "--smoke", "--episodes", "2", "--out", "demo"], folder)
    results = folder / "demo" / "run" / "eval"
    copytree(results / "metaworld3_smoke", results / "metaworld3")  # where the full demo leaves them
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
        elif program in ("torchrun", "sbatch"):
            check_ranks(program, words)
        elif program == "python" and block.title and words[0] == "-m":
            assert find_spec(words[1])
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
        case Serve() | Analyse(command=AnalyseRobustness()):
            return ("metaworld3",)
        case Compare(recipes=names):
            return names
        case Eval():
            return ("metaworld3_fast_wam",)  # the only values that the pages ask a trained policy for
        case Train(recipe=name) | Encode(recipe=name):
            return (name,)
    raise AssertionError(f"{command} takes no recipe values")


def check_ranks(program: str, words: list[str]) -> None:
    """The words of wamkit on several machines: behind torchrun's own, or behind a script that has these."""
    if program == "sbatch":
        script = ROOT / words[0]
        assert script.is_file()
        return check_wamkit(["train", *words[1:]] if script.stem == "train" else words[1:])
    check_wamkit(words[words.index("wamkit") + 1 :])


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


# the story: an arm of your own, from recordings to a page and a success rate, by commands alone


def test_the_story_has_all_its_steps(told: dict[str, str]) -> None:
    assert list(told) == ["record", "init", "inspect", "plan", "train", "report", "eval", "folder"]
    assert "8 episodes" in told["record"]


def test_its_recipe_is_read_on_one_screen_and_right(told: dict[str, str]) -> None:
    text = (Path(told["folder"]) / "arm.py").read_text()
    assert len(text.splitlines()) < 60
    names: dict[str, object] = {}
    exec(compile(text, "arm.py", "exec"), names)
    found = names["recipe"]()  # type: ignore[operator]
    assert found.actions.names == runpy.run_path(str(ARM / "env.py"))["JOINTS"]
    assert found.actions.kinds == ("absolute",) * 5 + ("gripper",)
    assert found.data.hz == 15 and found.data.views == ("image", "wrist_image")
    assert found.data.held_out > 0


def test_it_ends_with_a_page_and_a_result(told: dict[str, str]) -> None:
    folder = Path(told["folder"])
    assert "image" in (folder / "arm/seen.html").read_text()
    page = (folder / "arm/run/report.html").read_text()
    assert "held out" in page.lower() or "held-out" in page.lower()
    [results] = folder.glob("arm/run/eval/*/results.json")
    total = json.loads(results.read_text())["total"]
    assert (total["trials"], total["errors"]) == (1, 0)


def test_readme_tells_the_same_story(told: dict[str, str]) -> None:
    """Its commands are some of those of train.md, in the same order."""
    here, there = story(ROOT / "README.md"), story(ROOT / "docs/train.md")
    assert [words for words in there if words in here] == here
