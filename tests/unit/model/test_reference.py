"""The reference grammar: Docker's defaults, what is refused, and that printing is parsing back."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from estiba.model.errors import InvalidArgument
from estiba.model.reference import MAX_NAME_LENGTH, Reference, parse_reference

SHA256 = "sha256:" + "a1" * 32
SHA512 = "sha512:" + "b2" * 64


@pytest.mark.parametrize(
    ("text", "normal", "familiar"),
    [
        ("busybox", "docker.io/library/busybox", "busybox"),
        ("busybox:1.36", "docker.io/library/busybox:1.36", "busybox:1.36"),
        ("library/busybox", "docker.io/library/busybox", "busybox"),
        ("me/app", "docker.io/me/app", "me/app"),
        ("me/deep/app", "docker.io/me/deep/app", "me/deep/app"),
        ("library/deep/app", "docker.io/library/deep/app", "library/deep/app"),
        ("docker.io/busybox", "docker.io/library/busybox", "busybox"),
        ("index.docker.io/me/app", "docker.io/me/app", "me/app"),
        ("localhost/app", "localhost/app", "localhost/app"),
        ("localhost:5000/app:v1", "localhost:5000/app:v1", "localhost:5000/app:v1"),
        ("host:5000/app", "host:5000/app", "host:5000/app"),
        ("Registry/app", "Registry/app", "Registry/app"),
        ("reg.example.com/a/b/c", "reg.example.com/a/b/c", "reg.example.com/a/b/c"),
        ("[2001:db8::1]:5000/app:v1", "[2001:db8::1]:5000/app:v1", "[2001:db8::1]:5000/app:v1"),
        ("[::1]/app", "[::1]/app", "[::1]/app"),
        (f"busybox@{SHA256}", f"docker.io/library/busybox@{SHA256}", f"busybox@{SHA256}"),
        (f"a/b:t@{SHA512}", f"docker.io/a/b:t@{SHA512}", f"a/b:t@{SHA512}"),
        ("a__b/c.d-e---f", "docker.io/a__b/c.d-e---f", "a__b/c.d-e---f"),
        ("5000:latest", "docker.io/library/5000:latest", "5000:latest"),
    ],
)
def test_normal_and_familiar_forms(text: str, normal: str, familiar: str) -> None:
    reference = parse_reference(text)
    assert str(reference) == normal
    assert reference.familiar == familiar


@pytest.mark.parametrize(
    ("text", "part"),
    [
        ("", "bad repository name"),
        ("Busybox", "must be lowercase"),
        ("me/App", "must be lowercase"),
        ("a..b", "bad repository name"),
        ("a___b", "bad repository name"),
        ("-a", "bad repository name"),
        ("a/", "bad repository name"),
        ("/a", "bad repository name"),
        ("a//b", "bad repository name"),
        ("a b", "bad repository name"),
        ("a\n", "bad repository name"),
        ("a:", "bad tag"),
        ("a:-tag", "bad tag"),
        ("a:" + "t" * 129, "bad tag"),
        ("a:t\n", "bad tag"),
        ("a@", "invalid digest"),
        ("a@sha256:123", "invalid digest"),
        (f"a@{SHA256.upper()}", "invalid digest"),
        (f"a@{SHA256}@{SHA256}", "invalid digest"),
        ("-host.io/a", "bad registry host"),
        ("host..io/a", "bad registry host"),
        ("host.io:port/a", "bad registry host"),
        ("a" * 1025, "longer than 1024"),
        ("a" * 300, "over 255"),
    ],
)
def test_refused(text: str, part: str) -> None:
    with pytest.raises(InvalidArgument, match=part):
        parse_reference(text)


def test_tagged_fills_in_latest_only_where_nothing_is_given() -> None:
    assert str(parse_reference("a").tagged) == "docker.io/library/a:latest"
    assert parse_reference("a:v1").tagged.tag == "v1"
    pinned = parse_reference(f"a@{SHA256}")
    assert pinned.tagged is pinned


_alnum = st.text("abcdefghijklmnopqrstuvwxyz0123456789", min_size=1, max_size=6)
_separators = st.sampled_from([".", "_", "__", "-", "--", "-----"])


@st.composite
def _components(draw: st.DrawFn) -> str:
    text = draw(_alnum)
    for _ in range(draw(st.integers(0, 2))):
        text += draw(_separators) + draw(_alnum)
    return text


_labels = st.from_regex(r"[a-zA-Z0-9]([a-zA-Z0-9-]{0,5}[a-zA-Z0-9])?", fullmatch=True)
_ports = st.integers(0, 65535).map(lambda port: f":{port}") | st.just("")
_hosts = (
    st.lists(_labels, min_size=2, max_size=3).map(".".join)
    | st.just("localhost")
    | st.from_regex(r"\[[a-f0-9]{0,4}:[a-f0-9:]{1,12}\]", fullmatch=True)
)
_domains = st.builds(lambda host, port: host + port, _hosts, _ports)
_paths = st.lists(_components(), min_size=1, max_size=4).map("/".join)
_tags = st.none() | st.from_regex(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,20}", fullmatch=True)
_digests = st.none() | st.from_regex(r"sha256:[0-9a-f]{64}", fullmatch=True)


@given(_domains, _paths, _tags, _digests)
def test_every_reference_of_the_grammar_is_read_as_its_parts(
    domain: str, path: str, tag: str | None, digest: str | None
) -> None:
    text = f"{domain}/{path}" + (f":{tag}" if tag else "") + (f"@{digest}" if digest else "")
    reference = parse_reference(text)
    assert (reference.tag, reference.digest) == (tag, digest)
    assert reference.path == path or reference.domain == "docker.io"
    assert parse_reference(str(reference)) == reference
    assert parse_reference(reference.familiar) == reference


@given(st.text(max_size=40) | st.text("aA0.:/@-_[]", max_size=12))
def test_any_text_is_read_or_refused_and_what_is_read_prints_back(text: str) -> None:
    try:
        reference = parse_reference(text)
    except InvalidArgument:
        return
    assert isinstance(reference, Reference)
    assert len(reference.repository) <= MAX_NAME_LENGTH
    assert parse_reference(str(reference)) == reference
    assert parse_reference(reference.familiar) == reference
