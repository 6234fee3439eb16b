"""A measurement as files: everything in JSON, tables in Markdown, parts of a query as an SVG image."""

from __future__ import annotations

import dataclasses
import datetime
import json
import re
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from wamkit.io.files import replace_text
from wamkit.io.provenance import machine, revision, versions

QUERY = "name,driver_version,clocks.sm,clocks.mem,clocks.max.sm,power.draw,memory.total"


def circumstances(device: torch.device) -> dict[str, Any]:
    """When, where and of which source a measurement is."""
    return {
        "date": f"{datetime.date.today()}",
        "command": " ".join(["wamkit", *sys.argv[1:]]),
        "revision": revision(),
        "machine": machine(),
        "versions": versions(),
        "threads": torch.get_num_threads(),
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu",
        "gpu": _gpu() if device.type == "cuda" else {},
    }


def _gpu() -> dict[str, str]:
    """Clocks and power now, where there is nvidia-smi."""
    tool = shutil.which("nvidia-smi")
    if not tool:
        return {}
    command = [tool, f"--query-gpu={QUERY}", "--format=csv,noheader"]
    found = subprocess.run(command, capture_output=True, text=True, check=False).stdout.strip()
    return dict(zip(QUERY.split(","), found.split(", "), strict=False))


def shown(facts: Mapping[str, Any]) -> str:
    """The circumstances in a sentence."""
    where = facts["machine"]
    device = where["cpu"] if facts["device"] == "cpu" else f"{facts['device']}, {where['cpu']}"
    gpu = "".join(f"; {name} {value}" for name, value in facts["gpu"].items() if name != "name")
    return (
        f"{device}, {facts['threads']} of {where['cores']} cores{gpu}; torch {facts['versions']['torch']}; revision "
        f"{facts['revision']}; {facts['date']}. `{facts['command']}`"
    )


def stem(what: str, name: str, facts: Mapping[str, Any]) -> str:
    """Of the files: "latency_robotwin_amd-epyc_2026-11-22"."""
    hardware = facts["machine"]["cpu"] if facts["device"] == "cpu" else facts["device"]
    return f"{what}_{name}_{re.sub(r'[^a-z0-9]+', '-', hardware.lower()).strip('-')}_{facts['date']}"


def write(path: Path, found: object, page: str) -> None:
    """`path`.json and `path`.md."""
    path.parent.mkdir(parents=True, exist_ok=True)
    replace_text(Path(f"{path}.json"), json.dumps(plain(found), indent=1) + "\n")
    replace_text(Path(f"{path}.md"), page)


def plain(value: Any) -> Any:
    """As JSON takes it; a measured way has its summary beside its rounds."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        fields = {field.name: plain(getattr(value, field.name)) for field in dataclasses.fields(value)}
        fields.pop("products", None)  # of counted work, which has thousands
        return fields
    if isinstance(value, Mapping):
        return {str(key): plain(each) for key, each in value.items()}
    return [plain(each) for each in value] if isinstance(value, list | tuple) else value


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Markdown; all but the first column to the right."""
    rule = ["---"] + ["---:"] * (len(head) - 1)
    return "\n".join("| " + " | ".join(row) + " |" for row in (head, rule, *rows))
