"""`RUN --mount=…`: options as written, and what they mean once variables are expanded."""

from __future__ import annotations

import csv
import re
from collections.abc import Callable
from dataclasses import dataclass

from estiba.build.dockerfile.errors import nearest
from estiba.build.dockerfile.instructions import MountFlag
from estiba.model.errors import InvalidArgument

TYPES = ("bind", "cache", "tmpfs", "secret", "ssh")
SHARINGS = ("shared", "private", "locked")
_LONG = {
    "dst": "target",
    "destination": "target",
    "src": "source",
    "ro": "readonly",
    "rw": "readwrite",
}
OPTIONS = (
    "type", "from", "source", "src", "target", "dst", "destination", "readonly", "ro",
    "readwrite", "rw", "id", "sharing", "required", "mode", "uid", "gid", "size", "env",
)  # fmt: skip
_WITHOUT_VALUE = frozenset({"readonly", "readwrite", "required"})
_TRUE = frozenset({"1", "t", "T", "true", "TRUE", "True"})
_FALSE = frozenset({"0", "f", "F", "false", "FALSE", "False"})
_ONLY_FOR = {
    "size": ("tmpfs",),
    "required": ("secret", "ssh"),
    "sharing": ("cache",),
    "env": ("secret",),
    "mode": ("cache", "secret", "ssh"),
    "uid": ("cache", "secret", "ssh"),
    "gid": ("cache", "secret", "ssh"),
}
_SIZE = re.compile(r"(\d+(?:\.\d+)?)\s?([kmgtp]?)(?:i?b)?", re.IGNORECASE)
_LARGEST = (1 << 63) - 1


class MountError(InvalidArgument):
    """A mount that cannot be; `expected` says what could."""

    def __init__(self, what: str, expected: str) -> None:
        super().__init__(f"{what}: expected {expected}")
        self.what = what
        self.expected = expected


@dataclass(frozen=True, slots=True, kw_only=True)
class Mount:
    """One mount with its variables in. `mode`, `uid` and `gid` are None where none was given."""

    type: str
    target: str = ""
    source: str = ""
    from_: str = ""
    readonly: bool = False
    id: str = ""
    sharing: str = "shared"
    mode: int | None = None
    uid: int | None = None
    gid: int | None = None
    size_bytes: int = 0
    env: str = ""
    required: bool = False


def parse_mount(text: str) -> MountFlag:
    """Of a flag's value. What has no variable in it is checked already."""
    kind, options = "bind", []
    for field in _fields(text):
        name, equals, value = field.partition("=")
        short = name.lower()
        name = _LONG.get(short, short)
        if short not in OPTIONS:
            raise MountError(
                f"unexpected option {short!r:.40} of --mount{nearest(short, OPTIONS)}",
                ", ".join(OPTIONS),
            )
        if not equals:
            if name not in _WITHOUT_VALUE:
                raise MountError(f"the option {field!r:.40} has no value", f"{short}=VALUE")
            value = "true"
        if name == "type":
            kind = value if "$" in value else _one_of(value, TYPES, "mount type")
            continue
        if name == "from" and re.search(r"\$.", value):
            raise MountError(
                f"from={value:.80} has a variable", "the name of a stage: define one FROM it"
            )
        options.append(_normalized(name, value))
    flag = MountFlag(kind, tuple(options))
    if "$" not in text:
        resolve(flag, lambda word: word)
    return flag


def resolve(flag: MountFlag, expand: Callable[[str], str]) -> Mount:
    """Every value expanded and checked. Raises MountError."""
    kind = _one_of(expand(flag.type), TYPES, "mount type")
    given: dict[str, str] = {}
    for name, written in flag.options:
        allowed = _ONLY_FOR.get(name)
        if allowed is not None and kind not in allowed:
            raise MountError(
                f"the option {name} does not go with a mount of type {kind}",
                f"{name} only with type={' or '.join(allowed)}",
            )
        name, value = _normalized(name, expand(written))
        given[name] = value
    readonly = given.get("readonly")
    mount = Mount(
        type=kind,
        target=given.get("target", ""),
        source=given.get("source", ""),
        from_=given.get("from", ""),
        readonly=kind in ("bind", "secret", "ssh")
        if readonly is None
        else _boolean("readonly", readonly),
        id=given.get("id", ""),
        sharing=_one_of(given.get("sharing", "shared"), SHARINGS, "sharing"),
        mode=_number("mode", given.get("mode"), 8),
        uid=_number("uid", given.get("uid"), 10),
        gid=_number("gid", given.get("gid"), 10),
        size_bytes=_size(given["size"]) if "size" in given else 0,
        env=given.get("env", ""),
        required=_boolean("required", given.get("required", "false")),
    )
    _check_secret(mount)
    return mount


def _check_secret(mount: Mount) -> None:
    if mount.type != "secret":
        return
    if mount.from_:
        raise MountError("a secret has no from", "id= of the secret")
    if not (mount.source or mount.target or mount.id):
        raise MountError("a secret without a name", "id=NAME, or target=PATH")
    if mount.source and mount.id:
        raise MountError("a secret with both source and id", "one of them")


def _fields(text: str) -> list[str]:
    try:
        rows = list(csv.reader([text], strict=True))
    except csv.Error as error:
        raise MountError(f"{text!r:.80} is no list ({error})", "options with commas") from error
    if not rows or not rows[0]:
        raise MountError("the mount has no options", "--mount=type=TYPE,…")
    return rows[0]


def _normalized(name: str, value: str) -> tuple[str, str]:
    """`readwrite` becomes its opposite as soon as its value is known."""
    if name == "readwrite" and "$" not in value:
        return "readonly", "false" if _boolean(name, value) else "true"
    return name, value


def _one_of(value: str, names: tuple[str, ...], what: str) -> str:
    if value.lower() not in names:
        raise MountError(f"unsupported {what} {value!r:.40}{nearest(value, names)}", _or(names))
    return value.lower()


def _or(names: tuple[str, ...]) -> str:
    return f"{', '.join(names[:-1])} or {names[-1]}"


def _boolean(name: str, value: str) -> bool:
    if value in _TRUE:
        return True
    if value in _FALSE:
        return False
    raise MountError(f"invalid value {value!r:.40} for {name}", "true or false")


def _number(name: str, value: str | None, base: int) -> int | None:
    if value is None:
        return None
    digits = "01234567" if base == 8 else "0123456789"
    if not value or len(value) > 11 or value.strip(digits) or int(value, base) >= 1 << 32:
        kind = "an octal number, such as 0400" if base == 8 else "a number"
        raise MountError(f"invalid value {value!r:.40} for {name}", kind)
    return int(value, base)


def _size(value: str) -> int:
    match = _SIZE.fullmatch(value.strip()[:40])
    if match is not None:
        size = float(match[1]) * 1024 ** (" kmgtp".index(match[2].lower() or " "))
        if size <= _LARGEST:
            return int(size)
    raise MountError(f"invalid value {value!r:.40} for size", "a size, such as 64m")
