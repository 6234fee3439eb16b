"""A recipe of the user's own: a file or a module named in place of a built-in recipe, and what is said of a bad one."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from wamkit_client.types import BadInput

from tests.test_bad_input import SMALL as TWO_STEPS
from tests.test_bad_input import record
from wamkit.cli import main
from wamkit.config import from_json, load_run, to_json
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
    ],
)
def test_a_function_that_returns_no_usable_run(file, function, wrong):
    with pytest.raises(BadInput, match=rf"arm_recipes\.py:{function}: {wrong}"):
        recipe(f"{file}:{function}")


def test_a_function_that_takes_arguments_or_is_not_there(file):
    with pytest.raises(BadInput, match=r"needs failed, TypeError: needs\(\) missing 1 required positional"):
        recipe(f"{file}:needs")
    with pytest.raises(BadInput, match="has no function 'sloow'; it has having, recipe, slow, copied"):
        recipe(f"{file}:sloow")
    with pytest.raises(BadInput, match="a function without arguments that returns a Run"):
        recipe(f"{file}:sloow")


def test_a_value_that_cannot_be_is_told_with_its_line(file):
    line = 1 + OWN.splitlines().index('    return replace(built_in("metaworld3").data, hz=-1.0)')
    with pytest.raises(BadInput, match=rf"arm_recipes\.py: wrong_value, line {line}: data\.hz: expected"):
        recipe(f"{file}:wrong_value")


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


TINY = """
from dataclasses import replace

from wamkit.recipes import recipe as built_in


def recipe():
    return replace(built_in("metaworld3"), recipe="arm", suite="")


def slower():
    run = recipe()
    return replace(run, recipe="arm_slower", train=replace(run.train, learning_rate=1e-5))
"""


def test_a_run_of_a_recipe_file_needs_the_file_no_more(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    Path("arm.py").write_text(TINY)
    record(tmp_path / "dataset")
    train = ["train", "arm.py:slower", "--dataset", "dataset", "--out", "run", *TWO_STEPS]
    assert main([*train, "--plan"]) == 0
    assert "arm_slower: parameters" in capsys.readouterr().out and not Path("run").exists()
    assert main(train) == 0
    assert "run: done. Next: wamkit report run --dataset dataset" in capsys.readouterr().out
    assert main(train) == 0  # finished
    Path("arm.py").write_text(TINY.replace("1e-5", "1e-4"))
    assert main(train) == 2
    error = " ".join(capsys.readouterr().err.split())
    assert "describes another run (train.learning_rate: 1e-05 -> 0.0001)" in error
    Path("arm.py").unlink()
    assert load_run(Path("run")).recipe == "arm_slower"
    assert main(["inspect", "run"]) == 0


def test_recipe_files_are_compared_by_their_own_names(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    Path("arm.py").write_text(TINY)
    record(tmp_path / "dataset")
    same = ["compare", "arm.py", "arm.py:recipe", "--dataset", "dataset", "--cache", "cache", "--out", "out"]
    assert main(same) == 2
    assert "every recipe once; got arm, arm" in " ".join(capsys.readouterr().err.split())


def test_what_actions_mean_is_taken_from_a_recipe_file(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    Path("arm.py").write_text(TINY)
    record(tmp_path / "dataset")
    assert main(["data", "downsample", "dataset", "--by", "2", "--out", "half", "--recipe", "arm.py"]) == 0
    assert (tmp_path / "half" / "meta" / "info.json").is_file()
