"""A file that is either whole or as it was before. It does not know contents."""

from __future__ import annotations

import os
from contextlib import suppress
from typing import Union

from wamkit_client.types import NotSaved


def replace_file(path: str, content: Union[bytes, memoryview]) -> None:
    """Write beside `path`, then rename. NotSaved, and `path` as it was, where the disk refuses."""
    temporary = path + ".tmp"
    try:
        with open(temporary, "wb") as file:
            file.write(content)
        os.replace(temporary, path)
    except OSError as error:
        with suppress(OSError):
            os.remove(temporary)
        raise NotSaved(error.errno, error.strerror, path) from error
