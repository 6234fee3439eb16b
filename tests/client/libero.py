"""LIBERO in tests: `make libero` installs it; without it these tests are skipped, saying so."""

from __future__ import annotations

import pytest
from wamkit_client.envs.libero import pro
from wamkit_client.envs.libero.install import find_installation
from wamkit_client.types import BadInput


def _missing(suite: str) -> str:
    try:
        find_installation().bddl(suite, "")
    except BadInput as error:
        return str(error)
    return ""


def _needs(suite: str) -> pytest.MarkDecorator:
    missing = _missing(suite)
    return pytest.mark.skipif(bool(missing), reason=missing or "LIBERO is here")


needs_libero = _needs("libero_object")
needs_libero_pro = _needs(pro.SUITES[1])  # of changed objects: these must be among the assets
