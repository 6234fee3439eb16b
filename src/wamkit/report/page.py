"""One HTML page that needs no other file: a headline, and sections below each other.

What a page shows is the list of sections it is given; a page about another kind of policy is another list.
It does not know what the sections hold.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path

from wamkit.io.files import replace_file
from wamkit.report.markup import Section, escape

# Videos play while they are in sight, unless the reader has asked for less motion; all still have their controls.
_PLAY_IN_SIGHT = """
if (!matchMedia("(prefers-reduced-motion: reduce)").matches) {
  const watch = new IntersectionObserver(
    entries => entries.forEach(e => e.isIntersecting ? e.target.play().catch(() => {}) : e.target.pause()),
    {threshold: 0.5});
  document.querySelectorAll("video").forEach(v => watch.observe(v));
}
"""


@dataclass(frozen=True)
class Header:
    """title: what the page is about. headline: the result in one sentence. subline: how it was measured."""

    title: str
    headline: str
    subline: str


def write_page(out: Path, header: Header, sections: Sequence[Section]) -> None:
    """Write the page to `out`, whole or not at all. The same arguments give the same bytes."""
    style = resources.files("wamkit.report").joinpath("page.css").read_text()
    links = "".join(f'<a href="#{section.anchor}">{escape(section.title)}</a>' for section in sections)
    bodies = "".join(
        f'<section id="{section.anchor}"><h2>{escape(section.title)}</h2>{section.body}</section>\n'
        for section in sections
    )
    html = f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{escape(header.title)}</title>
<link rel="icon" href="data:,">
<style>
{style}</style>
</head>
<body>
<main>
<header>
<h1>{escape(header.title)}</h1>
<p class="headline">{escape(header.headline)}</p>
<p class="subline">{escape(header.subline)}</p>
<nav>{links}</nav>
</header>
{bodies}</main>
<script>{_PLAY_IN_SIGHT}</script>
</body>
</html>
"""
    out.parent.mkdir(parents=True, exist_ok=True)
    replace_file(out, html.encode())
