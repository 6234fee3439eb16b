"""What a reviewer should not have to say: lint, format, types, and files and functions that fit on a few screens."""

from __future__ import annotations

import ast
import re
from pathlib import Path

ROOT = Path(__file__).parents[1]
SOURCES = sorted([*(ROOT / "src").rglob("*.py"), *(ROOT / "packages").rglob("*.py")])
FILE_LINES, FUNCTION_LINES = 450, 70
VAGUE = {"utils", "util", "misc", "helpers", "common"}  # the concept has not been found yet
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
WORDS = {  # pattern -> the word of docs/words.md
    r"data sets?\b": "dataset",
    r"pictures?\b": "image",
    r"leave (it|them) away|left away": "omit",
    r"strangers?\b": "unexpected",
}


def test_files_and_functions_stay_readable() -> None:
    wrong = []
    for path in SOURCES:
        text = path.read_text()
        if len(text.splitlines()) > FILE_LINES or path.stem in VAGUE:
            wrong.append(f"{path.relative_to(ROOT)}: {len(text.splitlines())} lines")
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.FunctionDef) and node.end_lineno - node.lineno >= FUNCTION_LINES:
                wrong.append(f"{path.relative_to(ROOT)}:{node.lineno} {node.name}")
    assert not wrong, "\n".join(wrong)


def test_one_word_per_thing() -> None:
    wrong = [
        f"{name}:{number}: {found[0]!r}; the word is {word!r}"
        for path in [*SOURCES, *PAGES]
        for name in [str(path.relative_to(ROOT))]
        if name != "CONTRIBUTING.md"  # says so
        for number, line in enumerate(path.read_text().splitlines(), start=1)
        for pattern, word in WORDS.items()
        for found in re.finditer(pattern, line, re.IGNORECASE)
    ]
    assert not wrong, "\n".join(wrong)
