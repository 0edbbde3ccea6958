"""A graph of networks as a tree for terminals, in the DOT language, and as an SVG. Pure.

Names come from users: each form has its own escaping.
"""

from __future__ import annotations

from collections.abc import Iterator
from html import escape

from estiba.network.policy.graph import HOST, OUTSIDE, Graph, Group, Node

FORMATS = ("text", "dot", "svg")
_ROW, _LINE, _PAD, _GAP = 22, 16, 14, 24
_LEFT, _BOX, _ARCS, _ROOM = 150, 420, 430, 110
_COLOURS = ("#2563eb", "#b45309", "#047857", "#7c3aed", "#be123c", "#0e7490")


def to_text(graph: Graph) -> str:
    lines: list[str] = []
    for group in graph.groups:
        traits = ", ".join((group.driver, *group.traits))
        lines.append(f"{_plain(group.name)} ({traits})")
        for number, node in enumerate(group.nodes):
            last = number == len(group.nodes) - 1
            lines.append(f"{'└─' if last else '├─'} {_plain(node.name)} {' '.join(node.addresses)}")
            told = list(_sentences(group, node))
            for index, sentence in enumerate(told):
                branch = "└─" if index == len(told) - 1 else "├─"
                lines.append(f"{'  ' if last else '│ '} {branch} {_plain(sentence)}")
    return "\n".join(lines or ["no container is on a network"]) + "\n"


def _sentences(group: Group, node: Node) -> Iterator[str]:
    if group.meshed and len(group.nodes) > 1:
        yield f"→ all of {group.name}: everything"
    for edge in node.reaches:
        yield f"→ {edge.peer}: {edge.label}"
    if node.by_host is not None:
        yield f"← {HOST}: {node.by_host.label}"
    for port in node.published:
        yield f"← {OUTSIDE}: {port.text}"


def _plain(text: str) -> str:
    """Nothing that would move a terminal's cursor."""
    return "".join(char if char.isprintable() else "?" for char in text)


# -- DOT ---------------------------------------------------------------------------------------


def to_dot(graph: Graph) -> str:
    lines = [
        "digraph networks {",
        "  rankdir=LR; node [shape=box];",
        f"  {_quoted(OUTSIDE)}; {_quoted(HOST)};",
    ]
    for number, group in enumerate(graph.groups):
        lines.append(f"  subgraph cluster_{number} {{")
        lines.append(f"    label={_quoted(' '.join((group.name, *group.traits)))};")
        for node in group.nodes:
            label = f"{node.name}\n{' '.join(node.addresses)}"
            lines.append(f"    {_id(group, node.name)} [label={_quoted(label)}];")
        lines.append("  }")
        lines += [f"  {line}" for line in _dot_edges(group)]
    return "\n".join([*lines, "}"]) + "\n"


def _dot_edges(group: Group) -> Iterator[str]:
    for position, node in enumerate(group.nodes):
        here = _id(group, node.name)
        if group.meshed:
            for other in group.nodes[position + 1 :]:
                yield f"{here} -> {_id(group, other.name)} [dir=both];"
        for edge in node.reaches:
            there = _quoted(OUTSIDE) if edge.peer == OUTSIDE else _id(group, edge.peer)
            yield f"{here} -> {there} [label={_quoted(edge.label)}];"
        if node.by_host is not None:
            yield f"{_quoted(HOST)} -> {here} [label={_quoted(node.by_host.label)}];"
        for port in node.published:
            if port.is_open:
                yield f"{_quoted(OUTSIDE)} -> {here} [label={_quoted(port.text)}, style=bold];"


def _id(group: Group, name: str) -> str:
    return _quoted(f"{group.name}/{name}")


def _quoted(text: str) -> str:
    escaped = _lines(text).replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
    return f'"{escaped}"'


def _lines(text: str) -> str:
    return "".join(char if char.isprintable() or char == "\n" else "?" for char in text)


# -- SVG ---------------------------------------------------------------------------------------


def to_svg(graph: Graph) -> str:
    """Networks one below the other; the outside on the left, arcs between containers right."""
    body: list[str] = []
    top = _GAP
    for group in graph.groups:
        body += _svg_group(group, top)
        top += _height(group) + _GAP
    height = max(top, 80)
    width = _LEFT + _BOX + _ARCS
    head = (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" '
        f'viewBox="0 0 {width} {height}" font-family="sans-serif" font-size="12">'
    )
    arrow = (
        '<defs><marker id="arrow" markerWidth="9" markerHeight="8" refX="8" refY="4" '
        'orient="auto"><path d="M0,0 L9,4 L0,8 z" fill="context-stroke"/></marker></defs>'
    )
    outside = (
        f'<rect x="10" y="{_GAP}" width="{_LEFT - 60}" height="{height - 2 * _GAP}" rx="6" '
        'fill="#f1f5f9" stroke="#64748b"/>'
        f'<text x="{10 + (_LEFT - 60) / 2}" y="{_GAP + 20}" text-anchor="middle">{OUTSIDE}</text>'
    )
    background = f'<rect width="{width}" height="{height}" fill="white"/>'
    return "\n".join([head, arrow, background, outside, *body, "</svg>"]) + "\n"


def _height(group: Group) -> int:
    """Of its containers, or of the list of who reaches whom beside them."""
    arcs = sum(edge.peer != OUTSIDE for node in group.nodes for edge in node.reaches)
    inside = 2 * _PAD + _ROW + sum(_node_height(node) for node in group.nodes)
    return max(inside, 2 * _PAD + _LINE * arcs)


def _node_height(node: Node) -> int:
    told = len(node.published) + sum(edge.peer == OUTSIDE for edge in node.reaches)
    told += node.by_host is not None
    return _ROW + _LINE * max(1, told) + 10


def _svg_group(group: Group, top: int) -> Iterator[str]:
    title = " · ".join((group.name, *group.traits))
    yield (
        f'<rect x="{_LEFT}" y="{top}" width="{_BOX}" height="{_height(group)}" rx="8" '
        'fill="#f8fafc" stroke="#334155"/>'
    )
    yield _text(_LEFT + _PAD, top + _PAD + 6, _cut(title, 56), weight="bold")
    if group.meshed and len(group.nodes) > 1:
        yield _text(_LEFT + _BOX + 10, top + _PAD + 6, "all reach each other")
    at = top + _PAD + _ROW
    middles: dict[str, int] = {}
    for node in group.nodes:
        middles[node.name] = at + _node_height(node) // 2 - 5
        yield from _svg_node(node, at)
        at += _node_height(node)
    number = 0
    for node in group.nodes:
        for edge in node.reaches:
            if edge.peer in middles:
                colour = _COLOURS[number % len(_COLOURS)]
                yield _svg_arc(middles[node.name], middles[edge.peer], number, colour)
                words = _cut(f"{node.name} → {edge.peer}: {edge.label}", 46)
                line = top + _PAD + 6 + _LINE * number
                yield _text(_LEFT + _BOX + _ROOM, line, words, colour=colour)
                number += 1


def _svg_node(node: Node, top: int) -> Iterator[str]:
    left, height = _LEFT + _PAD, _node_height(node) - 10
    yield (
        f'<rect x="{left}" y="{top}" width="{_BOX - 2 * _PAD}" height="{height}" rx="5" '
        'fill="white" stroke="#94a3b8"/>'
    )
    yield _text(left + 8, top + 15, _cut(f"{node.name}  {' '.join(node.addresses)}", 58))
    line = top + 15 + _LINE
    edge_of_outside = _LEFT - 50
    for port in node.published:
        if port.is_open:
            yield _arrow(edge_of_outside, line - 4, left, line - 4, _COLOURS[1])
        yield _text(left + 8, line, _cut(f"← {port.text}", 58))
        line += _LINE
    if node.by_host is not None:
        yield _text(left + 8, line, _cut(f"← {HOST}: {node.by_host.label}", 58))
        line += _LINE
    for edge in node.reaches:
        if edge.peer == OUTSIDE:
            yield _arrow(left, line - 4, edge_of_outside, line - 4, _COLOURS[2])
            yield _text(left + 8, line, _cut(f"→ {OUTSIDE}: {edge.label}", 58))


def _svg_arc(start: int, end: int, number: int, colour: str) -> str:
    left = _LEFT + _BOX - _PAD
    reach = left + 40 + 22 * (number % 5)
    start, end = start - 3, end + 3
    return (
        f'<path d="M{left},{start} C{reach},{start} {reach},{end} {left + 2},{end}" fill="none" '
        f'stroke="{colour}" marker-end="url(#arrow)"/>'
    )


def _arrow(x1: int, y1: int, x2: int, y2: int, colour: str) -> str:
    return (
        f'<line x1="{x1}" y1="{y1}" x2="{x2}" y2="{y2}" stroke="{colour}" '
        'marker-end="url(#arrow)"/>'
    )


def _text(x: int, y: int, text: str, *, weight: str = "normal", colour: str = "#0f172a") -> str:
    safe = escape(_plain(text), quote=True)
    return f'<text x="{x}" y="{y}" font-weight="{weight}" fill="{colour}">{safe}</text>'


def _cut(text: str, length: int) -> str:
    return text if len(text) <= length else f"{text[: length - 1]}…"
