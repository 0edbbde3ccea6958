"""The flags of instructions, `--name=value`: splitting, the tables of what each one takes."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import Enum

from estiba.build.dockerfile.errors import DockerfileError, nearest
from estiba.build.dockerfile.instructions import Span


class Kind(Enum):
    BOOL = "bool"
    TEXT = "text"
    TEXTS = "texts"
    """May be given again and again."""


FLAGS: Mapping[str, Mapping[str, Kind]] = {
    "ADD": {
        "chown": Kind.TEXT,
        "chmod": Kind.TEXT,
        "link": Kind.BOOL,
        "keep-git-dir": Kind.BOOL,
        "checksum": Kind.TEXT,
        "unpack": Kind.BOOL,
        "exclude": Kind.TEXTS,
    },
    "COPY": {
        "from": Kind.TEXT,
        "chown": Kind.TEXT,
        "chmod": Kind.TEXT,
        "link": Kind.BOOL,
        "parents": Kind.BOOL,
        "exclude": Kind.TEXTS,
    },
    "FROM": {"platform": Kind.TEXT},
    "HEALTHCHECK": {
        "interval": Kind.TEXT,
        "timeout": Kind.TEXT,
        "start-period": Kind.TEXT,
        "start-interval": Kind.TEXT,
        "retries": Kind.TEXT,
    },
    "RUN": {
        "mount": Kind.TEXTS,
        "network": Kind.TEXT,
        "security": Kind.TEXT,
        "device": Kind.TEXTS,
    },
}


@dataclass(frozen=True, slots=True)
class Flag:
    """One word of the form `--…`, quotes and backslashes out; offsets of the text it came from."""

    text: str
    offset: int
    end: int


def split_flags(text: str) -> tuple[list[Flag], int]:
    """The words in front that begin with `--`, and where the rest begins; `--` alone ends them."""
    flags: list[Flag] = []
    at = 0
    while True:
        while at < len(text) and text[at].isspace():
            at += 1
        if not text.startswith("--", at):
            return flags, at
        start = at
        word, at = _flag_word(text, at)
        if word == "--":
            while at < len(text) and text[at].isspace():
                at += 1
            return flags, at
        flags.append(Flag(word, start, at))


def _flag_word(text: str, at: int) -> tuple[str, int]:
    """Quotes and backslashes as a shell has them; the escape directive changes nothing here."""
    out: list[str] = []
    quote = ""
    while at < len(text):
        char = text[at]
        if not quote and char.isspace():
            break
        at += 1
        if char == "\\":
            if at < len(text):
                out.append(text[at])
                at += 1
        elif quote:
            if char == quote:
                quote = ""
            else:
                out.append(char)
        elif char in "'\"":
            quote = char
        else:
            out.append(char)
    return "".join(out), at


class Given:
    """The flags of one instruction, checked against its table."""

    def __init__(self, keyword: str, flags: list[Flag], at: Callable[[Flag], Span]) -> None:
        self._values: dict[str, list[str]] = {}
        self._spans: dict[str, list[Span]] = {}
        known = FLAGS.get(keyword, {})
        for flag in flags:
            span = at(flag)
            name, equals, value = flag.text.removeprefix("--").partition("=")
            kind = known.get(name)
            if kind is None:
                raise _unknown(span, keyword, name, known)
            if name in self._values and kind is not Kind.TEXTS:
                raise DockerfileError(span, f"duplicate flag --{name}", f"--{name} once")
            if kind is Kind.BOOL:
                value = _boolean(span, name, value, bool(equals))
            elif not equals:
                raise DockerfileError(
                    span, f"missing a value on flag --{name}", f"--{name}=VALUE in one word"
                )
            self._values.setdefault(name, []).append(value)
            self._spans.setdefault(name, []).append(span)

    def text(self, name: str) -> str:
        return self._values.get(name, [""])[0]

    def texts(self, name: str) -> list[tuple[str, Span]]:
        return list(zip(self._values.get(name, []), self._spans.get(name, []), strict=True))

    def is_set(self, name: str) -> bool:
        return self.text(name) == "true"

    def maybe(self, name: str) -> bool | None:
        return self.is_set(name) if name in self._values else None

    def span(self, name: str) -> Span:
        return self._spans[name][0]

    def names(self) -> tuple[str, ...]:
        return tuple(self._values)


def _boolean(span: Span, name: str, value: str, has_value: bool) -> str:
    if not has_value:
        return "true"
    if value.lower() in ("true", "false"):
        return value.lower()
    raise DockerfileError(
        span, f"flag --{name} cannot be {value!r:.40}", f"--{name}, --{name}=true or =false"
    )


def _unknown(span: Span, keyword: str, name: str, known: Mapping[str, Kind]) -> DockerfileError:
    takes = ", ".join(f"--{flag}" for flag in known) or "no flags"
    return DockerfileError(
        span,
        f"unknown flag --{name[:40]} of {keyword}{nearest(name, known)}",
        takes,
    )
