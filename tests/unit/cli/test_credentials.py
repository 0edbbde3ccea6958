"""Credentials: the file that the docker client shares, and helper programs."""

from __future__ import annotations

import base64
import json
import subprocess
import sys
from pathlib import Path

import pytest

from estiba.client import credentials, credhelper
from estiba.client.errors import ClientError
from estiba.client.host import forget_config

_HELPER = """\
#!/bin/sh
# Keeps one credential in a file, and notes what it was called with.
here=$(dirname "$0")
echo "$*" >>"$here/calls"
case $1 in
store) cat >"$here/kept" ;;
get) cat >/dev/null; [ -e "$here/kept" ] && exec cat "$here/kept"
     echo "credentials not found in native keychain"; exit 1 ;;
erase) cat >/dev/null; rm -f "$here/kept" ;;
list) cat >/dev/null; echo '{"kept.example": "joe"}' ;;
esac
"""
_JOE = {"username": "joe", "password": "s3cret", "serveraddress": "example.com:5000"}


@pytest.fixture(autouse=True)
def config(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where config.json stands; helpers named `test`, `broken` and `slow` are on PATH."""
    monkeypatch.setenv("ESTIBA_CONFIG", str(tmp_path / "config"))
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    for name, text in (
        ("test", _HELPER),
        ("broken", "#!/bin/sh\necho no key store; exit 3\n"),
        ("babbling", "#!/bin/sh\necho password=s3cret\n"),
        ("slow", "#!/bin/sh\nexec sleep 1000\n"),
    ):
        program = tmp_path / f"docker-credential-{name}"
        program.write_text(text)
        program.chmod(0o755)
    forget_config()
    return tmp_path / "config" / "config.json"


def write(config: Path, **content: object) -> None:
    config.parent.mkdir(exist_ok=True)
    config.write_text(json.dumps(content))
    forget_config()


def decoded(registry: str) -> object:
    text = credentials.header(registry)["X-Registry-Auth"]
    return json.loads(base64.urlsafe_b64decode(text))


def test_the_file_is_dockers_and_for_its_owner_alone(config: Path) -> None:
    assert credentials.keep(_JOE)
    assert config.stat().st_mode & 0o777 == 0o600
    assert json.loads(config.read_text()) == {
        "auths": {"example.com:5000": {"auth": base64.b64encode(b"joe:s3cret").decode()}}
    }
    assert credentials.find("example.com:5000") == _JOE
    assert not credentials.keep(_JOE)  # there already: nothing to warn of
    credentials.forget("example.com:5000")
    assert json.loads(config.read_text()) == {"auths": {}}
    assert credentials.find("example.com:5000") == {}


def test_what_is_not_understood_stays(config: Path) -> None:
    write(config, plugins={"x": {"y": "z"}}, unknown=[1, None], auths={"other": {"auth": "YTpi"}})
    config.chmod(0o640)
    credentials.keep(_JOE)
    content = json.loads(config.read_text())
    assert content["plugins"] == {"x": {"y": "z"}} and content["unknown"] == [1, None]
    assert content["auths"]["other"] == {"auth": "YTpi"}
    assert config.stat().st_mode & 0o777 == 0o640


def test_a_link_stays_a_link(config: Path, tmp_path: Path) -> None:
    config.parent.mkdir()
    config.symlink_to(tmp_path / "elsewhere.json")
    credentials.keep(_JOE)
    assert config.is_symlink()
    assert "example.com:5000" in (tmp_path / "elsewhere.json").read_text()


def test_a_damaged_file_is_not_overwritten(config: Path) -> None:
    config.parent.mkdir()
    config.write_text("{bad")
    with pytest.raises(ClientError, match="damaged"):
        credentials.keep(_JOE)
    assert config.read_text() == "{bad"


def test_logins_at_the_same_time_lose_nothing(config: Path) -> None:
    program = (
        "import sys; from estiba.client import credentials\n"
        "credentials.keep({'username': 'u', 'password': 'p', 'serveraddress': sys.argv[1]})"
    )
    running = [
        subprocess.Popen([sys.executable, "-c", program, f"host{number}"]) for number in range(8)
    ]
    assert [process.wait() for process in running] == [0] * 8
    assert set(json.loads(config.read_text())["auths"]) == {f"host{n}" for n in range(8)}
    assert [path.name for path in config.parent.iterdir()] == ["config.json"]


def test_entries_of_old_clients(config: Path) -> None:
    write(config, auths={
        "https://old.example/v1/": {"auth": base64.b64encode(b"a:b:c\0").decode()},
        "plain.example": {"username": "joe", "password": "x"},
        "token.example": {"auth": base64.b64encode(b"joe:").decode(), "identitytoken": "t"},
    })  # fmt: skip
    assert credentials.find("old.example") == {
        "username": "a", "password": "b:c", "serveraddress": "https://old.example/v1/",
    }  # fmt: skip
    assert credentials.find("plain.example")["password"] == "x"
    assert decoded("token.example") == {
        "username": "joe", "serveraddress": "token.example", "identitytoken": "t",
    }  # fmt: skip


@pytest.mark.parametrize("auth", ["%%%", "YWJj", "OnB3", 5, ""])
def test_a_damaged_entry_is_told_apart_and_not_shown(config: Path, auth: object) -> None:
    write(config, auths={"x.example": {"auth": auth}})
    assert decoded("x.example") in ({}, {"serveraddress": "x.example"})
    if auth in ("%%%", "YWJj", "OnB3"):
        with pytest.raises(ClientError, match=r"x\.example are damaged") as caught:
            credentials.find("x.example")
        assert str(auth) not in str(caught.value)


def test_the_header(config: Path) -> None:
    assert credentials.header("example.com") == {"X-Registry-Auth": "e30="}
    credentials.keep({"username": "ü?>", "password": "~~~", "serveraddress": credentials.HUB})
    assert decoded("docker.io") == {
        "username": "ü?>", "password": "~~~", "serveraddress": credentials.HUB,
    }  # fmt: skip
    text = credentials.header("docker.io")["X-Registry-Auth"]
    assert not {"+", "/"} & set(text)


def test_a_helper_keeps_what_is_secret(config: Path, tmp_path: Path) -> None:
    write(config, credsStore="test")
    assert credentials.find("example.com:5000") == {}
    assert not credentials.keep(_JOE)
    assert json.loads((tmp_path / "kept").read_text()) == {
        "ServerURL": "example.com:5000", "Username": "joe", "Secret": "s3cret",
    }  # fmt: skip
    assert json.loads(config.read_text()) == {
        "credsStore": "test", "auths": {"example.com:5000": {}},
    }  # fmt: skip
    assert credentials.find("example.com:5000") == _JOE
    assert credentials.servers() == ["example.com:5000", "kept.example"]
    credentials.forget("example.com:5000")
    assert credentials.find("example.com:5000") == {}
    assert "s3cret" not in (tmp_path / "calls").read_text()


def test_tokens_go_to_helpers_by_a_name_of_their_own(config: Path, tmp_path: Path) -> None:
    write(config, credHelpers={"example.com:5000": "test"}, credsStore="broken")
    credentials.keep({**_JOE, "password": "", "identitytoken": "t"})
    assert json.loads((tmp_path / "kept").read_text())["Username"] == "<token>"
    assert decoded("example.com:5000") == {
        "serveraddress": "example.com:5000", "identitytoken": "t",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("helper", "words"),
    [
        ("broken", "exit status 3, out: `no key store`"),
        ("missing", 'exec: "docker-credential-missing": executable file not found'),
        ("babbling", "answer is not JSON"),
        ("slow", "no answer of docker-credential-slow within 0.2 seconds"),
        ("../x", "not a credential helper's name"),
    ],
)
def test_helpers_that_fail(
    config: Path, monkeypatch: pytest.MonkeyPatch, helper: str, words: str
) -> None:
    monkeypatch.setattr(credhelper, "_TIME_LIMIT_S", 0.2)
    write(config, credsStore=helper)
    with pytest.raises(ClientError) as caught:
        credentials.find("example.com")
    assert str(caught.value).startswith("error getting credentials - err: ")
    assert words in str(caught.value) and "s3cret" not in str(caught.value)
    # A registry may do without credentials.
    assert decoded("example.com") == {}
