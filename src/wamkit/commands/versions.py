"""`wamkit --version`: what a report of a problem should say."""

from __future__ import annotations

from wamkit.io.progress import say
from wamkit.io.provenance import UNKNOWN, revision, versions

SHOWN = {"wamkit": "wamkit", "wamkit-client": "wamkit-client", "torch": "PyTorch", "python": "Python"}


def print_versions() -> None:
    """A line each; the git revision where wamkit runs from a checkout."""
    found, commit = versions(), revision()
    for name, title in SHOWN.items():
        at = f" (revision {commit})" if name == "wamkit" and commit != UNKNOWN else ""
        say(f"{title} {found.get(name, 'not installed')}{at}")
