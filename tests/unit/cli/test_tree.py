"""image ls --tree, on views as the API has them."""

from __future__ import annotations

from typing import Any

import pytest

from estiba.cli.parse import Arguments, UsageError
from estiba.cli.tree import tree
from estiba.client.errors import ClientError
from estiba.client.host import parse
from estiba.client.http import Client

_ID = "sha256:" + 64 * "a"


class Daemon(Client):
    """Answers with one list of images."""

    def __init__(self, views: list[dict[str, Any]], monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("DOCKER_API_VERSION", "1.51")
        super().__init__(parse("unix:///nonexistent", None))
        self.views = views
        self.query: dict[str, Any] | None = None

    def get(self, path: str, query: dict[str, Any] | None = None) -> Any:
        self.query = query
        return self.views


def given(**values: Any) -> Arguments:
    flags = {"all": False, "filter": [], "format": "", "no_trunc": False, "quiet": False,
             "digests": False}  # fmt: skip
    return Arguments(flags | values, set(values), [])


def manifest(platform: dict[str, str], *, here: bool = True, used: bool = False) -> dict[str, Any]:
    return {
        "ID": _ID, "Kind": "image", "Available": here,
        "Size": {"Total": 3_000_000, "Content": 1_000_000},
        "ImageData": {"Platform": platform, "Containers": ["x"] if used else []},
    }  # fmt: skip


def test_platforms_below_their_image(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    daemon = Daemon([
        {"Id": _ID, "Created": 1, "Size": 5, "RepoTags": ["old:1"], "Containers": 0},
        {"Id": _ID, "Created": 2, "Size": 6_000_000, "RepoTags": ["app:1", "app:2"],
         "Containers": -1, "Manifests": [
            manifest({"os": "linux", "architecture": "amd64"}, used=True),
            manifest({"os": "linux", "architecture": "arm64", "variant": "v8"}, here=False),
            {"ID": _ID, "Kind": "attestation"},
        ]},
    ], monkeypatch)  # fmt: skip
    assert tree(daemon, given()) == 0
    assert daemon.query and daemon.query["manifests"] is True
    assert [" ".join(line.split()) for line in capsys.readouterr().out.splitlines()] == [
        "IMAGE ID DISK USAGE CONTENT SIZE USED",
        "app:1",
        "app:2 aaaaaaaaaaaa 6MB 2MB ✔",
        "├─ linux/amd64 aaaaaaaaaaaa 3MB 1MB ✔",
        "└─ linux/arm64/v8 (not here) aaaaaaaaaaaa 3MB 1MB",
        "old:1 aaaaaaaaaaaa 5B",
    ]


def test_what_it_does_not_go_with(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UsageError, match="--no-trunc is not yet supported with --tree"):
        tree(Daemon([], monkeypatch), given(no_trunc=True))
    monkeypatch.setenv("DOCKER_API_VERSION", "1.41")
    old = Client(parse("unix:///nonexistent", None))
    with pytest.raises(ClientError, match=r"requires API version 1\.47"):
        tree(old, given())
