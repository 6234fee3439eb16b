"""A measurement that is one table: as a page and a file, and printed."""

from __future__ import annotations

from pathlib import Path

import torch

from wamkit.bench.results import circumstances, shown, stem, write
from wamkit.io.progress import say


def save(what: str, name: str, title: str, body: str, found: object, device: torch.device, out: Path) -> int:
    """Write and print it; the status of the command. name: of the recipe, or a run directory."""
    facts = circumstances(device)
    path = out / stem(what, Path(name).name, facts)
    page = f"# {title}: {Path(name).name}\n\n{shown(facts)}\n\n{body}\n"
    write(path, {"facts": facts, "what": name, "found": found}, page)
    for line in page.splitlines():
        say(line)
    say(f"{path}.md: done")
    return 0
