"""What the plug-in uses of LeRobot, read off released wheels without importing them (interface.json).

    pip download --no-deps --ignore-requires-python lerobot==0.4.4 lerobot==0.6.1
    python3.12 -m tests.lerobot_plug_in.interface lerobot-*.whl        (0.6 is written in Python 3.12)

Of classes: the dataclass fields, and the parameters of methods; of functions: their parameters. A parameter with a
default ends in "=". `prefixes`: how names of plug-ins begin. `types`: of policies, those that are LeRobot's own.
"""

from __future__ import annotations

import ast
import json
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from zipfile import ZipFile

HERE = Path(__file__).parent
RECORD = HERE / "interface.json"
PACKAGE = HERE.parents[1] / "packages/lerobot_policy_wamkit/src/lerobot_policy_wamkit"

SAVE = "_save_pretrained"
"""The only private name that plug-ins define."""


def imported(source: Path) -> Iterator[tuple[str, str]]:
    """Module and name of everything that a file imports from LeRobot."""
    for node in ast.walk(ast.parse(source.read_text())):
        if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "lerobot":
            yield from ((str(node.module), alias.name) for alias in node.names)


def used() -> list[tuple[str, str]]:
    """Of all files of the plug-in."""
    return sorted({pair for path in PACKAGE.glob("*.py") for pair in imported(path)})


class Wheel:
    """The sources of a wheel. modules: text by dotted name. packages: those that are folders."""

    def __init__(self, path: Path) -> None:
        self.modules, self.packages = {}, set()
        with ZipFile(path) as files:
            for name in filter(lambda name: name.endswith(".py"), files.namelist()):
                module = name.removesuffix(".py").removesuffix("/__init__").replace("/", ".")
                self.modules[module] = files.read(name).decode()
                self.packages |= {module} if name.endswith("/__init__.py") else set()

    def describe(self, module: str, name: str) -> Any:
        """Fields and methods of a class, parameters of a function, nothing of a constant. KeyError where it is not."""
        for node in ast.parse(self.modules.get(module, "")).body:
            if isinstance(node, ast.ImportFrom) and name in [
                alias.asname or alias.name for alias in node.names
            ]:
                return self.describe(self._absolute(module, node), name)
            if isinstance(node, ast.FunctionDef) and node.name == name:
                return {"parameters": parameters(node)}
            if isinstance(node, ast.ClassDef) and node.name == name:
                return self._class(module, node)
            if name in given(node):
                return {}
        raise KeyError(f"{module} has no {name}")

    def _class(self, module: str, node: ast.ClassDef) -> Any:
        inherited = [self._fields(module, base.id) for base in node.bases if isinstance(base, ast.Name)]
        methods = [each for each in node.body if isinstance(each, ast.FunctionDef)]
        return {
            "fields": sorted({*own_fields(node), *(name for names in inherited for name in names)}),
            "methods": {
                each.name: parameters(each)
                for each in methods
                if not decorated(each, "property") and (each.name == SAVE or not each.name.startswith("_"))
            },
            "properties": [each.name for each in methods if decorated(each, "property")],
            "abstract": [each.name for each in methods if decorated(each, "abstractmethod")],
        }

    def _fields(self, module: str, name: str) -> list[str]:
        """Of a base; none where it is another package's."""
        try:
            return list(self.describe(module, name)["fields"])
        except KeyError:
            return []

    def _absolute(self, module: str, node: ast.ImportFrom) -> str:
        if not node.level:
            return str(node.module)
        parts = module.split(".") if module in self.packages else module.split(".")[:-1]
        above = parts[: len(parts) - (node.level - 1)]
        return ".".join([*above, *([node.module] if node.module else [])])


def recorded(path: Path) -> dict[str, Any]:
    """What a wheel has of `used`, how names of plug-ins begin, and which policy types are its own."""
    wheel = Wheel(path)
    prefix = re.compile(r"[\"'](lerobot_[a-z]+_)[\"']")
    registered = re.compile(r"PreTrainedConfig\.register_subclass\(\"(\w+)\"\)")
    own = [source for module, source in wheel.modules.items() if module.startswith("lerobot.policies")]
    return {
        "names": {f"{module}.{name}": wheel.describe(module, name) for module, name in used()},
        "prefixes": sorted(set(prefix.findall(wheel.modules["lerobot.utils.import_utils"]))),
        "types": sorted({name for source in own for name in registered.findall(source)}),
    }


def given(node: ast.stmt) -> set[str]:
    """The names that a statement assigns to."""
    match node:
        case ast.Assign(targets=targets):
            return {to.id for to in targets if isinstance(to, ast.Name)}
        case ast.AnnAssign(target=ast.Name(id=name)):
            return {name}
    return set()


def own_fields(node: ast.ClassDef) -> list[str]:
    """Annotated names of a class, "=" behind those that have a default."""
    return [
        each.target.id + ("=" if each.value else "")
        for each in node.body
        if isinstance(each, ast.AnnAssign) and isinstance(each.target, ast.Name)
    ]


def decorated(node: ast.FunctionDef, name: str) -> bool:
    """Whether it has a decorator of that name."""
    return any(ast.unparse(each).split(".")[-1] == name for each in node.decorator_list)


def parameters(node: ast.FunctionDef) -> list[str]:
    """Their names, with "=" behind those that have a default, "*" and "**" before those that take the rest."""
    positional = [*node.args.posonlyargs, *node.args.args]
    without = len(positional) - len(node.args.defaults)
    names = [each.arg + ("=" if place >= without else "") for place, each in enumerate(positional)]
    names += [f"*{node.args.vararg.arg}"] if node.args.vararg else []
    names += [
        each.arg + ("=" if default else "")
        for each, default in zip(node.args.kwonlyargs, node.args.kw_defaults, strict=True)
    ]
    return names + ([f"**{node.args.kwarg.arg}"] if node.args.kwarg else [])


if __name__ == "__main__":
    versions = {Path(path).name.split("-")[1]: recorded(Path(path)) for path in sys.argv[1:]}
    RECORD.write_text(json.dumps(versions, indent=1) + "\n")
