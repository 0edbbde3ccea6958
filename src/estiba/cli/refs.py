"""What a user writes for images and platforms, normalized as docker's client does it."""

from __future__ import annotations

import os

from estiba.cli.parse import UsageError
from estiba.model.errors import InvalidArgument
from estiba.model.reference import Reference, parse_reference

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

_SYSTEMS = ("darwin", "freebsd", "linux", "netbsd", "openbsd", "solaris", "windows")
_MACHINES = {"x86_64": "amd64", "x86-64": "amd64", "aarch64": "arm64", "i386": "386",
             "i486": "386", "i586": "386", "i686": "386", "armhf": "arm/v7",
             "armel": "arm/v6"}  # fmt: skip
_LETTERS = frozenset("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_.-")


def reference(text: str) -> Reference:
    """Raises UsageError in docker's words."""
    try:
        return parse_reference(text)
    except InvalidArgument:
        path = text.partition("@")[0]
        if path.rpartition(":")[2].partition("/")[1] == "":
            path = path.rpartition(":")[0] or path
        first, slash, rest = path.partition("/")
        if slash and ("." in first or ":" in first or first == "localhost"):
            path = rest
        elif not slash:
            path = f"library/{path}"
        reason = ""
        if path != path.lower() and set(path) <= _LETTERS | {"/"}:
            reason = f": repository name ({path}) must be lowercase"
        raise UsageError(f"invalid reference format{reason}") from None


def platform(text: str) -> dict[str, Any]:
    """`linux/arm64/v8` as the API's object. Raises UsageError."""
    words = text.split("/")
    for word in words:
        if not word or not set(word) <= _LETTERS:
            raise UsageError(
                f'"{word}" is an invalid component of "{text}": platform specifier component must '
                'match "^[A-Za-z0-9_.-]+$": invalid argument'
            )
    if len(words) > 3:
        raise UsageError(f'"{text}": cannot parse platform specifier: invalid argument')
    words = [word.lower() for word in words]
    if len(words) == 1:
        own = os.uname().machine
        words = [words[0], own] if words[0] in _SYSTEMS else ["linux", words[0]]
    system, machine, *rest = words
    machine, _, implied = _MACHINES.get(machine, machine).partition("/")
    variant = rest[0] if rest else implied
    if machine == "arm" and not variant:
        variant = "v7"
    if (machine, variant) in (("arm64", "v8"), ("arm64", "8"), ("amd64", "v1")):
        variant = ""
    found = {"architecture": machine, "os": "darwin" if system == "macos" else system}
    return found | ({"variant": variant} if variant else {})


def default_platform(flag: str) -> str:
    """The flag, or the user's setting."""
    return flag or os.environ.get("DOCKER_DEFAULT_PLATFORM", "")
