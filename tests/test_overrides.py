"""Recipe values on a command line: parsed with the command's own flags, in any order, then applied to a run."""

from __future__ import annotations

from pathlib import Path

import pytest
from wamkit_client.types import BadInput

from wamkit.commands.measuring import Eval
from wamkit.commands.overrides import changed, words
from wamkit.commands.parsing import parse
from wamkit.config import diff
from wamkit.recipes import recipe

BETAS = {"train.betas": (0.9, 0.99)}
LAYERS = {"policy.adapters.layers": (1, 3, 5)}


def test_values_change_by_path():
    run = recipe("metaworld3")
    new = changed(run, {"train.steps": 700, "policy.objective": "action_only"})
    assert (new.train.steps, new.policy.objective) == (700, "action_only")
    assert diff(run, new) == [
        "policy.objective: cotrain_one_pass -> action_only",
        f"train.steps: {run.train.steps} -> 700",
    ]


@pytest.mark.parametrize(
    ("line", "positionals", "overrides"),
    [
        ("train --train.steps 100 R", ["R"], {"train.steps": 100}),
        ("train --train.steps=100 R --plan", ["R"], {"train.steps": 100}),
        ("train R --train.betas 0.9 0.99 --out x", ["R"], BETAS),
        ("train --train.betas 0.9 0.99 R --out x", ["R"], BETAS),
        ("train --train.learning_rate -1 R --dataset d", ["R"], {"train.learning_rate": -1.0}),
        ("train --policy.adapters.layers 1 3 5 --out x R", ["R"], LAYERS),
        ("train --out x --policy.adapters.layers 1 3 5 R", ["R"], LAYERS),
        (
            "train --data.whole-windows False R --train.compile True",
            ["R"],
            {"data.whole_windows": False, "train.compile": True},
        ),
        ("compare --train.seed 2 A B --dataset d --cache c --out o", ["A", "B"], {"train.seed": 2}),
        (
            "convert fast-wam a --policy.tuning.base w b --policy.start.base v",
            ["a", "b"],
            {"policy.tuning.base": "w", "policy.start.base": "v"},
        ),
    ],
)
def test_an_override_takes_its_own_words_and_no_more(line, positionals, overrides):
    command, found = parse(line.split())
    assert found == overrides
    own = vars(command.command if line.startswith("convert") else command)
    taken = (
        own["recipes"]
        if "recipes" in own
        else [own["source"], own["target"]]
        if "source" in own
        else [own["recipe"]]
    )
    assert [str(value) for value in taken] == positionals


def test_a_list_before_the_last_positional():
    command, _ = parse(["eval", "--tasks", "0", "1", "demo/run"])
    assert command == Eval(run=Path("demo/run"), tasks=("0", "1"))


def test_a_list_that_takes_the_positional_says_what_to_do(capsys):
    with pytest.raises(SystemExit, match="2"):
        parse(["eval", "--tasks", "0", "1", "demo/run", "--out", "x"])
    error = " ".join(capsys.readouterr().err.replace("│", " ").split())
    assert (
        "Missing from wamkit eval: RUN A run directory. Put it before flags that take several values" in error
    )


@pytest.mark.parametrize("line", ["train R --train.steps --out x", "train R --train.steps abc"])
def test_a_value_that_is_missing_or_of_another_type(capsys, line):
    with pytest.raises(SystemExit, match="2"):
        parse(line.split())
    assert "--train.steps" in capsys.readouterr().err


def test_a_true_or_false_is_said_in_words():
    _, overrides = parse(["train", "real_robot", "--data.whole-windows", "False", "--train.compile", "True"])
    run = recipe("real_robot")
    assert diff(run, changed(run, overrides)) == [
        "data.whole_windows: True -> False",
        "train.compile: False -> True",
    ]


def test_a_path_of_another_kind_of_policy_is_answered_with_one_of_its_own():
    with pytest.raises(
        BadInput, match=r"--policy.start.base: recipe metaworld3 has no such value; did you mean"
    ):
        changed(recipe("metaworld3"), {"policy.start.base": "weights"})


def test_overrides_are_words_again():
    line = "--policy.adapters.layers 1 3 5 --train.learning-rate 0.001 --train.compile True --train.clip-norm none"
    _, overrides = parse(["train", "metaworld3", *line.split()])
    assert parse(["train", "metaworld3", *words(overrides)])[1] == overrides
    assert sorted(words(overrides)) == sorted(line.split())


def test_help_on_a_recipe_lists_its_values(capsys):
    with pytest.raises(SystemExit, match="0"):
        parse(["train", "metaworld3", "--train.steps", "3", "--help"])
    steps = recipe("metaworld3").train.steps
    out = " ".join(capsys.readouterr().out.replace("│", " ").split())
    assert "--stats PATH" in out and f"--train.steps INT (default: {steps})" in out


def test_columns_and_cameras_by_name():
    line = "train R --data.columns action=actions,proprio=state[0:4] --data.views corner=cam_high wrist"
    _, overrides = parse(line.split())
    assert overrides["data.columns"] == {"action": "actions", "proprio": "state[0:4]"}
    run = changed(recipe("metaworld3"), overrides)
    assert run.data.views == ("corner", "wrist")
    assert run.data.columns == {"action": "actions", "proprio": "state[0:4]", "corner": "cam_high"}
    assert parse(["train", "R", *words(overrides)])[1] == overrides
    again = changed(
        run, parse(["train", "R", "--data.columns", "action=a", "--data.views", "wrist=w,top"])[1]
    )
    assert again.data.columns == {"action": "a", "proprio": "state[0:4]", "wrist": "w"}
    assert again.data.views == ("wrist", "top")
    assert changed(run, {"train.steps": 700}).data == run.data


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("actions", "expected NAME=COLUMN, as action=actions, got 'actions'"),
        ("action=", "expected NAME=COLUMN"),
        ("action=a,action=b", "action is given twice: a and b"),
    ],
)
def test_columns_that_are_no_pairs(capsys, words, message):
    with pytest.raises(SystemExit, match="2"):
        parse(["train", "R", "--data.columns", words])
    assert message in " ".join(capsys.readouterr().err.replace("│", " ").split())


def test_a_column_of_a_view_that_the_recipe_does_not_have():
    with pytest.raises(BadInput, match=r"data.columns: 'front' is none of .*give --data.views front=cam for"):
        changed(recipe("metaworld3"), {"data.columns": {"front": "cam"}})
    with pytest.raises(BadInput, match=r"--data.views front=: no camera; give front=CAMERA, or front where"):
        changed(recipe("metaworld3"), {"data.views": ("front=",)})


@pytest.mark.parametrize(
    "line", ["--episodes 0:3 7 --train.held-out 0.1", "--episodes=0:3 --train.held_out=0.1"]
)
def test_shortcuts_of_commands_that_read_data(line):
    for command in ("train R", "encode R --dataset d --cache c", "inspect d --recipe R"):
        _, overrides = parse([*command.split(), *line.split()])
        assert overrides == {
            "data.only.episodes": ("0:3", "7")[: 1 + ("7" in line)],
            "data.held_out": 0.1,
        }
    command, overrides = parse(
        ["compare", "A", "--dataset", "d", "--cache", "c", "--out", "o", "--episodes", "3"]
    )
    assert (command.episodes, overrides) == (3, {})


def test_help_shows_columns_as_they_are_given(capsys):
    with pytest.raises(SystemExit, match="0"):
        parse(["train", "metaworld3", "--data.columns", "action=a", "--help"])
    assert "--data.columns NAME=COLUMN" in capsys.readouterr().out


def test_what_actions_mean_and_the_suite_are_values_too():
    line = "train metaworld3 --actions.names x y z grip --actions.kinds absolute absolute absolute gripper"
    _, overrides = parse([*line.split(), "--suite", "metaworld_mt10"])
    run = changed(recipe("metaworld3"), overrides)
    assert (run.suite, run.actions.names) == ("metaworld_mt10", ("x", "y", "z", "grip"))
    assert run.actions.kinds == ("absolute", "absolute", "absolute", "gripper")
    assert (
        parse(["compare", "a", "b", "--dataset", "d", "--cache", "c", "--out", "o", *words(overrides)])[1]
        == overrides
    )
    assert changed(run, {"suite": ""}).suite == ""
    assert changed(run, {"suite": "robotwin_clean"}).suite == "robotwin_clean"


def test_a_suite_that_is_not_there_and_names_that_do_not_match():
    with pytest.raises(BadInput, match="unknown suite 'metaworld33'; did you mean 'metaworld3'"):
        changed(recipe("metaworld3"), {"suite": "metaworld33"})
    with pytest.raises(BadInput, match="unknown suite 'robotwin_dirty'"):
        changed(recipe("metaworld3"), {"suite": "robotwin_dirty"})
    with pytest.raises(BadInput, match="action space: 2 names but 4 kinds"):
        changed(recipe("metaworld3"), {"actions.names": ("x", "y")})


def test_the_suite_of_an_evaluation_is_no_value_of_the_recipe():
    command, overrides = parse(["eval", "run", "--suite", "metaworld3", "--eval.replan-steps", "4"])
    assert command.suite == "metaworld3" and overrides == {"eval.replan_steps": 4}
