"""HTML whose every value is escaped: of text and Markup, only Markup stays as it is."""

from __future__ import annotations

import base64
import hashlib
from html import escape

from estiba import __version__

STYLE = """\
:root{color-scheme:light dark}
body{font:15px/1.5 system-ui,sans-serif;max-width:70rem;margin:0 auto;padding:1rem}
h1{font-size:1.4rem;overflow-wrap:anywhere}h2{font-size:1.1rem;margin-top:2rem}
table{border-collapse:collapse;width:100%}
th,td{text-align:left;vertical-align:top;padding:.3rem .8rem .3rem 0}
tr{border-bottom:1px solid #8884}
td{overflow-wrap:anywhere}
.n{text-align:right;white-space:nowrap}
code{font:13px/1.5 ui-monospace,monospace}
footer{margin-top:3rem;font-size:13px;opacity:.7}
"""
_HASH = base64.b64encode(hashlib.sha256(STYLE.encode()).digest()).decode()
SECURITY_POLICY = (
    f"default-src 'none'; style-src 'sha256-{_HASH}'; base-uri 'none'; form-action 'none'; "
    "frame-ancestors 'none'"
)
_UNITS = ("kB", "MB", "GB", "TB", "PB")


class Markup(str):
    """HTML that stays as it is."""

    __slots__ = ()


Content = str | Markup


def tag(name: str, *content: Content, **attributes: str) -> Markup:
    """`class_` stands for class. Names are ours, values anybody's."""
    shown = "".join(
        f' {key.rstrip("_")}="{escape(value)}"' for key, value in attributes.items() if value
    )
    return Markup(f"<{name}{shown}>{join(*content)}</{name}>")


def join(*content: Content) -> Markup:
    return Markup("".join(c if isinstance(c, Markup) else escape(c) for c in content))


def link(path: str, *content: Content) -> Markup:
    """`path` is one of this server's: a name, a tag or a digest cannot hold anything else."""
    return tag("a", *content, href=path)


def table(head: tuple[str, ...], rows: list[tuple[Content, ...]], numbers: str = "") -> Markup:
    """Columns whose head is in `numbers` are set to the right."""
    kinds = ["n" if title in numbers.split() else "" for title in head]

    def row(name: str, cells: tuple[Content, ...]) -> Markup:
        return tag(
            "tr", *(tag(name, cell, class_=kind) for cell, kind in zip(cells, kinds, strict=True))
        )

    return tag("table", row("th", head), *(row("td", cells) for cells in rows))


def document(title: str, *content: Content) -> bytes:
    """A whole page."""
    head = join(
        Markup('<meta charset="utf-8">'),
        Markup('<meta name="viewport" content="width=device-width">'),
        tag("title", title),
        Markup(f"<style>{STYLE}</style>"),
    )
    footer = tag("footer", f"estiba registry {__version__}")
    body = tag("body", tag("h1", title), *content, footer)
    return f'<!doctype html><html lang="en"><head>{head}</head>{body}</html>\n'.encode()


def size(count: int) -> str:
    """Bytes as people read them, in powers of 1000 as Docker's client shows them."""
    if count < 1000:
        return f"{count} B"
    value = float(count)
    for unit in _UNITS:
        value /= 1000
        if value < 999.95 or unit == _UNITS[-1]:
            break
    return f"{value:.1f} {unit}"
