"""The help of a recipe: every value with its flag, its type, its default and what it is."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import pytest

from wamkit.commands.overrides import changed, flag_of
from wamkit.commands.parsing import parse
from wamkit.commands.values import Value, described, spelt_type, values
from wamkit.config import RUN, Run
from wamkit.io.differences import flatten
from wamkit.recipes import PUBLISHED, SMALL, recipe


def lines(run: Run) -> dict[str, Value]:
    return {value.flag: value for section in values(run) for value in section.values}


def printed(capsys: pytest.CaptureFixture[str], line: str) -> str:
    with pytest.raises(SystemExit, match="0"):
        parse(line.split())
    return " ".join(capsys.readouterr().out.split())


@pytest.mark.parametrize("name", [*SMALL, *PUBLISHED])
def test_every_value_of_a_recipe_is_listed_and_described(name):
    run = recipe(name)
    listed = lines(run)
    undescribed = [value.flag for value in listed.values() if not value.about or value.about == "."]
    assert not undescribed
    saved = flatten(RUN.dump_python(run, mode="json")).keys() - {"recipe", "sources"}
    paths = {path for path in saved if not path.endswith(".kind")} | {
        "data.columns"
    }  # without any, no path below
    assert listed.keys() == set(map(flag_of, paths))


def test_what_is_listed_can_be_given():
    run = recipe("metaworld3")
    listed = {
        flag: value.default for flag, value in lines(run).items() if value.default not in ("empty", "''")
    }
    flags = [word for flag, default in listed.items() for word in (flag, *default.split())]
    _, overrides = parse(["train", "metaworld3", *flags])
    assert set(map(flag_of, overrides)) == listed.keys()
    assert changed(run, overrides) == run


def test_a_line_has_type_default_and_description(capsys):
    out = printed(capsys, "train metaworld3 --help")
    assert "--train.accumulation INT (default: 1) equal parts that a batch goes through" in out
    assert (
        "--actions.kinds {delta,absolute,gripper,rotation,quaternion} ... (default: delta delta delta" in out
    )
    assert "--data.held-out FLOAT (default: 0.0) share of the episodes" in out
    assert "Short: --train.held-out." in out and "Short: --episodes." in out
    assert "--suite STR (default: metaworld3)" in out
    assert "--policy.expert.heads INT (default: 4) queries, heads: " in out


def test_a_recipe_of_the_users_own_is_listed(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("arm.py").write_text(
        "from dataclasses import replace\nfrom wamkit.recipes import recipe as built_in\n\n"
        "def recipe():\n    run = built_in('metaworld3')\n"
        "    return replace(run, recipe='arm', suite='', train=replace(run.train, steps=77))\n"
    )
    for line in ("train arm.py --dataset a:b --help", "compare arm.py:recipe --help", "train --help arm.py"):
        out = printed(capsys, line)
        assert "--train.steps INT (default: 77)" in out and "--suite STR (default: '')" in out


def test_no_recipe_no_values(capsys):
    assert "Values of" not in printed(capsys, "train --help")
    assert "Values of" not in printed(capsys, "eval run --suite metaworld:reach-v3 --help")


def test_docstrings_describe_fields():
    @dataclass(frozen=True)
    class Base:
        """Of all. width: how wide; depth: how deep (both in
        metres).

        Raises nothing.
        """

        width: int = 1
        depth: int = 2

    @dataclass(frozen=True)
    class Own(Base):
        """More. height, depth: of what stands on it. See height: it is no entry there"""

        height: int = 3

    assert described(Own) == {
        "width": "how wide.",
        "depth": "height, depth: of what stands on it. See height: it is no entry there.",
        "height": "height, depth: of what stands on it. See height: it is no entry there.",
    }


@pytest.mark.parametrize(
    ("kind", "spelt"),
    [
        (int, "INT"),
        (bool, "{True,False}"),
        (tuple[float, float], "FLOAT FLOAT"),
        (tuple[str, ...], "STR ..."),
        (tuple[tuple[str, int], ...], "STR INT ..."),
        (Path, "PATH"),
        (float | None, "FLOAT"),
    ],
)
def test_types_are_spelt(kind, spelt):
    assert spelt_type(kind) == spelt
