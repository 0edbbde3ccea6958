"""image bootstrap: a base image without a registry."""

from __future__ import annotations

from estiba.cli.parse import Arguments, UsageError
from estiba.cli.progress import show_progress
from estiba.client import bootstrap as making
from estiba.client.http import Client

_DEFAULT_SUITE = "bookworm"


def bootstrap(client: Client, given: Arguments) -> int:
    name, _, suite = given.words[0].partition(":")
    if name == "busybox" and suite in ("", "latest"):
        pieces, tag, command = making.busybox(), "latest", '["sh"]'
    elif name == "debian":
        tag = suite or _DEFAULT_SUITE
        pieces, command = making.debian(tag), '["bash"]'
    else:
        raise UsageError(f"cannot make {given.words[0]!r}: busybox, debian or debian:SUITE")
    query = {
        "fromSrc": "-",
        "repo": name,
        "tag": tag,
        "message": "made from the distribution's packages",
        "changes": [f"CMD {command}"],
    }
    _ = client.version
    response = client.call("POST", "/images/create", query, source=pieces)
    show_progress(response.lines(), quiet=True)
    print(f"{name}:{tag}")
    return 0
