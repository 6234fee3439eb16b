"""Who may know whom: an import may only point to a lower row, and strangers in one row do not import each other.

Imports inside functions and under TYPE_CHECKING count too: what is imported late is known all the same.
"""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
WAMKIT = ROOT / "src" / "wamkit"
CLIENT = ROOT / "packages" / "wamkit-client" / "src" / "wamkit_client"

# From the top down. `__init__` is the package's own front door, `load_policy`.
ROWS = (
    {"__main__"},
    {"cli", "__init__"},
    {"commands"},
    {"bench"},  # what everything below costs
    {"stages", "convert", "robotwin"},
    {"recipes"},
    {"config"},
    {"registry"},
    {"train", "serve", "eval", "report"},
    {"infer", "analysis"},
    {"policies"},
    {"wan", "data"},
    {"nn", "flow"},
    {"cluster"},
    {"io"},
    {"foresight"},
    {"types"},
    {"bounds", "draws", "plugins", "spans", "subset", "taking", "tree"},
)
ROW_OF = {room: number for number, row in enumerate(ROWS) for room in row}

NEIGHBOURS_WHO_MEET = {
    ("convert", "stages"),  # what is imported is checked and encoded as by the stages
    ("robotwin", "stages"),  # its evaluation is a stage
}

# The robot's side installs in any simulator's environment.
CLIENT_PACKAGES = sys.stdlib_module_names | {"wamkit_client", "numpy", "msgpack", "websockets"}
SIMULATORS = {"mujoco", "metaworld", "libero", "robosuite", "scipy"}  # the last comes with robosuite


def sources(folder: Path) -> list[Path]:
    return sorted(folder.rglob("*.py"))


def imported(path: Path, package: Path) -> Iterator[tuple[int, str]]:
    """Line and absolute dotted name of everything a file imports; `from a import b` gives a.b."""
    for node in ast.walk(ast.parse(path.read_text(), str(path))):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            inside = path.relative_to(package.parent).parts[: -node.level] if node.level else ()
            module = ".".join([*inside, *([node.module] if node.module else [])])
            yield from ((node.lineno, f"{module}.{alias.name}") for alias in node.names)


def room(dotted: str) -> str:
    """The part of wamkit a dotted name leads to; names that stand in wamkit/__init__.py lead there."""
    first = dotted.split(".")[1] if "." in dotted else "__init__"
    return first if (WAMKIT / first).is_dir() or (WAMKIT / f"{first}.py").is_file() else "__init__"


@pytest.mark.parametrize("path", sources(WAMKIT), ids=lambda path: str(path.relative_to(WAMKIT)))
def test_imports_point_down(path: Path) -> None:
    here = path.relative_to(WAMKIT).parts[0].removesuffix(".py")
    assert here in ROW_OF, f"{here} stands in no row of this test: find its room or give it one"
    wrong = []
    for line, name in imported(path, WAMKIT):
        if (
            name.split(".")[0] != "wamkit"
            or (there := room(name)) == here
            or (here, there) in NEIGHBOURS_WHO_MEET
        ):
            continue
        if ROW_OF[there] <= ROW_OF[here]:
            wrong.append(f"{path.relative_to(ROOT)}:{line} imports {name}: {there} does not lie below {here}")
    assert not wrong, "\n".join(wrong)


@pytest.mark.parametrize("path", sources(CLIENT), ids=lambda path: str(path.relative_to(CLIENT)))
def test_the_robots_side_knows_nobody(path: Path) -> None:
    allowed = CLIENT_PACKAGES | (SIMULATORS if "envs" in path.parts else set())
    strangers = [
        f"{path.name}:{line} imports {name}"
        for line, name in imported(path, CLIENT)
        if name.split(".")[0] not in allowed
    ]
    assert not strangers, "\n".join(strangers)
    ast.parse(path.read_text(), str(path), feature_version=(3, 8))


@pytest.mark.parametrize("package", [WAMKIT, CLIENT], ids=["wamkit", "client"])
def test_nobody_knows_lerobot(package: Path) -> None:
    """Its plug-in is a package of its own (packages/lerobot_policy_wamkit)."""
    found = [
        f"{path.relative_to(ROOT)}:{line} imports {name}"
        for path in sources(package)
        for line, name in imported(path, package)
        if name.split(".")[0] in ("lerobot", "lerobot_policy_wamkit")
    ]
    assert not found, "\n".join(found)


def test_every_room_is_there() -> None:
    rooms = {
        path.stem for path in WAMKIT.iterdir() if path.suffix == ".py" or (path / "__init__.py").exists()
    }
    assert set(ROW_OF) <= rooms, f"no such part of wamkit: {sorted(set(ROW_OF) - rooms)}"
