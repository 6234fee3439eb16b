"""The two wheels alone: `wamkit demo` in an empty folder, outside the checkout, with nothing but what they require."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tomllib
import zipfile
from importlib import metadata
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

import wamkit
from tests.until import SECONDS

ROOT = Path(__file__).parents[1]
PROJECTS = (ROOT / "packages/wamkit-client", ROOT)
OURS = {"wamkit", "wamkit-client"}

pytestmark = pytest.mark.scale


@pytest.fixture(scope="module")
def wheels(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Built of copies, so that nothing is left in the checkout."""
    folder = tmp_path_factory.mktemp("wheels")
    for number, project in enumerate(PROJECTS):
        copy = folder / f"source{number}"
        ignored = shutil.ignore_patterns(
            ".git", ".venv*", "__pycache__", "runs", "demo", "tests", "pretrained", ".*cache"
        )
        shutil.copytree(project, copy, ignore=ignored)
        command = [
            sys.executable,
            "-m",
            "pip",
            "wheel",
            "-q",
            "--no-deps",
            "--wheel-dir",
            str(folder),
            str(copy),
        ]
        subprocess.run(command, check=True)
    found = sorted(folder.glob("*.whl"))
    assert len(found) == len(PROJECTS)
    return found


@pytest.fixture(scope="module")
def site(wheels: list[Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What `pip install wamkit[metaworld]` would install, without downloading it again: the wheels unpacked, and links
    to the packages that they require."""
    folder = tmp_path_factory.mktemp("site")
    for wheel in wheels:
        with zipfile.ZipFile(wheel) as archive:
            archive.extractall(folder)
    for name in required("wamkit", {"metaworld"}) - OURS:
        distribution = metadata.distribution(name)
        for top in {
            file.parts[0] for file in distribution.files or () if file.parts[0] not in ("..", "__pycache__")
        }:
            place = folder / top
            if not place.exists():
                place.symlink_to(Path(str(distribution.locate_file(top))))
    return folder


def required(name: str, extras: set[str]) -> set[str]:
    """Names of the installed distributions that one needs, itself included."""
    found: set[str] = set()
    waiting = [(name, frozenset(extras))]
    seen = set(waiting)
    while waiting:
        name, wanted = waiting.pop()
        found.add(canonicalize_name(name))
        for requirement in map(Requirement, metadata.distribution(name).requires or ()):
            marker = requirement.marker
            if marker is None or any(marker.evaluate({"extra": extra}) for extra in (*wanted, "")):
                asked = (requirement.name, frozenset(requirement.extras))
                if asked not in seen:
                    seen.add(asked)
                    waiting.append(asked)
    return found


def run(site: Path, folder: Path, *words: str) -> str:
    """`wamkit WORDS` by an interpreter that sees `site` and nothing else."""
    environment = {**os.environ, "PYTHONPATH": str(site)}
    command = [sys.executable, "-S", "-m", "wamkit.cli", *words]
    done = subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, text=True, check=False, timeout=SECONDS
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


def test_a_wheel_holds_what_it_should(wheels: list[Path]) -> None:
    for wheel in wheels:
        names = zipfile.ZipFile(wheel).namelist()
        tops = {name.split("/")[0] for name in names}
        package = "wamkit_client" if "client" in wheel.name else "wamkit"
        assert {top for top in tops if not top.endswith(".dist-info")} == {package}
        sources = PROJECTS[0] / "src" if "client" in wheel.name else ROOT / "src"
        expected = {
            str(path.relative_to(sources))
            for path in (sources / package).rglob("*")
            if path.is_file() and "__pycache__" not in path.parts
        }
        assert expected <= set(names)


def test_the_version_is_one_and_in_the_changelog(wheels: list[Path]) -> None:
    versions = {
        tomllib.loads((project / "pyproject.toml").read_text())["project"]["version"] for project in PROJECTS
    }
    assert versions == {wamkit.__version__} == {wheel.name.split("-")[1] for wheel in wheels}
    headings = re.findall(r"^## (\S+)", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)
    assert headings[0] in ("Unreleased", wamkit.__version__)


def test_the_demo_from_an_empty_folder(site: Path, tmp_path: Path) -> None:
    assert f"wamkit {wamkit.__version__}" in run(site, tmp_path, "--version")
    run(site, tmp_path, "demo", "--smoke", "--episodes", "2", "--out", "demo")
    assert (tmp_path / "demo/run/weights.safetensors").is_file() and (
        tmp_path / "demo/run/report.html"
    ).is_file()
    assert not [path for path in tmp_path.iterdir() if path.name != "demo"]
