"""Overrides: values of a recipe changed by their path, `--train.steps 2000 --policy.objective action_only`."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, is_dataclass, replace
from pathlib import Path
from types import UnionType
from typing import (
    TYPE_CHECKING,
    Annotated,
    Any,
    ClassVar,
    TypedDict,
    Union,
    get_args,
    get_origin,
    get_type_hints,
)

from tyro.conf import arg
from wamkit_client.types import BadInput

from wamkit.commands.columns import COLUMNS, in_sources, pair_words, with_columns
from wamkit.io.differences import flatten, replaced
from wamkit.io.hub import is_reference, pinned
from wamkit.recipes import earlier, recipe

if TYPE_CHECKING:
    from wamkit.config import Run

Overrides = dict[str, Any]  # {"train.steps": 2000}
SECTIONS = ("policy", "data", "actions", "train", "eval", "normalization")
PREFIXES = tuple(f"--{section}." for section in SECTIONS)
BEFORE_LISTS = "Put it before flags that take several values: they take every word up to the next flag."
RECIPE_HELP = (
    "A name that `wamkit recipes` lists, or one of your own: my_recipe.py, my_recipe.py:function or "
    "package.module:function."
)

Recipe = Annotated[str, arg(metavar="RECIPE")]
ListedRecipe = Annotated[str, arg(metavar="RECIPE", help=f"{RECIPE_HELP} {BEFORE_LISTS}")]


READS_DATA = ("train", "encode", "inspect")
SUITE = "suite"
"""The value of a run that stands in no section; its flag is another one where a command is no `train` of some kind."""
SHORTCUTS = {"--episodes": "--data.only.episodes", "--train.held-out": "--data.held-out"}
"""Shorter flags of some values, for commands that read data for training; others have other --episodes."""


def expanded(args: Sequence[str]) -> list[str]:
    """The words of a command line without shortcuts."""
    if not args or args[0] not in READS_DATA:
        return list(args)
    flags = [(word.partition("="), word) for word in args]
    return [
        SHORTCUTS[flag] + equals + value if (flag := own.replace("_", "-")) in SHORTCUTS else word
        for (own, equals, value), word in flags
    ]


def override_flags(args: Sequence[str]) -> Any:
    """A TypedDict, path -> type, of all paths if there is one among `args`, else of none.

    The recipe is known after parsing only, so it has the paths of every kind of policy, and `changed` refuses those of
    another kind. Raises BadInput for an unknown path.
    """
    types: dict[str, Any] = {}
    suite = (flag_of(SUITE),) if {*args[:1]} & {*READS_DATA, "compare"} else ()
    given = [word for word in args if word.startswith(PREFIXES) or word.partition("=")[0] in suite]
    if given:  # only then: these types import torch, for which `wamkit --help` should not wait
        from wamkit.config import Run

        for section in SECTIONS:
            for path, kind in _leaves(section, get_type_hints(Run)[section]):
                types[path] = types.get(path, kind) | kind  # policies may share a path
        types |= {SUITE: str} if suite else {}
    for word in given:
        path, _, _ = word.removeprefix("--").partition("=")
        _expect_path(path.replace("-", "_"), types, "recipes have")
    return TypedDict("Overrides", types, total=False)  # type: ignore[operator]


def _leaves(path: str, kind: Any) -> Iterator[tuple[str, Any]]:
    """Path and type of the values below `path`, whose type is a config class, a union of them, or a value's."""
    if get_origin(kind) in (Union, UnionType) and all(map(is_dataclass, get_args(kind))):
        for choice in get_args(kind):
            yield from _leaves(path, choice)
    elif is_dataclass(kind):
        for name, below in get_type_hints(kind).items():
            if get_origin(below) is not ClassVar and name != "kind":  # which class it is cannot be changed
                yield from _leaves(f"{path}.{name}", below)
    else:
        yield path, kind


def changed(run: Run, overrides: Overrides) -> Run:
    """The run with overrides. Raises BadInput for wrong values, and for paths of another kind of policy."""
    from wamkit.config import check_together

    known = {*flatten(asdict(run)), COLUMNS}
    for path in overrides:
        _expect_path(path, known, f"recipe {run.recipe} has")
    changes = with_columns(run.data, overrides)
    asked: Run = _pinned(replaced(run, changes | in_sources(run, changes)))
    if asked.suite != run.suite:
        expect_suite(asked.suite)
    check_together(run, asked)
    return asked


def _pinned(run: Run) -> Run:
    """With the commit of everything of the hub that its values name, so that a saved run means the same for ever."""
    values = flatten(asdict(run)).items()
    named = {path: pinned(value) for path, value in values if isinstance(value, str) and is_reference(value)}
    found: Run = replaced(run, named)
    return found


def expect_suite(name: str) -> None:
    """BadInput for a suite that is not known; "": none."""
    if name.startswith("robotwin"):
        from wamkit.robotwin import find_suite

        find_suite(name)
    elif name:
        from wamkit_client.suites import suite

        suite(name)


def _expect_path(path: str, known: Iterable[str], whose: str) -> None:
    if path not in known:
        [near] = difflib.get_close_matches(path, known, n=1, cutoff=0.0)
        raise BadInput(
            f"{flag_of(path)}: {whose} no such value; did you mean {flag_of(near)}? "
            "`wamkit train RECIPE --help` lists the values of a recipe"
        )


def flag_of(path: str) -> str:
    """As the command line spells a value's path."""
    return f"--{path.replace('_', '-')}"


def words(overrides: Overrides) -> list[str]:
    """Overrides as a command line spells them."""
    return [word for path, value in overrides.items() for word in (flag_of(path), *value_words(value))]


def value_words(value: Any) -> list[str]:
    """As the command line spells a value."""
    if isinstance(value, Mapping):
        return pair_words(value)
    return list(map(str, value if isinstance(value, tuple) else (value,)))


def refuse_seed(overrides: Overrides, flag: str) -> None:
    """For commands with a flag of their own for train.seed."""
    if "train.seed" in overrides:
        raise BadInput(f"--train.seed: the seed of this command is given by {flag}")


def refuse_start(name: str, overrides: Overrides) -> None:
    """BadInput for a value that says what this recipe starts from; for commands that train that too."""
    from wamkit.config import diff

    run = recipe(name)
    for before in earlier(name):
        started = replace(run, policy=run.policy.started_from(Path(before.recipe)))
        for flag in (change.partition(":")[0] for change in diff(run, started)):
            if flag in overrides:
                raise BadInput(
                    f"--{flag}: this command trains {before.recipe}, which {name} starts from; omit the flag, or use "
                    "`wamkit train`"
                )


def refuse(overrides: Overrides) -> None:
    """For commands without a recipe."""
    if overrides:
        raise BadInput(f"{words(overrides)[0]}: this command takes no recipe values; see --help")
