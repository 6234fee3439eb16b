"""LIBERO in tests: `make libero` installs it; without it these tests are skipped, saying so."""

from __future__ import annotations

import pytest
from wamkit_client.envs.libero.install import find_installation
from wamkit_client.types import BadInput


def _missing() -> str:
    try:
        find_installation()
    except BadInput as error:
        return str(error)
    return ""


needs_libero = pytest.mark.skipif(bool(_missing()), reason=_missing() or "LIBERO is here")
