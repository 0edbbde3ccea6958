"""One function an instruction: from its statement to its place in the AST, and what it refuses."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping

from estiba.build.dockerfile import durations, heredocs, mounts
from estiba.build.dockerfile.arguments import Word, plain_words, quoted_words, split_space
from estiba.build.dockerfile.errors import DockerfileError, nearest
from estiba.build.dockerfile.instructions import (
    Arg,
    Cmd,
    CommandLine,
    Entrypoint,
    Env,
    Files,
    From,
    Healthcheck,
    Instruction,
    Label,
    MountFlag,
    Run,
    Shell,
    Span,
    Value,
    Words,
)
from estiba.build.dockerfile.statement import Statement
from estiba.build.dockerfile.words import WordError

NETWORKS = ("default", "none", "host")
SECURITIES = ("sandbox", "insecure")
_STAGE_NAME = re.compile(r"[a-z][a-z0-9-_.]*")
_CHECKSUM = re.compile(
    r"sha256:[0-9a-f]{64}|sha384:[0-9a-f]{96}|sha512:[0-9a-f]{128}"
    r"|(?:sha1:)?[0-9a-f]{7,64}",
    re.IGNORECASE,
)
_SHORTEST_NS = 1_000_000
_MOST_RETRIES = (1 << 31) - 1


def _from(it: Statement) -> From:
    words = plain_words(it.rest)
    form = "FROM [--platform=PLATFORM] IMAGE [AS NAME]"
    if not words:
        raise it.error("FROM without an image", form)
    name = ""
    if len(words) > 1 and words[1].text.lower() != "as":
        raise it.error(f"{words[1].text!r:.40} behind the image", form, words[1].offset)
    if len(words) not in (1, 3):
        raise it.error("FROM requires one or three arguments", form, words[-1].offset)
    if len(words) == 3:
        name = words[2].text.lower()
        if not _STAGE_NAME.fullmatch(name):
            raise it.error(
                f"invalid stage name {words[2].text!r:.60}",
                "a letter, then letters, digits, - _ or .",
                words[2].offset,
            )
    return From(**it.common, image=words[0].text, platform=it.flags.text("platform"), name=name)


def _arg(it: Statement) -> Arg:
    words = quoted_words(it.rest, it.escape)
    if not words:
        raise it.error("ARG without a name", "ARG NAME[=DEFAULT]")
    pairs: list[tuple[str, str | None]] = []
    for word in words:
        name, equals, value = word.text.partition("=")
        if not name:
            raise it.error("ARG with an empty name", "NAME[=DEFAULT]", word.offset)
        pairs.append((name, value if equals else None))
    return Arg(**it.common, pairs=tuple(pairs))


def _pairs(it: Statement) -> tuple[tuple[str, str], ...]:
    words = quoted_words(it.rest, it.escape)
    form = f"{it.keyword} NAME=VALUE …"
    if not words:
        raise it.error(f"{it.keyword} without a name", form)
    if "=" not in words[0].text:
        parts = split_space(it.rest)
        if len(parts) < 2:
            raise it.error(f"{it.keyword} must have two arguments", form, 0)
        return ((parts[0], parts[1]),)
    pairs = []
    for word in words:
        name, equals, value = word.text.partition("=")
        if not equals:
            raise it.error(f"cannot find = in {word.text!r:.60}", "NAME=VALUE", word.offset)
        if not name:
            raise it.error(f"{it.keyword} with an empty name", "NAME=VALUE", word.offset)
        pairs.append((name, value))
    return tuple(pairs)


def _env(it: Statement) -> Env:
    return Env(**it.common, pairs=_pairs(it))


def _label(it: Statement) -> Label:
    return Label(**it.common, pairs=_pairs(it))


# -- files ---------------------------------------------------------------------------------


def _files(it: Statement) -> Files:
    words = it.words()
    keyword = it.keyword
    if len(words) < 2:
        raise it.error(
            f"{keyword} requires at least two arguments"
            + (", but only one was provided" if words else ""),
            "SOURCE … DESTINATION",
            words[0].offset if words else None,
        )
    sources, destination = words[:-1], words[-1]
    is_json = it.json() is not None
    if not is_json and _opens_heredoc(it, destination):
        raise it.error(
            f"{keyword} cannot have a here-document as its destination",
            "SOURCE … DESTINATION",
            destination.offset,
        )
    _check_checksum(it, sources)
    named = tuple(s.text if is_json else _source(it, s) for s in sources)
    return Files(
        **it.common,
        sources=named,
        destination=destination.text,
        from_=it.flags.text("from"),
        chown=it.flags.text("chown"),
        chmod=it.flags.text("chmod"),
        link=it.flags.is_set("link"),
        parents=it.flags.is_set("parents"),
        excludes=tuple(value for value, _ in it.flags.texts("exclude")),
        keep_git_dir=it.flags.is_set("keep-git-dir"),
        checksum=it.flags.text("checksum"),
        unpack=it.flags.maybe("unpack"),
    )


def _source(it: Statement, word: Word) -> str:
    """A here-document stands as `<<NAME`, however it was written."""
    found = _opens_heredoc(it, word)
    return f"<<{found}" if found else word.text


def _opens_heredoc(it: Statement, word: Word) -> str:
    try:
        found = heredocs.delimiter(word.text)
    except WordError as error:
        raise it.error(str(error), "the name of a here-document", word.offset) from error
    return "" if found is None else found.name


def _check_checksum(it: Statement, sources: list[Word]) -> None:
    checksum = it.flags.text("checksum")
    if not checksum:
        return
    span = it.flags.span("checksum")
    if len(sources) != 1:
        raise DockerfileError(span, "--checksum with more than one source", "one source")
    if "$" not in checksum and not _CHECKSUM.fullmatch(checksum):
        raise DockerfileError(
            span, f"invalid checksum {checksum!r:.90}", "sha256: and 64 hex digits, or a commit"
        )


# -- commands ------------------------------------------------------------------------------


def _run(it: Statement) -> Run:
    command = it.command()
    if not command.words:
        raise it.error("RUN [] without a command", 'RUN COMMAND or RUN ["PROGRAM", "ARGUMENT"]')
    return Run(
        **it.common,
        command=command,
        mounts=tuple(_mount(text, span) for text, span in it.flags.texts("mount")),
        network=_one_of(it, "network", NETWORKS),
        security=_one_of(it, "security", SECURITIES),
        devices=tuple(_device(text, span) for text, span in it.flags.texts("device")),
    )


def _mount(text: str, span: Span) -> MountFlag:
    try:
        return mounts.parse_mount(text)
    except mounts.MountError as error:
        raise DockerfileError(span, error.what, error.expected) from error


def _one_of(it: Statement, name: str, values: tuple[str, ...]) -> str:
    value = it.flags.text(name)
    if value and value.lower() not in values:
        raise DockerfileError(
            it.flags.span(name),
            f"unsupported --{name}={value:.40}{nearest(value, values)}",
            " or ".join(values),
        )
    return value.lower()


def _device(text: str, span: Span) -> str:
    if not text.split(",")[0]:
        raise DockerfileError(span, "--device without a name", "--device=NAME[,required]")
    return text


def _cmd(it: Statement) -> Cmd:
    return Cmd(**it.common, command=it.command())


def _entrypoint(it: Statement) -> Entrypoint:
    return Entrypoint(**it.common, command=it.command())


def _shell(it: Statement) -> Shell:
    words = it.json()
    if words is None:
        raise it.error("SHELL is not in the JSON form", 'SHELL ["PROGRAM", "ARGUMENT"]')
    if not words:
        raise it.error("SHELL with no words", 'SHELL ["PROGRAM", "ARGUMENT"]', 0)
    return Shell(**it.common, words=tuple(words))


def _healthcheck(it: Statement) -> Healthcheck:
    form = "HEALTHCHECK [FLAGS] CMD COMMAND, or HEALTHCHECK NONE"
    parts = split_space(it.rest)
    kind = parts[0].upper()
    if kind == "NONE":
        if len(parts) > 1:
            raise it.error("HEALTHCHECK NONE takes no arguments", form, len(parts[0]) + 1)
        return Healthcheck(**it.common, command=None)
    if kind != "CMD":
        what = f"unknown type {parts[0]!r:.40} of HEALTHCHECK" if kind else "HEALTHCHECK alone"
        raise it.error(what, form, 0 if kind else None)
    rest_at = it.rest_at + len(it.rest) - len(parts[1]) if len(parts) > 1 else it.rest_at
    rest = it.line.text[rest_at:] if len(parts) > 1 else ""
    command = Statement(
        it.line, it.offset, it.keyword, it.flags, rest, rest_at, it.escape
    ).command()
    if command.words in ((), ("",)):
        raise it.error("missing command after HEALTHCHECK CMD", form, 0)
    return _with_durations(it, command)


def _with_durations(it: Statement, command: CommandLine) -> Healthcheck:
    return Healthcheck(
        **it.common,
        command=command,
        interval_ns=_duration(it, "interval"),
        timeout_ns=_duration(it, "timeout"),
        start_period_ns=_duration(it, "start-period"),
        start_interval_ns=_duration(it, "start-interval"),
        retries=_retries(it),
    )


def _duration(it: Statement, name: str) -> int:
    text = it.flags.text(name)
    if not text:
        return 0
    found = durations.nanoseconds(text)
    if found is None:
        raise DockerfileError(
            it.flags.span(name), f"invalid duration {text!r:.40}", "a duration such as 1m30s"
        )
    if found and found < _SHORTEST_NS:
        raise DockerfileError(
            it.flags.span(name), f"--{name} cannot be less than 1ms", "a longer duration"
        )
    return found


def _retries(it: Statement) -> int:
    text = it.flags.text("retries")
    if not text:
        return 0
    if not re.fullmatch(r"[+-]?[0-9]{1,12}", text) or not 0 <= int(text) <= _MOST_RETRIES:
        raise DockerfileError(
            it.flags.span("retries"), f"invalid --retries={text:.40}", "a number from 0 up"
        )
    return int(text)


# -- the rest ------------------------------------------------------------------------------


def _expose(it: Statement) -> Words:
    words = tuple(word.text for word in plain_words(it.rest))
    if not words:
        raise it.error("EXPOSE without a port", "EXPOSE PORT[/PROTOCOL] …")
    return Words(**it.common, words=words)


def _volume(it: Statement) -> Words:
    words = [Word(word.text.strip(), word.offset) for word in it.words()]
    if not words:
        raise it.error("VOLUME without a path", "VOLUME PATH …")
    for word in words:
        if not word.text:
            raise it.error("VOLUME with an empty path", "VOLUME PATH …", word.offset)
    return Words(**it.common, words=tuple(word.text for word in words))


def _value(it: Statement) -> Value:
    if not it.rest:
        raise it.error(f"{it.keyword} requires exactly one argument", f"{it.keyword} VALUE")
    return Value(**it.common, value=it.rest)


FORMS: Mapping[str, Callable[[Statement], Instruction]] = {
    "ADD": _files,
    "ARG": _arg,
    "CMD": _cmd,
    "COPY": _files,
    "ENTRYPOINT": _entrypoint,
    "ENV": _env,
    "EXPOSE": _expose,
    "FROM": _from,
    "HEALTHCHECK": _healthcheck,
    "LABEL": _label,
    "MAINTAINER": _value,
    "RUN": _run,
    "SHELL": _shell,
    "STOPSIGNAL": _value,
    "USER": _value,
    "VOLUME": _volume,
    "WORKDIR": _value,
}
