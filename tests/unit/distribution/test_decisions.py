"""What needs no network: challenges, proxies, settings, credentials, URLs."""

from __future__ import annotations

import base64
import json
import subprocess
import sys
from pathlib import Path

import pytest

import estiba
from estiba.distribution.cancel import CancelToken
from estiba.distribution.challenge import parse_challenges
from estiba.distribution.credentials import (
    ANONYMOUS,
    credentials_from,
    decode_auth_header,
    decode_config_header,
)
from estiba.distribution.proxies import Proxies, Proxy
from estiba.distribution.settings import RegistrySettings
from estiba.distribution.urls import Origin, follow, parse_url
from estiba.model.errors import Cancelled, InvalidArgument, Unavailable
from estiba.model.reference import parse_reference


@pytest.mark.parametrize(
    ("headers", "told"),
    [
        (['Basic realm="x"'], [("basic", {"realm": "x"})]),
        (
            ['Bearer realm="https://a/t?x=1",service="s, t",scope="r:a:pull,push"'],
            [("bearer", {"realm": "https://a/t?x=1", "service": "s, t", "scope": "r:a:pull,push"})],
        ),
        (
            ["Bearer realm=a , SERVICE = b,, Basic realm=c"],
            [("bearer", {"realm": "a", "service": "b"}), ("basic", {"realm": "c"})],
        ),
        (["Negotiate", "Basic realm=c"], [("negotiate", {}), ("basic", {"realm": "c"})]),
        (["Negotiate, Basic realm=c"], [("negotiate", {}), ("basic", {"realm": "c"})]),
        ([r'Basic realm="a\"b\\c"'], [("basic", {"realm": r"a\"b\c".replace('\\"', '"')})]),
        (['Basic realm="first",realm="second"'], [("basic", {"realm": "first"})]),
        (['Basic realm="open'], [("basic", {"realm": ""})]),
        (["", ",,, ,", "\x00", "()"], []),
        (["Basic realm=" + "x" * 10_000], []),
    ],
)
def test_challenges(headers: list[str], told: list[tuple[str, dict[str, str]]]) -> None:
    assert [(c.scheme, c.parameters) for c in parse_challenges(headers)] == told


@pytest.mark.parametrize(
    ("bypass", "host", "direct"),
    [
        ("", "r.example", False),
        ("", "localhost", True),
        ("", "127.0.0.9", True),
        ("", "::1", True),
        ("*", "r.example", True),
        ("example", "r.example", True),
        (".example", "r.example", True),
        (".r.example", "r.example", False),
        ("r.example", "r.example", True),
        ("r.example", "other.example", False),
        ("r.example", "xr.example", False),
        ("R.Example:443", "r.example", True),
        ("r.example:444", "r.example", False),
        ("a, 10.0.0.0/8 ,b", "10.1.2.3", True),
        ("10.0.0.0/8", "11.1.2.3", False),
        ("10.1.2.3", "10.1.2.3", True),
        ("fd00::/8", "fd00::5", True),
        ("[fd00::5]:443", "fd00::5", True),
        ("rubbish/x,", "r.example", False),
    ],
)
def test_which_way(bypass: str, host: str, direct: bool) -> None:
    proxies = Proxies(https="http://proxy.example:3128", bypass=bypass)
    wanted = None if direct else Proxy("proxy.example", 3128)
    assert proxies.choose("https", host, 443) == wanted
    assert proxies.choose("http", host, 80) is None


def test_proxies_of_the_environment() -> None:
    made = Proxies.from_environment(
        {"http_proxy": "a:1", "HTTPS_PROXY": "http://b", "https_proxy": "c", "NO_PROXY": "d"}
    )
    assert made == Proxies("a:1", "http://b", "d")
    assert made.choose("http", "r.example", 80) == Proxy("a", 1)
    for bad in ("socks5://hidden@h:1", "https://h", "http://", "http://h:hidden"):
        with pytest.raises(InvalidArgument) as caught:
            Proxies(http=bad).choose("http", "r.example", 80)
        assert "hidden" not in str(caught.value)


@pytest.mark.parametrize(
    ("host", "insecure"),
    [
        ("r.example", False),
        ("localhost", True),
        ("localhost:5000", True),
        ("127.0.0.1:5000", True),
        ("[::1]:5000", True),
        ("plain.example", True),
        ("plain.example:5000", True),
        ("port.example:5000", True),
        ("port.example:5001", False),
        ("port.example", False),
        ("10.2.3.4:80", True),
        ("11.2.3.4", False),
        ("xlocalhost", False),
    ],
)
def test_insecure_registries(host: str, insecure: bool) -> None:
    listed = ("plain.example", "port.example:5000", "10.0.0.0/8", "rubbish/99")
    assert RegistrySettings(insecure=listed).is_insecure(host) is insecure


def test_sites() -> None:
    settings = RegistrySettings(
        mirrors={"docker.io": ("https://m.example/",), "*": ("http://n.example:5000/a/b",)}
    )
    sites = settings.sites("docker.io")
    assert [(s.scheme, s.host, s.prefix, s.is_mirror) for s in sites] == [
        ("https", "m.example", "", True),
        ("http", "n.example:5000", "a/b", True),
        ("https", "registry-1.docker.io", "", False),
    ]
    assert [s.host for s in settings.sites("localhost:5000")] == [
        "n.example:5000",
        "localhost:5000",
    ]
    assert settings.site("localhost:5000").scheme == ""


@pytest.mark.parametrize(
    "url",
    [
        "m.example",
        "ftp://m.example",
        "http://",
        "https://m/?q",
        "http://u:p@m/",
        "http://m/A",
    ],
)
def test_what_is_no_mirror(url: str) -> None:
    with pytest.raises(InvalidArgument, match="invalid mirror"):
        RegistrySettings().mirror(url)


@pytest.mark.parametrize(
    ("text", "origin", "target"),
    [
        ("https://R.example", Origin("https", "r.example", 443), "/"),
        ("http://r:5000/a?b=c", Origin("http", "r", 5000), "/a?b=c"),
        ("https://[::1]:5000/#x", Origin("https", "::1", 5000), "/"),
    ],
)
def test_urls(text: str, origin: Origin, target: str) -> None:
    made = parse_url(text)
    assert (made.origin, made.target) == (origin, target)


def test_urls_as_they_are_shown_and_sent() -> None:
    assert str(parse_url("https://[::1]:443/a?signature=secret")) == "https://[::1]/a"
    assert str(parse_url("http://r.example:443/")) == "http://r.example:443/"
    base = parse_url("https://r.example/v2/x?n=1")
    assert follow(base, "/y?z") == parse_url("https://r.example/y?z")
    assert follow(base, "?n=2") == parse_url("https://r.example/v2/x?n=2")
    assert follow(base, "//s.example/y") == parse_url("https://s.example/y")


@pytest.mark.parametrize(
    "text", ["", "x", "/x", "file:///x", "http://", "http://a:0/", "http://a:x/", "http://a\r\nb/",
             "http://ä/", "http://a b/", "http://u@a/", "http://a%0d/"],
)  # fmt: skip
def test_bad_urls(text: str) -> None:
    with pytest.raises(Unavailable):
        parse_url(text)


def header_of(value: object) -> str:
    return base64.urlsafe_b64encode(json.dumps(value).encode()).decode()


def test_credentials_of_a_header() -> None:
    assert decode_auth_header("") == ANONYMOUS
    assert decode_auth_header(header_of({})) == ANONYMOUS
    made = decode_auth_header(header_of({"username": "ann", "password": "s>?crét"}))
    assert (made.username, made.password) == ("ann", "s>?crét")
    assert decode_auth_header(header_of({"username": "a", "password": "b"}).rstrip("=")).password
    assert decode_auth_header(header_of({"identitytoken": "t"})).identity_token == "t"
    assert decode_auth_header(header_of({"registrytoken": "t"})).registry_token == "t"
    pair = base64.b64encode(b"ann:a:b").decode()
    made = credentials_from({"auth": pair, "serveraddress": "r"})
    assert (made.username, made.password) == ("ann", "a:b")


@pytest.mark.parametrize(
    "text", ["x", "{}", header_of([]), header_of("x"), header_of({"username": 5}), "A" * 70_000]
)
def test_bad_headers(text: str) -> None:
    with pytest.raises(InvalidArgument):
        decode_auth_header(text)


def test_a_token_ends_what_is_attached() -> None:
    token = CancelToken()
    ended: list[str] = []
    with token.ending_with(lambda: ended.append("left")):
        pass
    token.attach(lambda: ended.append("here"))
    token.cancel()
    token.cancel()
    assert set(ended) == {"here"}
    for late in (token.check, lambda: token.wait(10), lambda: token.attach(lambda: None)):
        with pytest.raises(Cancelled):
            late()


def test_the_client_can_do_without_other_libraries() -> None:
    code = """
import sys
sys.path.insert(0, sys.argv[1])
import estiba.distribution.login, estiba.distribution.repository, estiba.distribution.search
files = [getattr(module, "__file__", None) or "" for module in sys.modules.values()]
print(*(file for file in files if "site-packages" in file))
"""
    source = str(Path(estiba.__file__).parent.parent)
    done = subprocess.run(
        [sys.executable, "-IS", "-c", code, source], capture_output=True, check=True
    )
    assert done.stdout.strip() == b""


def test_credentials_of_several_registries() -> None:
    header = header_of(
        {
            "https://index.docker.io/v1/": {"username": "hub", "password": "1"},
            "registry.example:5000": {"username": "own", "password": "2"},
            "https://other.example/v2/": {"identitytoken": "t"},
            "damaged": 7,
        }
    )
    known = decode_config_header(header)
    assert known(parse_reference("busybox")).username == "hub"
    assert known(parse_reference("registry.example:5000/a/b:1")).username == "own"
    assert known(parse_reference("other.example/a")).identity_token == "t"
    assert known(parse_reference("elsewhere.example/a")) == ANONYMOUS
    assert decode_config_header("")(parse_reference("busybox")) == ANONYMOUS


@pytest.mark.parametrize("text", ["%", "W10=", "bnVsbA==", "e30" * 30_000])
def test_bad_credentials_of_several_registries(text: str) -> None:
    with pytest.raises(InvalidArgument, match=r"X-Registry-Config|base64"):
        decode_config_header(text)
