"""Line plots and histograms as inline SVG that take the page's font and colours, light or dark.

matplotlib draws in the style of page.mplstyle with stand-in colours, which are then replaced by the page's CSS
variables. It does not know what is plotted.
"""

from __future__ import annotations

import io
import re
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path

import matplotlib as mpl
import numpy as np
from markupsafe import Markup
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.ticker import LogLocator, MaxNLocator, NullLocator

STYLE = mpl.rc_params_from_file(Path(__file__).with_name("page.mplstyle"), use_default_template=False)

LINES, HISTOGRAM, SPARK = (3.5, 2.05), (2.6, 1.7), (1.8, 0.4)
"""Width and height in inches; the page scales plots, but not by much."""

LABEL, FAINTEST = 22, 0.01
"""Characters that the name of a row of a map is shortened to, and the least value that is drawn in it."""

# A stand-in is a colour that matplotlib would not choose by itself; page.mplstyle has more of them.
VARIABLES = {
    "#010101": "var(--ink)",
    "#020202": "var(--soft)",
    "#030303": "var(--grid)",
    "#040404": "var(--blue)",
    "#050505": "var(--orange)",
    "#060606": "var(--line)",
    "#070707": "var(--green)",
    "#080808": "var(--red)",
}
INK, SOFT, GRID, BLUE, ORANGE, LINE, GREEN, RED = VARIABLES


@dataclass(frozen=True)
class Curve:
    """y over x, in one of the page's colours (INK, BLUE, ...)."""

    x: Sequence[float]
    y: Sequence[float]
    colour: str
    alpha: float = 0.85
    width: float = 1.2


@mpl.rc_context(STYLE)
def curves(name: str, shown: Sequence[Curve], x_label: str, log: bool = False) -> Markup:
    """Curves over each other, the first in front. `log` needs positive values."""
    figure, axes = _blank(name, LINES)
    for curve in reversed(shown):
        marker = "o" if len(curve.y) == 1 else ""
        axes.plot(
            curve.x, curve.y, color=curve.colour, alpha=curve.alpha, linewidth=curve.width, marker=marker
        )
    if log:
        axes.set_yscale("log")
        axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5), numticks=6))
        axes.yaxis.set_major_formatter("{x:g}")  # set_yscale has put its own
        axes.yaxis.set_minor_locator(NullLocator())
    else:
        axes.set_ylim(bottom=min(0.0, *(min(curve.y) for curve in shown)))
    axes.set_xlim(0, max(max(curve.x) for curve in shown) or 1)
    axes.set_xlabel(x_label)
    return _svg(figure, name)


def smoothed(x: Sequence[float], y: Sequence[float]) -> list[Curve]:
    """y over x, pale, and in front its mean over the last twentieth of the points, where that is more than one."""
    window = max(1, len(y) // 20)
    mean = Curve(x, running_mean(np.asarray(y, np.float64), window).tolist(), BLUE, alpha=1.0, width=1.6)
    return [mean, Curve(x, y, BLUE, alpha=0.35, width=0.9)][: 1 + (window > 1)]


def running_mean(values: np.ndarray, window: int) -> np.ndarray:
    """Mean over the last `window` values (fewer at the beginning)."""
    total = np.concatenate([[0.0], np.cumsum(values)])
    end = np.arange(1, len(values) + 1)
    start = np.maximum(end - window, 0)
    return (total[end] - total[start]) / (end - start)


@mpl.rc_context(STYLE)
def histogram(name: str, values: np.ndarray, marks: Sequence[float], bins: int = 48) -> Markup:
    """Share of `values` [n] in each of `bins` equal ranges, and dashed vertical lines at `marks`."""
    low, high = min(values.min(), *marks), max(values.max(), *marks)
    margin = 0.04 * (high - low) or 0.5
    figure, axes = _blank(name, HISTOGRAM)
    shares = np.full(len(values), 100 / len(values))
    span = (low - margin, high + margin)
    axes.hist(values, bins=bins, range=span, weights=shares, color=BLUE, alpha=0.8, linewidth=0)
    for mark in marks:
        axes.axvline(mark, color=ORANGE, linewidth=1.3, dashes=(4, 2))
    axes.set_xlim(*span)
    axes.yaxis.set_major_formatter("{x:g} %")
    return _svg(figure, name)


@mpl.rc_context(STYLE)
def spark(name: str, values: np.ndarray, span: float, bins: int = 50) -> Markup:
    """A histogram of `values` [n] from -span to span without axes, dashed at -1 and 1, red outside of them."""
    figure = Figure(figsize=SPARK)
    axes = figure.add_axes((0, 0, 1, 1))
    axes.axis("off")
    counts, edges = np.histogram(values, bins, (-span, span))
    heights = np.where(counts, np.maximum(counts, counts.max() / 25), 0)  # a rare value can be seen too
    centres = (edges[:-1] + edges[1:]) / 2
    inside = np.abs(centres) <= 1 + span / bins
    for colour, shown in ((BLUE, inside), (RED, ~inside)):
        axes.bar(centres[shown], heights[shown], 1.8 * span / bins, color=colour, alpha=0.85)
    for mark in (-1, 1):
        axes.axvline(mark, color=SOFT, linewidth=0.8, dashes=(3, 2))
    axes.axhline(0, color=LINE, linewidth=1.2)
    axes.set(xlim=(-span, span), ylim=(0, 1.05 * counts.max()))
    return _svg(figure, name, "spark")


@mpl.rc_context(STYLE)
def chunk(
    name: str, sample: str, recorded: np.ndarray, is_pad: np.ndarray, predicted: np.ndarray, least: float
) -> Markup:
    """A dimension of a sample's action chunk: recorded [k], padded steps shaded, predicted [k] (or nothing) over it.

    least: height of the plot in units of the values, where they need no more.
    """
    figure, axes = _blank(name, HISTOGRAM)
    steps, end = np.arange(len(recorded)), len(recorded) - 0.5
    if is_pad.any():
        axes.axvspan(steps[is_pad][0] - 0.5, end, color=LINE, alpha=0.6, linewidth=0)
    axes.plot(steps, recorded, color=BLUE, linewidth=1.5, marker="o", markersize=2.2)
    if len(predicted):
        axes.plot(steps, predicted, color=ORANGE, linewidth=1.5)
    low, high = axes.get_ylim()
    missing = max(0.0, least - (high - low)) / 2
    axes.set_ylim(low - missing, high + missing)
    axes.set_xlim(-0.5, end)
    axes.set_xlabel("step of the chunk")
    return _svg(figure, f"{name} of {sample}")


@mpl.rc_context(STYLE)
def track(
    name: str,
    episode: str,
    recorded: np.ndarray,
    starts: Sequence[int],
    chunks: Sequence[np.ndarray],
    least: float,
) -> Markup:
    """A dimension of an episode: recorded [t], and over it chunks that were predicted at `starts`, each from a dot on.

    least: height of the plot in units of the values, where they need no more.
    """
    figure, axes = _blank(name, LINES)
    axes.plot(recorded, color=BLUE, linewidth=1.3)
    for start, chunk in zip(starts, chunks, strict=True):
        axes.plot(range(start, start + len(chunk)), chunk, color=ORANGE, linewidth=1.2)
    axes.plot(
        starts, [chunk[0] for chunk in chunks], color=ORANGE, linestyle="none", marker="o", markersize=2.6
    )
    low, high = axes.get_ylim()
    missing = max(0.0, least - (high - low)) / 2
    axes.set_ylim(low - missing, high + missing)
    axes.set_xlim(0, max(len(recorded) - 1, 1))
    axes.set_xlabel("step of the episode")
    return _svg(figure, f"{name} of {episode}")


@mpl.rc_context(STYLE)
def heat_map(name: str, rows: Sequence[str], values: np.ndarray, x_label: str) -> Markup:
    """Cells [rows, columns] from -1 (the page's blue) over 0 (nothing) to 1 (red); NaN is nothing too."""
    labels = [row if len(row) <= LABEL else row[: LABEL - 1] + "…" for row in rows]
    left, bottom, top = 0.12 + 0.067 * max(map(len, labels)), 0.41, 0.37
    width, height = LINES[0], max(LINES[1], bottom + top + 0.15 * len(rows))
    figure = Figure(figsize=(width, height))
    figure.text(0.004, 1 - 0.2 / height, name, color=INK, fontsize=9.5)
    axes = figure.add_axes(
        (left / width, bottom / height, 1 - (left + 0.07) / width, 1 - (bottom + top) / height)
    )
    for row, cells in enumerate(values):
        for column, value in enumerate(cells):
            if abs(value) >= FAINTEST:  # not where it is NaN
                colour, corner = RED if value > 0 else BLUE, (column + 0.5, row - 0.5)
                axes.add_patch(Rectangle(corner, 1, 1, color=colour, alpha=abs(value), linewidth=0))
    axes.set(xlim=(0.5, values.shape[1] + 0.5), ylim=(len(rows) - 0.5, -0.5))
    axes.set_yticks(range(len(rows)), labels)
    axes.xaxis.set_major_locator(MaxNLocator(6, integer=True, min_n_ticks=1))
    axes.grid(visible=False)
    axes.set_xlabel(x_label)
    return _svg(figure, name)


def _blank(name: str, size: tuple[float, float]) -> tuple[Figure, Axes]:
    """Axes in the same place of every plot of a size, so that plots above each other line up."""
    width, height = size
    figure = Figure(figsize=size)
    left, bottom, top = 0.44 / width, 0.41 / height, 1 - 0.37 / height
    axes = figure.add_axes((left, bottom, 1 - left - 0.07 / width, top - bottom))
    axes.yaxis.set_major_formatter("{x:g}")
    axes.locator_params(axis="y", nbins=4)
    axes.locator_params(axis="x", nbins=round(1.8 * width))
    figure.text(0.004, 1 - 0.2 / height, name, color=INK, fontsize=9.5)
    return figure, axes


def _svg(figure: Figure, name: str, kind: str = "plot") -> Markup:
    """The figure as part of a page: no header, no names that would collide with another plot's, page colours."""
    file = io.StringIO()
    with mpl.rc_context({"svg.hashsalt": name}):  # ids depend on the content alone
        figure.savefig(file, format="svg")
    svg = file.getvalue()
    svg = svg[svg.index("<svg") :]
    # Metadata has the date and web addresses.
    svg = re.sub(r"<(metadata|style)[ >].*?</\1>", "", svg, flags=re.DOTALL)
    svg = re.sub(r'<g id="[^"]*"', "<g", svg)
    svg = re.sub(r"font-family: [^;]*; ", "", svg)
    opening = rf'<svg class="{kind}" role="img" aria-label="{escape(name)}" \1>'
    svg = re.sub(r'<svg [^>]*?(viewBox="[^"]*")[^>]*>', opening, svg, count=1)
    for stand_in, variable in VARIABLES.items():
        svg = svg.replace(stand_in, variable)
    return Markup(re.sub(r"\s*\n\s*", "\n", svg))
