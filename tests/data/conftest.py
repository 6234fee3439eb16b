"""The small recording as a dataset: one to read, and a copy to break."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from tests.data import recording


@pytest.fixture(scope="session")
def recorded(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A sound dataset; do not change it."""
    return recording.write(tmp_path_factory.mktemp("recorded") / "dataset")


@pytest.fixture
def breakable(recorded: Path, tmp_path: Path) -> Path:
    """A copy of the sound dataset."""
    return Path(shutil.copytree(recorded, tmp_path / "breakable"))
