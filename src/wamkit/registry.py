"""Policy kinds by name: ours (policies/__init__.py) and those of installed plug-ins.

A plug-in is a Python package with an entry point in the group `wamkit.policies` (kind -> its config class), and one in
`wamkit.recipes` for each of its recipes (name -> a function that returns a frozen Run). No module of wamkit names it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import cache, partial, reduce
from importlib import import_module
from importlib.metadata import EntryPoint, entry_points
from operator import or_
from typing import Annotated, Any, ClassVar, Protocol

from pydantic import Discriminator
from torch import nn
from wamkit_client.types import BadInput

from wamkit.data.normalize import Normalizer
from wamkit.policies import KINDS
from wamkit.tree import Tree
from wamkit.types import DataSpec, Encoder, Preprocessing, Trainable

POLICIES, RECIPES = "wamkit.policies", "wamkit.recipes"


class PolicyConfig(Protocol):
    """A frozen dataclass with a field `kind: Literal["its_kind"] = "its_kind"`, saved in `run.json`.

    inference_overrides: paths below `policy.` that may differ between training and acting.
    """

    inference_overrides: ClassVar[tuple[str, ...]]

    @property
    def kind(self) -> str:
        """Its name in the registry."""

    @property
    def identity(self) -> Mapping[str, str]:
        """What tells policies of this kind apart in results."""

    @property
    def about_losses(self) -> str:
        """What a reader of a comparison should know about its losses, in a sentence; "" for nothing."""

    def encoder(self, data: DataSpec, preprocessing: Preprocessing) -> Encoder:
        """The frozen half with its weights, on the CPU. Raises BadInput naming a missing file."""

    def encoder_modules(self) -> Mapping[str, nn.Module]:
        """The encoder's networks without released weights, by row of the parameter table."""

    def example_inputs(self, data: DataSpec, batch: int) -> Tree:
        """Zeros in the shapes of a training batch's inputs."""

    def build(self, data: DataSpec, normalizer: Normalizer) -> Trainable:
        """The learned half with random weights; without any under `torch.device("meta")`."""

    def validate(self, trained: Any) -> None:
        """BadInput where weights that were trained as `trained` cannot act as this."""

    def validate_together(self) -> None:
        """BadInput where values that a command line changed do not go together."""


@cache
def policy_kinds() -> Mapping[str, type[PolicyConfig]]:
    """Config class of every kind. Raises BadInput naming a plug-in that cannot be imported or takes another's kind."""
    kinds = {kind: _imported(target) for kind, target in KINDS.items()}
    for kind, entry in plug_ins(POLICIES).items():
        if kind in kinds:
            raise BadInput(f"{_origin(entry)}: policy kind {kind!r} exists already; rename its entry point")
        kinds[kind] = load(entry)
    return kinds


def plug_ins(group: str) -> dict[str, EntryPoint]:
    """Entry points of installed plug-ins, by name."""
    return {entry.name: entry for entry in entry_points(group=group)}


def load(entry: EntryPoint) -> Any:
    """What an entry point names. BadInput naming the package where it cannot be imported."""
    try:
        return entry.load()
    except Exception as error:  # a plug-in may raise anything while it is imported
        raise BadInput(
            f"{_origin(entry)}: {entry.group} {entry.name} = {entry.value} cannot be loaded "
            f"({type(error).__name__}: {error}); repair or uninstall the package"
        ) from error


def plug_in_recipes() -> Mapping[str, Callable[[], Any]]:
    """Recipes of installed plug-ins: a function that loads and calls each."""
    return {name: partial(_called, entry) for name, entry in plug_ins(RECIPES).items()}


def _called(entry: EntryPoint) -> Any:
    return load(entry)()


def policy_type() -> Any:
    """The union of all config classes, told apart by `kind`; a type for pydantic and tyro."""
    return Annotated[reduce(or_, policy_kinds().values()), Discriminator("kind")]


def _imported(target: str) -> Any:
    module, _, name = target.partition(":")
    return getattr(import_module(module), name)


def _origin(entry: EntryPoint) -> str:
    return f"plug-in {entry.dist.name} {entry.dist.version}" if entry.dist else f"plug-in {entry.value}"
