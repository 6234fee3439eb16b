"""Policy kinds by name: ours (policies/__init__.py) and those of installed plug-ins (plugins.py)."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache, reduce
from importlib import import_module
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
    kinds = {kind: _imported(target) for kind, target in KINDS.items()}
    for kind, entry in plug_ins(POLICIES).items():
        if kind in kinds:
            raise BadInput(f"{origin(entry)}: policy kind {kind!r} exists already; rename its entry point")
        kinds[kind] = load(entry)
    return kinds


def policy_type() -> Any:
    """The union of all config classes, told apart by `kind`; a type for pydantic and tyro."""
    return Annotated[reduce(or_, policy_kinds().values()), Discriminator("kind")]


def _imported(target: str) -> Any:
    module, _, name = target.partition(":")
    return getattr(import_module(module), name)
