"""Functions named by file or module: what is found, and what is said where nothing can be."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from wamkit_client.references import call, is_reference, load, parse, sha256
from wamkit_client.types import BadInput

EXPECTED = "a function that returns seven"


@pytest.fixture
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(sys, "path", list(sys.path))
    path = tmp_path / "own_thing.py"
    path.write_text(
        "from __future__ import annotations\n"
        "from dataclasses import dataclass\n"
        "import neighbour_of_thing\n\n"
        "@dataclass\nclass Thing:\n    size: int = 7\n\n"
        "def make():\n    return neighbour_of_thing.SEVEN\n\n"
        "def breaks():\n    return 1 / 0\n\n"
        "def _hidden():\n    pass\n\nSIZE = 7\n"
    )
    (tmp_path / "neighbour_of_thing.py").write_text("SEVEN = 7\n")
    return path


def test_a_file_may_name_its_function_and_import_its_neighbours(file: Path) -> None:
    for text in (f"{file}:make", str(file)):
        reference = parse(text, "make")
        assert reference == (str(file), "make")
        assert call(reference, load(reference, EXPECTED)) == 7
    assert load(parse(f"{file}:Thing", "make"), EXPECTED)().size == 7


def test_a_module_may_be_named_too() -> None:
    reference = parse("wamkit_client.stats:wilson", "make")
    assert reference.stem == "stats"
    assert load(reference, EXPECTED)(1, 2)
    assert len(sha256(reference)) == 64


def test_references_are_told_from_names() -> None:
    assert is_reference("my_env.py") and is_reference("a.b:make") and not is_reference("metaworld3")


def test_the_hash_follows_the_content(file: Path) -> None:
    before = sha256(parse(str(file), "make"))
    file.write_text(file.read_text() + "# changed\n")
    assert sha256(parse(str(file), "make")) != before


@pytest.mark.parametrize(
    ("text", "wrong"),
    [
        ("nowhere.py:make", r"nowhere\.py: missing; expected a Python file with 'make' in it"),
        (
            "no_such_package.part:make",
            r"no_such_package\.part: no such module; expected path/to/file\.py:make, or",
        ),
        ("no such:make", r"no such: no such module"),
    ],
)
def test_what_is_missing_is_named(text: str, wrong: str) -> None:
    with pytest.raises(BadInput, match=wrong):
        load(parse(text, "make"), EXPECTED)


def test_an_unknown_function_is_answered_with_those_there_are(file: Path) -> None:
    with pytest.raises(
        BadInput, match=r"has no function 'mak'; it has Thing, make, breaks; expected a function"
    ):
        load(parse(f"{file}:mak", "make"), EXPECTED)
    with pytest.raises(BadInput, match=r"holds a int, no function, 'SIZE'"):
        load(parse(f"{file}:SIZE", "make"), EXPECTED)


@pytest.mark.parametrize(
    ("content", "wrong"),
    [
        ("x = 1\nimport no_such_thing\n", r"line 2: ModuleNotFoundError: No module named 'no_such_thing'"),
        ("x = 1\n\nx = (\n", r"line 3: SyntaxError: '\(' was never closed"),
        ("def f():\n    raise KeyError('a')\nf()\n", r"line 2: KeyError: 'a'"),
        ("import sys\nsys.exit(3)\n", r"line 2: SystemExit: 3"),
    ],
)
def test_a_file_that_cannot_be_imported_is_named_with_its_line(file: Path, content: str, wrong: str) -> None:
    file.write_text(content)
    with pytest.raises(
        BadInput, match=rf"own_thing\.py: cannot be imported \({wrong}\); expected a function that"
    ):
        load(parse(str(file), "make"), EXPECTED)


def test_what_a_function_raises_is_told_with_its_line(file: Path) -> None:
    reference = parse(f"{file}:breaks", "make")
    with pytest.raises(BadInput, match=r"breaks failed, line 13: ZeroDivisionError: division by zero"):
        call(reference, load(reference, EXPECTED))
