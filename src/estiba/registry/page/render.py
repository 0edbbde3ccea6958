"""Pages out of what they show."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any
from urllib.parse import quote

from estiba.registry.page.details import Details, Part
from estiba.registry.page.html import Content, Markup, document, join, link, size, table, tag

_SHOWN_DIGITS = 19
HOME = "/"
PREFIX = "/r/"


def repository_path(name: str) -> str:
    return PREFIX + quote(name)


def image_path(name: str, digest: str) -> str:
    return f"{PREFIX}{quote(name)}@{quote(digest)}"


def home(names: list[str], after: str | None) -> bytes:
    """`after` is the name that the next page begins behind."""
    rows: list[tuple[Content, ...]] = [(link(repository_path(name), name),) for name in names]
    shown = table(("repository",), rows) if names else tag("p", "Nothing was pushed yet.")
    return document("Repositories", shown, _more(HOME, after))


def repository(
    name: str, host: str, bytes_held: int, tags: list[tuple[str, Details | None]], after: str | None
) -> bytes:
    """`tags` whose details are None could not be read."""
    rows: list[tuple[Content, ...]] = []
    for label, image in tags:
        if image is None:
            rows.append((label, "", "", "", ""))
            continue
        shown = link(image_path(name, image.digest), label)
        rows.append((shown, image.platform, image.created, size(image.size), _digest(image.digest)))
    return document(
        name,
        tag("p", _home(), f" · {size(bytes_held)} in all"),
        tag("p", tag("code", f"docker pull {host}/{name}")),
        table(("tag", "platforms", "created", "size", "digest"), rows, "size"),
        _more(repository_path(name), after),
    )


def image(name: str, shown: Details, referrers: list[Mapping[str, Any]]) -> bytes:
    facts = [
        ("digest", tag("code", shown.digest)),
        ("media type", shown.media_type),
        ("artifact type", shown.artifact_type),
        ("platform", shown.platform),
        ("created", shown.created),
        ("size", size(shown.size)),
        ("config", tag("code", shown.config) if shown.config else ""),
    ]
    known: list[tuple[Content, ...]] = [(title, value) for title, value in facts if value]
    refs: list[tuple[Content, ...]] = [
        (
            _image_link(name, str(entry.get("digest", ""))),
            str(entry.get("artifactType", "")),
            size(entry["size"]) if isinstance(entry.get("size"), int) else "",
        )
        for entry in referrers
    ]
    return document(
        f"{name}@{shown.digest[:_SHOWN_DIGITS]}",
        tag("p", _home(), " · ", link(repository_path(name), name)),
        table(("", ""), known),
        _section("Images", ("image", "platform", "media type", "size"), _images(name, shown)),
        _section("Layers", ("#", "layer", "media type", "size"), _layers(shown.parts)),
        _section("History", ("created", "command", "comment", "layer"), _history(shown)),
        _section("Labels", ("name", "value"), list(shown.labels.items())),
        _section("Annotations", ("name", "value"), list(shown.annotations.items())),
        _section("Referrers", ("manifest", "artifact type", "size"), refs),
    )


def problem(title: str, message: str) -> bytes:
    return document(title, tag("p", message), tag("p", _home()))


def _images(name: str, shown: Details) -> list[tuple[Content, ...]]:
    return [
        (_image_link(name, part.digest), part.platform, part.media_type, size(part.size))
        for part in shown.images
    ]


def _layers(parts: list[Part]) -> list[tuple[Content, ...]]:
    return [
        (str(number), _digest(part.digest), part.media_type, size(part.size))
        for number, part in enumerate(parts, 1)
    ]


def _history(shown: Details) -> list[tuple[Content, ...]]:
    return [
        (step.created, tag("code", step.command), step.comment, "no" if step.is_empty else "yes")
        for step in shown.history
    ]


def _section(title: str, head: tuple[str, ...], rows: list[tuple[Content, ...]] | Any) -> Markup:
    return join(tag("h2", title), table(head, rows, "size #")) if rows else Markup("")


def _digest(digest: str) -> Markup:
    return tag("code", digest[:_SHOWN_DIGITS], title=digest)


def _image_link(name: str, digest: str) -> Markup:
    return link(image_path(name, digest), _digest(digest))


def _home() -> Markup:
    return link(HOME, "All repositories")


def _more(path: str, after: str | None) -> Markup:
    if after is None:
        return Markup("")
    return tag("p", link(f"{path}?last={quote(after, safe='')}", "More"))
