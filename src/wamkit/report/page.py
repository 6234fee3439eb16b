"""One HTML page that needs no other file, rendered by the jinja2 templates beside this module.

A page is a header and a list of sections; a section is values and the template that shows them. Text is escaped,
whatever it says. It does not know what the sections hold.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, SupportsFloat

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from wamkit.io.differences import flatten
from wamkit.io.files import replace_file
from wamkit.report.images import jpeg, mp4, pixels, png, png_or_jpeg, psnr


@dataclass(frozen=True)
class Header:
    """title: what the page is about. headline: the result in one sentence. subline: how it was measured."""

    title: str
    headline: str
    subline: str


@dataclass(frozen=True)
class Section:
    """One part of a page. anchor: its id, a word. template: the file <template>.html.j2, which sees `shown`."""

    anchor: str
    title: str
    template: str
    shown: object

    @property
    def body(self) -> Markup:
        """Everything below the title."""
        return Markup(templates().get_template(f"{self.template}.html.j2").render(shown=self.shown))


def write_page(out: Path, header: Header, sections: Sequence[Section]) -> None:
    """Write the page to `out`, whole or not at all. The same arguments give the same bytes."""
    html = templates().get_template("page.html.j2").render(header=header, sections=sections)
    out.parent.mkdir(parents=True, exist_ok=True)
    replace_file(out, html.encode())


@cache
def templates() -> Environment:
    """The templates with the filters below. A name that does not exist is an error, not an empty string."""
    environment = Environment(
        loader=PackageLoader("wamkit.report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    drawn = (pixels, psnr, png, jpeg, png_or_jpeg, mp4)
    written = (percent, points, duration, significant, grouped, flatten, readable)
    environment.filters |= {filter.__name__: filter for filter in (*drawn, *written)}
    return environment


def percent(share: float) -> str:
    """0.956 -> "95.6 %"; whole numbers without decimals."""
    return f"{100 * share:.1f} %".replace(".0 %", " %")


def points(difference: float) -> str:
    """A difference of two rates in percentage points, signed."""
    return f"{100 * difference:+.1f}".replace("-", "−").replace("+0.0", "0.0")


def duration(seconds: float) -> str:
    """75 -> "1 min 15 s"."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours} h {minutes} min"
    return f"{minutes} min {rest} s" if minutes else f"{rest} s"


def significant(value: SupportsFloat, digits: int = 4) -> str:
    """Rounded to so many significant digits."""
    return f"{float(value):.{digits}g}"


def grouped(count: int) -> str:
    """1986819434 -> "1 986 819 434"."""
    return f"{count:,}".replace(",", " ")


def readable(value: Any) -> str:
    """As JSON says it, without quotes and brackets; whole numbers from 10 000 on in groups of three."""
    if isinstance(value, (list, tuple)):
        return ", ".join(map(readable, value))
    if isinstance(value, bool):
        return "yes" if value else "no"
    return grouped(value) if isinstance(value, int) and abs(value) >= 10_000 else str(value)
