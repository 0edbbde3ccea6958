"""Pages: whatever stands in a manifest comes out as text, and nothing else does."""

from __future__ import annotations

import json
from html.parser import HTMLParser

import pytest
from hypothesis import given
from hypothesis import strategies as st

from estiba.registry.page import render
from estiba.registry.page.details import Details, details_of
from estiba.registry.page.html import size
from estiba.registry.storage.ports import StoredManifest

DIGEST = "sha256:" + "a" * 64
ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=20,
)
HOSTILE = st.text(alphabet="<>&\"'/ a=\n\0é", max_size=30)


class Reader(HTMLParser):
    """What a browser makes of a page."""

    def __init__(self, page: bytes) -> None:
        super().__init__()
        self.tags: set[str] = set()
        self.attributes: set[str] = set()
        self.text = ""
        self.feed(page.decode())

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.attributes |= {name for name, _ in attrs}

    def handle_data(self, data: str) -> None:
        self.text += data


@given(HOSTILE, HOSTILE, HOSTILE)
def test_nothing_breaks_out(label: str, value: str, command: str) -> None:
    manifest = {
        "config": {"digest": value, "size": 5},
        "layers": [{"digest": label, "mediaType": value}],
        "manifests": [{"digest": command, "platform": {"os": label}}],
        "annotations": {label: value},
        "artifactType": command,
    }
    config = {"config": {"Labels": {value: label}}, "history": [{"created_by": command}]}
    stored = StoredManifest(DIGEST, value, json.dumps(manifest).encode())
    details = details_of(stored, json.dumps(config).encode())
    referrers = [{"digest": value, "artifactType": label, "size": 3}]
    for page in (
        render.image("a/b", details, referrers),
        render.repository("a/b", value, 7, [(label, details), (command, None)], value),
        render.home(["a/b"], label),
        render.problem(label, value),
    ):
        reader = Reader(page)
        assert reader.tags <= set(
            "html head meta title style body h1 h2 p a table tr th td code footer".split()
        )
        assert reader.attributes <= {
            "lang", "charset", "name", "content", "href", "class", "title",
        }  # fmt: skip


@given(ANYTHING, ANYTHING)
def test_details_of_anything(manifest: object, config: object) -> None:
    body = json.dumps(manifest).encode()
    details = details_of(StoredManifest(DIGEST, "x/y", body), json.dumps(config).encode())
    assert render.image("a", details, [])


@given(ANYTHING)
def test_details_of_parts_that_are_anything(part: object) -> None:
    content = dict.fromkeys(("config", "layers", "manifests", "annotations", "artifactType"), part)
    config = dict.fromkeys(("config", "history", "created", "os", "architecture"), part)
    stored = StoredManifest(DIGEST, "x/y", json.dumps(content).encode())
    assert isinstance(details_of(stored, json.dumps(config).encode()), Details)


def test_what_is_no_json() -> None:
    for data in (b"", b"\xff", b"[" * 100_000, b'"text"'):
        assert details_of(StoredManifest(DIGEST, "x/y", data), data).parts == []


@pytest.mark.parametrize(
    ("count", "text"),
    [(0, "0 B"), (999, "999 B"), (1000, "1.0 kB"), (999_960, "1.0 MB"), (5_000_000_000, "5.0 GB"),
     (10**19, "10000.0 PB")],
)  # fmt: skip
def test_sizes(count: int, text: str) -> None:
    assert size(count) == text
