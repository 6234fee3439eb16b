"""One cluster for all tests that do not break theirs."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.cluster.nodes import cluster


@pytest.fixture(scope="package")
def nodes() -> Iterator[Any]:
    """A head without processors, and two nodes with one each."""
    found = os.pathsep.join([str(Path(__file__).parents[2]), os.environ.get("PYTHONPATH", "")])
    with pytest.MonkeyPatch.context() as patch:
        # nodes find the modules of tests wherever drivers are
        patch.setenv("PYTHONPATH", found.rstrip(os.pathsep))
        yield from _nodes()


def _nodes() -> Iterator[Any]:
    with cluster({"num_cpus": 1}, {"num_cpus": 1}) as found:
        yield found
