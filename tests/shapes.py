"""The run-time checker of annotations in tests: beartype, for everything but protocols.

A protocol is a promise that mypy checks. Asking `isinstance` would read every attribute, and some of them load
gigabytes; so an annotation with a protocol in it is left alone.
"""

from __future__ import annotations

import typing
from collections.abc import Callable
from typing import Any

import beartype

_check = beartype.beartype(conf=beartype.BeartypeConf(is_pep484_tower=True))  # an int is a float, as for mypy


def check(function: Callable[..., Any]) -> Callable[..., Any]:
    """jaxtyping hands in functions without a body whose annotations are to be checked: one before the call, which
    returns Any, and one after it. The letters that arguments bound in the first still hold in the second."""
    hints = {name: Any if _has_protocol(hint) else hint for name, hint in function.__annotations__.items()}
    if hints.get("return", Any) is not Any:
        hints = dict.fromkeys(hints, Any) | {"return": hints["return"]}
    function.__annotations__ = hints
    return _check(function)


def _has_protocol(hint: Any) -> bool:
    if isinstance(hint, typing.TypeVar):
        return _has_protocol(hint.__bound__)
    return getattr(hint, "_is_protocol", False) or any(map(_has_protocol, typing.get_args(hint)))
