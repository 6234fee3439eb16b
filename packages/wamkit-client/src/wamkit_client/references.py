"""Functions named by where they are: "my_env.py:make", a file, or "package.module:make", a module that is installed.

This is how a command is told of something that a user wrote. It does not know what the functions are for.
"""

from __future__ import annotations

import hashlib
import sys
from importlib import import_module
from importlib.util import find_spec, module_from_spec, spec_from_file_location
from pathlib import Path
from traceback import extract_tb
from types import ModuleType
from typing import Any, Callable, NamedTuple

from wamkit_client.types import BadInput


class Reference(NamedTuple):
    """module: a file ending in .py, or the dotted name of a module. name: of the function or class in it."""

    module: str
    name: str

    @property
    def is_file(self) -> bool:
        """Whether `module` is a file."""
        return self.module.endswith(".py")

    @property
    def stem(self) -> str:
        """The last part of the module's name."""
        return Path(self.module).stem if self.is_file else self.module.rpartition(".")[2]


def parse(text: str, name: str) -> Reference:
    """The reference that a text means. name: of the function where the text has none ("my_env.py")."""
    module, colon, given = text.rpartition(":")
    return Reference(module, given) if colon else Reference(text, name)


def is_reference(text: str) -> bool:
    """Whether a text is written as one."""
    return text.endswith(".py") or ":" in text


def load(reference: Reference, expected: str) -> Callable[..., Any]:
    """The function or class. expected: what it has to be, for messages ("a function ... that returns ...").

    Raises BadInput where the module is missing, cannot be imported (with its line) or has no such function.
    """
    module = _module(reference, expected)
    found = vars(module).get(reference.name)
    if not callable(found):
        own = [
            name
            for name, value in vars(module).items()
            if callable(value) and not name.startswith("_") and value.__module__ == module.__name__
        ]
        has = f"it has {', '.join(own)}" if own else "it has none"
        what = "has no function" if found is None else f"holds a {type(found).__name__}, no function,"
        raise BadInput(f"{reference.module}: {what} {reference.name!r}; {has}; expected {expected}")
    return found


def call(reference: Reference, function: Callable[..., Any], *args: Any) -> Any:
    """What the function returns. BadInput with file and line where it raises."""
    try:
        return function(*args)
    except BadInput as error:  # of ours, for a value of the function's: its message names no file
        raise BadInput(f"{reference.module}: {reference.name}, {_place(error, reference)}{error}") from error
    except Exception as error:  # a user's function may raise anything
        raise BadInput(f"{reference.module}: {reference.name} failed, {_told(error, reference)}") from error


def sha256(reference: Reference) -> str:
    """Of the file that the function is written in; not of what that imports. BadInput where it is missing."""
    return hashlib.sha256(_file(reference).read_bytes()).hexdigest()


def _file(reference: Reference) -> Path:
    if reference.is_file:
        path = Path(reference.module)
        if not path.is_file():
            raise BadInput(f"{path}: missing; expected a Python file with {reference.name!r} in it")
        return path
    here = str(Path.cwd())
    if here not in sys.path:  # it is for `python -m`, and not for a command
        sys.path.append(here)
    try:
        spec = find_spec(reference.module)
    except (ImportError, ValueError):  # its package is missing, or the name is none
        spec = None
    if spec is None or spec.origin is None or not Path(spec.origin).is_file():
        raise BadInput(
            f"{reference.module}: no such module; expected path/to/file.py:{reference.name}, or "
            f"package.module:{reference.name} of a package that is installed or lies in this folder"
        )
    return Path(spec.origin)


def _module(reference: Reference, expected: str) -> ModuleType:
    path = _file(reference)
    try:
        return _executed(path) if reference.is_file else import_module(reference.module)
    except (Exception, SystemExit) as error:  # a user's file may raise anything
        raise BadInput(
            f"{reference.module}: cannot be imported ({_told(error, reference)}); expected {expected}"
        ) from error


def _executed(path: Path) -> ModuleType:
    """The module of a file, which may import its neighbours as it could as a script."""
    folder = str(path.resolve().parent)
    if folder not in sys.path:
        sys.path.insert(0, folder)
    spec = spec_from_file_location(f"wamkit_file_{path.stem}", path)
    assert spec and spec.loader, "the file is there and ends in .py"
    module = module_from_spec(spec)
    sys.modules[module.__name__] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module


def _told(error: BaseException, reference: Reference) -> str:
    """An exception with the line of the user's file that it came from."""
    message = error.msg if isinstance(error, SyntaxError) else str(error)
    return f"{_place(error, reference)}{type(error).__name__}: {message}"


def _place(error: BaseException, reference: Reference) -> str:
    """ "line 3: ", the last one of the user's file that an exception passed; "" where it passed none."""
    line = error.lineno if isinstance(error, SyntaxError) else None
    for frame in extract_tb(error.__traceback__):
        if Path(frame.filename).stem == reference.stem:
            line = frame.lineno
    return f"line {line}: " if line else ""
