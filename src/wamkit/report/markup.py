"""HTML as strings: escaping, data URIs and the few shapes that sections of a page are made of.

It does not know what the sections say. Everything here returns markup that needs no other file.
"""

from __future__ import annotations

import base64
import io
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from html import escape

import numpy as np
from PIL import Image

__all__ = [
    "Section",
    "block",
    "escape",
    "figure",
    "figures",
    "paragraphs",
    "photograph",
    "picture",
    "table",
    "video",
]


@dataclass(frozen=True)
class Section:
    """One part of a page. anchor: its id, a word. title: plain text. body: markup."""

    anchor: str
    title: str
    body: str


def block(tag: str, kind: str, content: str) -> str:
    """<tag class=kind>content</tag>; the content is markup."""
    return f'<{tag} class="{kind}">{content}</{tag}>'


def paragraphs(*texts: str) -> str:
    """Plain texts, one paragraph each."""
    return "".join(f"<p>{escape(text)}</p>" for text in texts)


def picture(pixels: np.ndarray, alt: str) -> str:
    """uint8 RGB [h, w, 3] as an <img>, stored exactly (PNG) at its own size; the page scales it."""
    return f'<img alt="{escape(alt)}" src="{_uri("image/png", _encode(pixels, "PNG"))}">'


def photograph(pixels: np.ndarray, alt: str) -> str:
    """uint8 RGB [h, w, 3] as an <img>, compressed (JPEG)."""
    return f'<img alt="{escape(alt)}" src="{_uri("image/jpeg", _encode(pixels, "JPEG", quality=88))}">'


def video(mp4: bytes, poster: np.ndarray, label: str) -> str:
    """An mp4 as a <video> that shows the uint8 RGB poster [h, w, 3] until it plays."""
    height, width = poster.shape[:2]
    still = _uri("image/jpeg", _encode(poster, "JPEG", quality=85))
    return (
        f'<video controls muted loop playsinline preload="metadata" width="{width}" height="{height}" '
        f'aria-label="{escape(label)}" poster="{still}" src="{_uri("video/mp4", mp4)}"></video>'
    )


def figure(content: str, caption: str) -> str:
    """Content (markup) with a caption (markup) below."""
    return f"<figure>{content}<figcaption>{caption}</figcaption></figure>"


def figures(kind: str, items: Iterable[str]) -> str:
    """Figures side by side, as many in a row as fit."""
    return block("div", f"figures {kind}", "".join(items))


def table(heads: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table; cells are markup. On a narrow screen each row becomes a block of "head: cell" lines."""
    head = "".join(f'<th scope="col">{escape(name)}</th>' for name in heads)
    body = ""
    for first, *others in rows:
        cells = "".join(_cell(name, cell) for name, cell in zip(heads[1:], others, strict=True))
        body += f'<tr><th scope="row">{first}</th>{cells}</tr>'
    return f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"


def _cell(head: str, content: str) -> str:
    if not content:
        return '<td class="none"></td>'
    return f'<td data-head="{escape(head)}"><div>{content}</div></td>'


def _encode(pixels: np.ndarray, format: str, **options: int) -> bytes:
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, format, **options)
    return file.getvalue()


def _uri(kind: str, data: bytes) -> str:
    return f"data:{kind};base64,{base64.b64encode(data).decode()}"
