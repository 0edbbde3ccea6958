"""Flags as data: parsing, help, completion and docs from one text a command.

    -d --detach           run in the background            a boolean
    --sig-proxy=true      pass signals on                  a boolean that is on by default
    --name NAME           the container's name             takes a value
    -e --env LIST…        environment variables            may be given again
    -m --memory BYTES     memory limit                     a value that is converted
    --tree                a tree (to come: indexes)        known, and refused with the reason

The first long name is the key; further long names are aliases that help does not show. Texts are
read when a command is used, so that a big table costs nothing to import.
"""

from __future__ import annotations

from estiba.client.errors import ClientError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

_TRUE = ("1", "t", "T", "true", "TRUE", "True")
_FALSE = ("0", "f", "F", "false", "FALSE", "False")
_CONVERTED = ("N", "BYTES", "TIME", "CPUS")


class UsageError(ClientError):
    """What the user wrote makes no sense."""

    def __init__(self, message: str, *, exit_code: int = 1) -> None:
        super().__init__(message)
        self.exit_code = exit_code


class FlagError(UsageError):
    """A flag is unknown or its value is not understood; the usage is shown with it."""


class Flag:
    __slots__ = ("default", "help", "key", "letter", "long", "names", "needs", "value")

    def __init__(self, line: str) -> None:
        spec, _, text = line.strip().partition("  ")
        words = spec.split()
        self.value = "" if words[-1].startswith("-") else words.pop()
        self.default = words[-1].endswith("=true")
        self.names = [word.removesuffix("=true") for word in words]
        self.long = next(name for name in self.names if name.startswith("--"))
        self.letter = next((name for name in self.names if not name.startswith("--")), "")
        self.key = self.long[2:].replace("-", "_")
        self.help = text.strip()
        self.needs = self.help.partition("(to come: ")[2].rstrip(")")
        """What the flag waits for, in a word; empty when it works."""

    @property
    def is_list(self) -> bool:
        return self.value.endswith("…")

    @property
    def shown(self) -> str:
        """As docker names a flag in messages."""
        return f"{self.letter}, {self.long}" if self.letter else self.long

    def initial(self) -> Any:
        if self.is_list:
            return []
        if self.value in _CONVERTED:
            return None
        return "" if self.value else self.default

    def convert(self, text: str) -> Any:
        """Raises FlagError naming the flag."""
        if not self.value:
            if text in _TRUE or text in _FALSE:
                return text in _TRUE
            raise self.error(text, f'strconv.ParseBool: parsing "{text}": invalid syntax')
        if self.value not in _CONVERTED:
            return text
        from estiba.cli import quantities

        try:
            return quantities.CONVERTERS[self.value](text)
        except ValueError as error:
            raise self.error(text, str(error)) from None

    def error(self, text: str, reason: str) -> FlagError:
        return FlagError(f'invalid argument "{text}" for "{self.shown}" flag: {reason}')


class Command:
    """One command: how it is used, its flags, and where its function is."""

    __slots__ = ("function", "help", "interspersed", "least", "most", "passes", "text", "usage")

    def __init__(
        self,
        usage: str,
        help: str,
        function: str,
        text: str = "",
        *,
        least: int = 0,
        most: int | None = None,
        interspersed: bool = True,
        passes: bool = False,
    ) -> None:
        self.usage = usage
        self.help = help
        self.function = function
        """`module:name` below estiba.cli, imported when the command is used."""
        self.text = text
        """Lines of flags, or `@MODULE:NAME` for a text that is imported when it is wanted."""
        self.least = least
        self.most = most
        self.interspersed = interspersed
        """Flags may follow positional words; not so where these are another's command line."""
        self.passes = passes
        """All its words, flags and `--help` included, are for the program that it becomes."""

    def flags(self) -> list[Flag]:
        text = self.text
        if text.startswith("@"):
            module, _, name = text[1:].rpartition(":")
            text = getattr(__import__(f"estiba.cli.{module}", fromlist=[name]), name)
        found = [Flag(line) for line in text.splitlines() if line.strip()]
        return sorted(found, key=lambda flag: flag.key)


class Arguments:
    """Values by flag key (`no_trunc`), and the positional words."""

    def __init__(self, values: dict[str, Any], given: set[str], words: list[str]) -> None:
        self._values = values
        self._given = given
        self.words = words
        self.path = ""
        """The words that the command was called by: `run`, `container run`."""

    def __getattr__(self, name: str) -> Any:
        try:
            return self._values[name]
        except KeyError:
            raise AttributeError(name) from None

    def get(self, name: str, default: Any = None) -> Any:
        """For flags that only some of the commands have."""
        return self._values.get(name, default)

    def given(self, name: str) -> bool:
        """Whether the user gave the flag at all."""
        return name in self._given


class Parser:
    """Reads the words of one command line."""

    def __init__(self, flags: list[Flag]) -> None:
        self._table = {name: flag for flag in flags for name in flag.names}
        self._values = {flag.key: flag.initial() for flag in flags}
        self._given: set[str] = set()

    def parse(self, words: list[str], *, interspersed: bool) -> Arguments:
        """Raises FlagError."""
        positional: list[str] = []
        queue = list(reversed(words))
        while queue:
            word = queue.pop()
            if word == "--":
                positional += reversed(queue)
                break
            if word == "-" or not word.startswith("-"):
                positional.append(word)
                if not interspersed:
                    positional += reversed(queue)
                    break
            elif word.startswith("--"):
                self._long(word, queue)
            else:
                self._short(word, queue)
        return Arguments(self._values, self._given, positional)

    def _long(self, word: str, queue: list[str]) -> None:
        name, equals, value = word.partition("=")
        flag = self._table.get(name)
        if flag is None:
            raise FlagError(f"unknown flag: {name}")
        if equals:
            self._store(flag, value)
        elif not flag.value:
            self._store(flag, "true")
        elif queue:
            self._store(flag, queue.pop())
        else:
            raise FlagError(f"flag needs an argument: {name}")

    def _short(self, word: str, queue: list[str]) -> None:
        letters = word[1:]
        while letters:
            flag = self._table.get(f"-{letters[0]}")
            if flag is None:
                raise FlagError(f"unknown shorthand flag: '{letters[0]}' in {word}")
            rest = letters[1:]
            if rest.startswith("="):
                self._store(flag, rest[1:])
                return
            if not flag.value:
                self._store(flag, "true")
                letters = rest
                continue
            if not rest and not queue:
                raise FlagError(f"flag needs an argument: '{letters[0]}' in {word}")
            self._store(flag, rest or queue.pop())
            return

    def _store(self, flag: Flag, text: str) -> None:
        value = flag.convert(text)
        if flag.needs:
            raise UsageError(f"{flag.long} is not there yet: it needs {flag.needs}, to come")
        self._given.add(flag.key)
        if flag.is_list:
            self._values[flag.key].append(value)
        else:
            self._values[flag.key] = value


def check_count(command: Command, path: str, count: int) -> None:
    """Raises UsageError in docker's words when there are too few or too many arguments."""
    least, most = command.least, command.most
    if count >= least and (most is None or count <= most):
        return
    plural = "" if (most or least) == 1 else "s"
    if most == 0:
        wanted = "accepts no arguments"
    elif most is None:
        wanted = f"requires at least {least} argument{plural}"
    elif most == least:
        wanted = f"requires {least} argument{plural}"
    elif least:
        wanted = f"requires at least {least} and at most {most} arguments"
    else:
        wanted = f"requires at most {most} argument{plural}"
    see = "See" if most is None else "Run"
    raise UsageError(
        f"estiba: 'estiba {path}' {wanted}\n\nUsage:  estiba {path} {command.usage}\n\n"
        f"{see} 'estiba {path} --help' for more information"
    )


def flag_lines(flags: list[Flag]) -> list[str]:
    """Help's lines, one a flag."""
    shown = []
    for flag in flags:
        name = f"{flag.letter + ',' if flag.letter else '   '} {flag.long}"
        value = flag.value.rstrip("…").lower()
        shown.append(f"  {name} {value}".rstrip())
    width = max((len(text) for text in shown), default=0) + 3
    return [f"{text:<{width}}{flag.help}" for text, flag in zip(shown, flags, strict=True)]


def help_text(command: Command, path: str) -> str:
    """What `--help` prints."""
    from estiba.cli.commands import aliases

    usage = f"\n        estiba {path} ".join(command.usage.split(" or ")).rstrip()
    lines = [f"Usage:  estiba {path} {usage}".rstrip(), "", command.help]
    called = aliases(command)
    if len(called) > 1:
        lines += ["", "Aliases:", "  " + ", ".join(f"estiba {words}" for words in called)]
    flags = command.flags()
    if flags:
        lines += ["", "Options:", *flag_lines(flags)]
    return "\n".join(lines)
