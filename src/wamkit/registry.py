"""Policy kinds by name: ours (policies/__init__.py) and those of installed plug-ins (plugins.py)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import is_dataclass
from functools import cache, reduce
from importlib import import_module
from importlib.metadata import EntryPoint
from operator import or_
from typing import Annotated, Any

from pydantic import Discriminator
from wamkit_client.types import BadInput

from wamkit.plugins import POLICIES, load, origin, plug_ins
from wamkit.policies import KINDS
from wamkit.policies.base import PolicyConfig


@cache
def policy_kinds() -> Mapping[str, type[PolicyConfig]]:
    """Config class of every kind. Raises BadInput naming a plug-in that cannot be imported or takes another's kind."""
    added = {kind: _config_class(entry) for kind, entry in plug_ins(POLICIES, KINDS).items()}
    return {kind: _imported(target) for kind, target in KINDS.items()} | added


def policy_type() -> Any:
    """The union of all config classes, told apart by `kind`; a type for pydantic and tyro."""
    return Annotated[reduce(or_, policy_kinds().values()), Discriminator("kind")]


def _config_class(entry: EntryPoint) -> type[PolicyConfig]:
    """What a plug-in calls its config class. BadInput where it is something else, or of another kind."""
    config = load(entry)
    if not (isinstance(config, type) and issubclass(config, PolicyConfig) and is_dataclass(config)):
        raise BadInput(
            f"{origin(entry)}: {entry.value} is no dataclass that derives from wamkit.policies.base.PolicyConfig"
        )
    kind = getattr(config, "kind", None)
    if kind != entry.name:
        raise BadInput(
            f'{origin(entry)}: {entry.value} has kind {kind!r}; give it the field `kind: Literal["{entry.name}"] = '
            f'"{entry.name}"`, as its entry point is named'
        )
    return config


def _imported(target: str) -> Any:
    module, _, name = target.partition(":")
    return getattr(import_module(module), name)
