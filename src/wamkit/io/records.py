"""Small JSON files that hold one dataclass: written whole or not at all, read strictly."""

from __future__ import annotations

import json
from dataclasses import asdict, is_dataclass
from pathlib import Path
from typing import Any, TypeVar

from pydantic import TypeAdapter, ValidationError
from wamkit_client.types import BadInput

from wamkit.io.files import replace_text

T = TypeVar("T")


def write_record(path: Path, record: Any) -> None:
    """A dataclass as a JSON object."""
    assert is_dataclass(record) and not isinstance(record, type)
    replace_text(path, json.dumps(asdict(record), indent=1) + "\n")


def read_record(path: Path, kind: type[T], remedy: str) -> T:
    """BadInput, ending with `remedy`, where the file is missing, truncated, or has other keys or types than `kind`."""
    if not path.is_file():
        raise BadInput(f"{path}: missing; {remedy}")
    try:
        # Not validate_json, whose numbers may differ from Python's in the last digit.
        found: T = TypeAdapter(kind).validate_python(json.loads(path.read_text()))
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"])) or "content"
        raise BadInput(f"{path}: {where}: {first['msg']}; {remedy}") from None
    except ValueError as error:
        raise BadInput(f"{path}: truncated or not JSON ({error}); {remedy}") from None
    return found
