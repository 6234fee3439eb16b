"""Parts of a query as bars, one way over the other, beside the limit: an SVG image for a page that may be dark."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import matplotlib as mpl
from matplotlib.figure import Figure

from wamkit.bench.counting import OUTSIDE
from wamkit.report.plots import STYLE
from wamkit.spans import PARTS

COLOURS = dict(
    zip(
        (*PARTS, OUTSIDE),
        ("#8d9aa5", "#2a6fb0", "#63bd8a", "#d9730d", "#b9423a", "#b8a3d6", "#d6d1c8"),
        strict=True,
    )
)
INK, GRID = "#737b84", "#c9ced3"
WIDTH, ROW, MARGIN = 7.2, 0.42, 0.95  # inches


@mpl.rc_context(STYLE)
def draw(path: Path, ways: Mapping[str, Mapping[str, float]]) -> None:
    """ways: seconds by part, the last row below."""
    figure = Figure(figsize=(WIDTH, ROW * len(ways) + MARGIN), layout="constrained")
    axes = figure.add_subplot()
    for name, colour in COLOURS.items():
        widths = [1e3 * parts.get(name, 0.0) for parts in ways.values()]
        left = [1e3 * sum(parts.get(own, 0.0) for own in _before(name)) for parts in ways.values()]
        if any(widths):
            axes.barh([*ways], widths, left=left, height=0.62, color=colour, label=name)
    axes.invert_yaxis()
    axes.set_xlabel("milliseconds of one observation")
    axes.grid(axis="y", visible=False)
    axes.grid(axis="x", color=GRID)
    axes.tick_params(colors=INK, labelcolor=INK)
    axes.xaxis.label.set_color(INK)
    axes.spines["bottom"].set_color(GRID)
    figure.legend(loc="outside upper center", ncols=len(COLOURS), frameon=False, labelcolor=INK, fontsize=7.5)
    figure.savefig(path, format="svg", transparent=True, metadata={"Date": None})


def _before(name: str) -> list[str]:
    names = [*COLOURS]
    return names[: names.index(name)]
