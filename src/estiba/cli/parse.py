"""Flags as data: parsing, help and completion from one table.

Flag("-d --detach", "run in the background")          a boolean
Flag("--name NAME", "…")                              takes a value
Flag("-e --env LIST…", "…")                           may be given again
"""

from __future__ import annotations

from typing import Any, NamedTuple

from estiba.client.errors import ClientError

TRUE = ("", "true", "1", "t")


class UsageError(ClientError):
    """The words on the command line make no sense; exit code 125 for run, else 1."""


class Flag(NamedTuple):
    spec: str
    help: str = ""

    @property
    def names(self) -> list[str]:
        return [word for word in self.spec.split() if word.startswith("-")]

    @property
    def value(self) -> str:
        words = [word for word in self.spec.split() if not word.startswith("-")]
        return words[0] if words else ""

    @property
    def key(self) -> str:
        return self.names[-1].lstrip("-").replace("-", "_")

    @property
    def is_list(self) -> bool:
        return self.value.endswith("…")


class Command(NamedTuple):
    """One command: its words, how it is used, flags, and where its function is."""

    usage: str
    help: str
    flags: tuple[Flag, ...]
    function: str
    """`module:name` below estiba.cli, imported when the command is used."""
    least: int = 0
    most: int | None = None
    interspersed: bool = True
    """Flags may follow positional words; not so where these are another's command line."""


class Arguments:
    """Values by flag name (`no_trunc`), and the positional words."""

    def __init__(self, values: dict[str, Any], words: list[str]) -> None:
        self._values = values
        self.words = words

    def __getattr__(self, name: str) -> Any:
        try:
            return self._values[name]
        except KeyError:
            raise AttributeError(name) from None

    def given(self, name: str) -> bool:
        """Whether the user gave the flag at all."""
        return bool(self._values.get(f"?{name}"))


def parse(command: Command, words: list[str]) -> Arguments:
    """Raises UsageError for an unknown flag, a missing value or a wrong number of words."""
    table = {name: flag for flag in command.flags for name in flag.names}
    values: dict[str, Any] = {}
    for flag in command.flags:
        values[flag.key] = [] if flag.is_list else "" if flag.value else False
    positional: list[str] = []
    queue = list(words)
    while queue:
        word = queue.pop(0)
        if word == "--":
            positional += queue
            break
        if word == "-" or not word.startswith("-"):
            positional.append(word)
            if not command.interspersed:
                positional += queue
                break
            continue
        if word.startswith("--"):
            _long(table, values, word, queue)
        else:
            _short(table, values, word, queue)
    if len(positional) < command.least or (
        command.most is not None and len(positional) > command.most
    ):
        raise UsageError(f"wrong number of arguments\n\nUsage:  estiba {command.usage}")
    return Arguments(values, positional)


def _long(table: dict[str, Flag], values: dict[str, Any], word: str, queue: list[str]) -> None:
    name, equals, value = word.partition("=")
    flag = table.get(name)
    if flag is None:
        raise UsageError(f"unknown flag: {name}")
    if not flag.value:
        _store(values, flag, (value.lower() in TRUE) if equals else True)
        return
    if not equals:
        if not queue:
            raise UsageError(f"flag needs an argument: {name}")
        value = queue.pop(0)
    _store(values, flag, value)


def _short(table: dict[str, Flag], values: dict[str, Any], word: str, queue: list[str]) -> None:
    letters = word[1:]
    while letters:
        flag = table.get(f"-{letters[0]}")
        if flag is None:
            raise UsageError(f"unknown shorthand flag: '{letters[0]}' in {word}")
        letters = letters[1:]
        if not flag.value:
            if letters.startswith("="):
                _store(values, flag, letters[1:].lower() in TRUE)
                return
            _store(values, flag, True)
            continue
        if not letters and not queue:
            raise UsageError(f"flag needs an argument: '{flag.names[0]}' in {word}")
        _store(values, flag, letters.removeprefix("=") if letters else queue.pop(0))
        return


def _store(values: dict[str, Any], flag: Flag, value: Any) -> None:
    values[f"?{flag.key}"] = True
    if flag.is_list:
        values[flag.key].append(value)
    else:
        values[flag.key] = value


def help_text(command: Command) -> str:
    """What `--help` prints."""
    lines = [f"Usage:  estiba {command.usage}", "", command.help]
    if command.flags:
        lines += ["", "Options:"]
        for flag in command.flags:
            names = ", ".join(flag.names)
            shown = f"{names} {flag.value.rstrip('…').lower()}".rstrip()
            pad = "" if len(flag.names) > 1 else "    "
            lines.append(f"  {pad}{shown:<{32 - len(pad)}}{flag.help}")
    return "\n".join(lines)
