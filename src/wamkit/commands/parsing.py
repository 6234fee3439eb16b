"""Words of a command line -> a command and the recipe values that it changes, in one parse."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import make_dataclass
from itertools import pairwise
from pathlib import Path
from typing import Annotated, Any

import tyro
from tyro.conf import (
    CascadeSubcommandArgs,
    FlagConversionOff,
    OmitArgPrefixes,
    OmitSubcommandPrefixes,
    arg,
    subcommand,
)
from wamkit_client.references import is_reference

from wamkit.commands.analysing import Analyse
from wamkit.commands.beginning import Init
from wamkit.commands.benching import Bench
from wamkit.commands.calibrating import Calibrate
from wamkit.commands.collecting import Collect
from wamkit.commands.columns import PAIRS
from wamkit.commands.comparing import Compare
from wamkit.commands.converting import Convert
from wamkit.commands.data import Data
from wamkit.commands.demo import Demo
from wamkit.commands.exporting import Export
from wamkit.commands.golden import Golden
from wamkit.commands.hubbing import Hub
from wamkit.commands.inspecting import Inspect
from wamkit.commands.listing import Recipes, Suites
from wamkit.commands.measuring import Eval
from wamkit.commands.overrides import PREFIXES, Overrides, expanded, override_flags
from wamkit.commands.reporting import Report
from wamkit.commands.serving import Serve
from wamkit.commands.training import Encode, Train
from wamkit.commands.values import print_values
from wamkit.commands.versions import print_versions
from wamkit.recipes import RECIPES

Command = (
    Annotated[Demo, subcommand("demo")]
    | Annotated[Collect, subcommand("collect")]
    | Annotated[Data, subcommand("data")]
    | Annotated[Init, subcommand("init")]
    | Annotated[Encode, subcommand("encode")]
    | Annotated[Train, subcommand("train")]
    | Annotated[Eval, subcommand("eval")]
    | Annotated[Calibrate, subcommand("calibrate")]
    | Annotated[Serve, subcommand("serve")]
    | Annotated[Golden, subcommand("golden")]
    | Annotated[Export, subcommand("export")]
    | Annotated[Bench, subcommand("bench")]
    | Annotated[Report, subcommand("report")]
    | Annotated[Compare, subcommand("compare")]
    | Annotated[Analyse, subcommand("analyse")]
    | Annotated[Inspect, subcommand("inspect")]
    | Annotated[Recipes, subcommand("recipes")]
    | Annotated[Suites, subcommand("suites")]
    | Annotated[Convert, subcommand("convert")]
    | Annotated[Hub, subcommand("hub")]
)


ABOUT = (
    "Train, measure and run World Action Models. Start with: wamkit demo, or with your own dataset: wamkit init. "
    "wamkit --version prints versions."
)
HELP = {"-h", "--help"}
TAKE_RECIPES = ("train", "encode", "compare")


def parse(args: Sequence[str]) -> tuple[Command, Overrides]:
    """A command, to be called with the overrides.

    Raises BadInput for an override of nothing; SystemExit for help and versions (0) and for other wrong words (2), all
    printed.
    """
    if list(args) == ["--version"]:
        print_versions()
        raise SystemExit(0)
    args = _with_run(expanded(args))
    asks_for_help = bool(HELP & set(args))
    if asks_for_help:  # their flags are listed with those of the recipe
        args = [word for word in args if not word.startswith(PREFIXES)]
    flags: Any = override_flags(args)
    words: Any = make_dataclass(
        "Words",
        [
            ("command", Annotated[Command, OmitArgPrefixes, OmitSubcommandPrefixes, arg(name="")]),
            ("overrides", Annotated[flags, CascadeSubcommandArgs, FlagConversionOff, arg(name="")]),
        ],
    )
    try:
        with PAIRS:
            parsed = tyro.cli(words, args=args, prog="wamkit", description=ABOUT)
    except SystemExit:
        if asks_for_help:
            for name in _recipes(args):
                print_values(name, f"wamkit {args[0]} {name}")
        raise
    return parsed.command, parsed.overrides


def _with_run(args: Sequence[str]) -> list[str]:
    """`wamkit eval --server URL` has no run directory. RUN is required nevertheless, since a positional argument with a
    default would be taken by a list before it (`--tasks 0 1 RUN`)."""
    remote = args[:1] == ["eval"] and any(word.partition("=")[0] == "--server" for word in args)
    return ["eval", str(Path()), *args[1:]] if remote else list(args)


def _recipes(args: Sequence[str]) -> list[str]:
    """The recipes that words name, the user's own where a command takes one; those behind a flag may be its value."""
    named = [word for word in args if word in RECIPES]
    if args[0] in TAKE_RECIPES:
        own = (
            word
            for before, word in pairwise(args)
            if is_reference(word) and (before in HELP or before[:2] != "--")
        )
        named += own
    return list(dict.fromkeys(named))
