"""The plug-in beside the recorded interface of LeRobot: nothing of LeRobot is installed here.

`make test-lerobot` runs it with the real package (test_lerobot.py).
"""

from __future__ import annotations

import ast
import json
import re
import tomllib
from pathlib import Path
from typing import Any

import pytest

from tests.lerobot_plug_in.interface import PACKAGE, RECORD, decorated, own_fields, parameters, used

ROOT = Path(__file__).parents[2]
VERSIONS: dict[str, Any] = json.loads(RECORD.read_text())
POLICY, CONFIG = "lerobot.policies.pretrained.PreTrainedPolicy", "lerobot.configs.policies.PreTrainedConfig"
SCHEDULE = "lerobot.optim.schedulers.LRSchedulerConfig"
KINDS = {"light_wam": "LightWAM", "fast_wam": "FastWAM", "lawam": "LaWAM"}
BASES = {
    POLICY: ("policy", "WamkitPolicy"),
    CONFIG: ("config", "WamkitConfig"),
    SCHEDULE: ("schedule", "WamkitSchedulerConfig"),
}

every_version = pytest.mark.parametrize("version", VERSIONS)


def tree(module: str) -> ast.Module:
    return ast.parse((PACKAGE / f"{module}.py").read_text())


def class_of(module: str, name: str) -> ast.ClassDef:
    [found] = [node for node in tree(module).body if isinstance(node, ast.ClassDef) and node.name == name]
    return found


def methods(node: ast.ClassDef) -> dict[str, ast.FunctionDef]:
    return {each.name: each for each in node.body if isinstance(each, ast.FunctionDef)}


def test_versions() -> None:
    assert list(VERSIONS) == ["0.4.4", "0.6.1"]


@every_version
def test_every_name_is_there(version: str) -> None:
    assert {f"{module}.{name}" for module, name in used()} == VERSIONS[version]["names"].keys()


@every_version
@pytest.mark.parametrize("base", BASES)
def test_what_must_be_implemented_is(version: str, base: str) -> None:
    theirs, ours = VERSIONS[version]["names"][base], methods(class_of(*BASES[base]))
    assert set(theirs["abstract"]) <= ours.keys()
    assert all(decorated(ours[name], "property") for name in theirs["properties"] if name in ours)
    assert not any(decorated(ours[name], "property") for name in theirs["methods"] if name in ours)


@every_version
@pytest.mark.parametrize("base", BASES)
def test_what_is_overridden_takes_what_it_is_given(version: str, base: str) -> None:
    theirs, ours = VERSIONS[version]["names"][base]["methods"], methods(class_of(*BASES[base]))
    for name in (theirs.keys() & ours.keys()) - {"__init__"}:
        asked, taken = theirs[name], parameters(ours[name])
        named = {each.strip("*=") for each in taken}
        rest = any(each.startswith("**") for each in taken)
        assert rest or {each.strip("=") for each in asked if not each.startswith("*")} <= named, (name, taken)
        needed = {each for each in taken if not each.endswith("=") and not each.startswith("*")}
        assert needed <= {each.strip("=") for each in asked}, f"{name} needs {needed}, and is given {asked}"


@every_version
def test_what_is_made_takes_what_we_give(version: str) -> None:
    """Keywords of every dataclass of LeRobot that the plug-in makes."""
    names = {dotted.rpartition(".")[2]: entry for dotted, entry in VERSIONS[version]["names"].items()}
    for path in PACKAGE.glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and names.get(node.func.id):
                fields = {field.strip("=") for field in names[node.func.id]["fields"]}
                assert {keyword.arg for keyword in node.keywords} <= fields, ast.unparse(node)


@every_version
def test_lerobot_finds_it(version: str) -> None:
    project = tomllib.loads((PACKAGE.parents[1] / "pyproject.toml").read_text())["project"]
    assert project["name"] == PACKAGE.name
    assert any(PACKAGE.name.startswith(prefix) for prefix in VERSIONS[version]["prefixes"])


@every_version
@pytest.mark.parametrize("kind", KINDS)
def test_names_follow_from_the_type(version: str, kind: str) -> None:
    name, registered = KINDS[kind], f"wamkit_{kind}"
    assert registered not in VERSIONS[version]["types"]
    config = class_of(f"configuration_{kind}", f"{name}Config")
    assert f"register_subclass('{registered}')" in ast.unparse(config.decorator_list[0])
    policy = ast.unparse(class_of(f"modeling_{kind}", f"{name}Policy"))
    assert f"name = '{registered}'" in policy and f"config_class = {name}Config" in policy
    assert f"make_{registered}_pre_post_processors" in ast.unparse(tree(f"processor_{kind}"))
    assert f"configuration_{kind}" in ast.unparse(tree("__init__"))


def test_the_page_names_what_there_is() -> None:
    """Every --policy flag of docs/lerobot.md is a field of a config."""
    flags = set(re.findall(r"--policy\.(\w+)", (ROOT / "docs/lerobot.md").read_text()))
    own = {field.strip("=") for field in own_fields(class_of("config", "WamkitConfig"))}
    for entry in VERSIONS.values():
        known = {field.strip("=") for field in entry["names"][CONFIG]["fields"]} | {"path", "type"}
        assert flags <= own | known
    assert {"recipe", "robot", "n_action_steps", "engine"} <= flags
