"""A recipe of the user's own: a file or a module named in place of a built-in recipe, and what is said of a bad one."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from wamkit_client.types import BadInput

from wamkit.cli import main
from wamkit.config import from_json, to_json
from wamkit.recipes import PUBLISHED, RECIPES, SMALL, earlier, recipe

OWN = """
from dataclasses import replace

from wamkit.recipes import recipe as built_in


def having(config, **values):  # these tests check types when a config is made; a user's process does not
    changed = replace(config)
    for name, value in values.items():
        object.__setattr__(changed, name, value)
    return changed


def recipe():
    run = built_in("metaworld3")
    return having(replace(run, recipe="arm", suite=""), data=having(run.data, views=["top", "wrist"]))


def slow():
    run = recipe()
    return having(run, recipe="arm_slow", train=replace(run.train, steps=7))


def copied():
    return built_in("metaworld3")


def nameless():
    return having(recipe(), recipe="my arm")


def nothing():
    recipe()


def wrong_type():
    return having(recipe(), train=having(recipe().train, steps=2.5))


def no_policy():
    return having(recipe(), policy=recipe)


def wrong_value():
    return replace(built_in("metaworld3").data, hz=-1.0)


def needs(more):
    return recipe()
"""


@pytest.fixture
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])
    (tmp_path / "arm_recipes.py").write_text(OWN)
    return tmp_path / "arm_recipes.py"


def test_a_file_a_function_of_it_and_a_module(file):
    run = recipe(str(file))
    assert (run.recipe, run.data.views) == (
        "arm",
        ("top", "wrist"),
    )  # a list became a tuple, as when it is read back
    assert from_json(to_json(run), "") == run
    assert recipe(f"{file}:recipe") == recipe("arm_recipes:recipe") == run
    assert recipe(f"{file}:slow").train.steps == 7
    assert earlier(run.recipe) == ()


@pytest.mark.parametrize(
    ("function", "wrong"),
    [
        (
            "copied",
            "returns a Run with recipe='metaworld3', the name of a recipe of wamkit; give it one of its own",
        ),
        ("nameless", "returns a Run with recipe='my arm', not a name; give it one of its own"),
        ("nothing", r"returns NoneType, expected a wamkit.config.Run; end it with `return Run\(...\)`"),
        ("wrong_type", "values of another type than expected: train.steps: Input should be a valid integer"),
        ("no_policy", "a value that cannot be saved with a run"),
        ("wrong_value", "data.hz: expected"),
    ],
)
def test_a_function_that_returns_no_usable_run(file, function, wrong):
    with pytest.raises(BadInput, match=rf"arm_recipes\.py:{function}: {wrong}"):
        recipe(f"{file}:{function}")


def test_a_function_that_takes_arguments_or_is_not_there(file):
    with pytest.raises(BadInput, match=r"needs raised TypeError: needs\(\) missing 1 required positional"):
        recipe(f"{file}:needs")
    with pytest.raises(BadInput, match="has no function 'sloow'; it has having, recipe, slow, copied"):
        recipe(f"{file}:sloow")
    with pytest.raises(BadInput, match="a function without arguments that returns a Run"):
        recipe(f"{file}:sloow")


def test_an_unknown_name_is_told_how_to_name_a_file():
    with pytest.raises(BadInput, match=r"did you mean 'metaworld3'.* path/to/file\.py:function"):
        recipe("metaworld")


@pytest.mark.parametrize("words", [["train"], ["encode", "--cache", "c"], ["inspect", "dataset", "--recipe"]])
def test_commands_that_take_a_recipe_say_what_is_wrong_with_a_file(tmp_path, capsys, monkeypatch, words):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "broken.py").write_text("import os\n\nRATE = 15 hz\n")
    (tmp_path / "dataset" / "meta").mkdir(parents=True)
    (tmp_path / "dataset" / "meta" / "info.json").touch()
    tail = [] if words[0] == "inspect" else ["--dataset", "dataset"]
    assert main([*words, "broken.py", *tail]) == 2
    error = " ".join(capsys.readouterr().err.split())
    assert error.startswith("error: broken.py: cannot be imported (line 3: SyntaxError: invalid")
    assert "expected a function without arguments that returns a Run" in error
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize("name", [*SMALL, *PUBLISHED])
def test_built_in_recipes_have_values_of_their_types(name):
    run = recipe(name)
    assert from_json(to_json(run), name) == run and name in RECIPES
