"""The run-time checker of annotations in tests: beartype, for everything but protocols, with jaxtyping's letters.

jaxtyping's import hook puts `jaxtyped` before every function and class. Its own checks arguments and results by calls
of functions without a body and binds the arguments by `inspect`, which costs as much as all that tests compute. The one
below lets beartype check the function itself, from its first call on.

A protocol is a promise that mypy checks. Asking `isinstance` would read every attribute, and some of them load
gigabytes; so an annotation with a protocol in it is left alone.
"""

from __future__ import annotations

import dataclasses
import functools
import inspect
import types
import typing
from collections.abc import Callable
from typing import Any

import beartype
import jaxtyping

_check = beartype.beartype(
    conf=beartype.BeartypeConf(
        is_pep484_tower=True,  # an int is a float, as for mypy
        violation_type=jaxtyping.TypeCheckError,
    )
)
_thorough = jaxtyping.jaxtyped
_letters = jaxtyping.jaxtyped("context")


def check(function: Callable[..., Any]) -> Callable[..., Any]:
    """beartype's check of a function, less its annotations with protocols.

    jaxtyping's own decorator hands in functions without a body: one before the call, which returns Any, and one after
    it. The letters that arguments bound in the first still hold in the second, so there only the result is checked.
    """
    hints = {name: Any if _has_protocol(hint) else hint for name, hint in function.__annotations__.items()}
    if hints.get("return", Any) is not Any:
        hints = dict.fromkeys(hints, Any) | {"return": hints["return"]}
    function.__annotations__ = hints
    return _check(function)


def jaxtyped(*, typechecker: Callable[..., Any]) -> Callable[[Any], Any]:
    """Stands for `jaxtyping.jaxtyped`: takes what the import hook decorates, functions and classes."""
    return functools.partial(_decorated, typechecker)


def _decorated(typechecker: Callable[..., Any], what: Any) -> Any:
    if inspect.isclass(what):
        if dataclasses.is_dataclass(what) and not hasattr(what.__init__, "__wrapped__"):
            what.__init__ = _checked(what.__init__)
        return what
    computed = any(
        "{" in str(hint) for hint in what.__annotations__.values()
    )  # sizes computed from arguments
    if computed or inspect.isgeneratorfunction(what) or inspect.iscoroutinefunction(what):
        return _thorough(what, typechecker=typechecker)
    return _checked(what)


def _checked(function: Callable[..., Any]) -> Callable[..., Any]:
    """The function with a check of its arguments, in whose letters its result is read."""
    with_check: list[Callable[..., Any]] = []

    @functools.wraps(function)
    def checked(*args: Any, **kwargs: Any) -> Any:
        if not with_check:
            with_check.append(_check(_resolved(function)))
        with _letters:
            try:
                return with_check[0](*args, **kwargs)
            except jaxtyping.TypeCheckError:
                jaxtyping.print_bindings()  # into what pytest shows of a test that fails
                raise

    return checked


def _resolved(function: Any) -> Any:
    """The same function whose annotations are types, not text."""
    copy = types.FunctionType(
        function.__code__,
        function.__globals__,
        function.__name__,
        function.__defaults__,
        function.__closure__,
    )
    copy.__kwdefaults__, copy.__module__ = function.__kwdefaults__, function.__module__
    copy.__qualname__ = function.__qualname__
    hints = {name: _type(hint, function.__globals__) for name, hint in function.__annotations__.items()}
    copy.__annotations__ = {name: Any if _has_protocol(hint) else hint for name, hint in hints.items()}
    return copy


def _type(hint: Any, names: dict[str, Any]) -> Any:
    """Any where a name is known to mypy alone, or inside another function."""
    holder = types.SimpleNamespace(__annotations__={"hint": hint})
    try:
        return typing.get_type_hints(holder, names, include_extras=True)["hint"]
    except NameError:
        return Any


def _has_protocol(hint: Any) -> bool:
    if isinstance(hint, typing.TypeVar):
        return _has_protocol(hint.__bound__)
    return getattr(hint, "_is_protocol", False) or any(map(_has_protocol, typing.get_args(hint)))
