"""The words of Go's text/template: texts, and what stands between {{ and }}."""

from __future__ import annotations

from estiba.cli.templatevalue import TemplateError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

_SPACE = " \t\r\n"
_KEYWORDS = frozenset(
    "if else end range with define template block break continue".split()
)  # fmt: skip
_ESCAPES = dict(zip("abfnrtv\\'\"", "\a\b\f\n\r\t\v\\'\"", strict=True))
_DIGITS = {"x": 2, "u": 4, "U": 8}


class Token:
    """`value` is that of a constant."""

    __slots__ = ("kind", "pos", "text", "value")

    def __init__(self, kind: str, pos: int, text: str, value: Any = None) -> None:
        self.kind = kind
        self.pos = pos
        self.text = text
        self.value = value


def tokens(template: str) -> list[Token]:
    """Of kind text, open, close, space, keyword, identifier, field, variable, string, number,
    bool, nil, a sign that is its own kind, or error, the last one then.
    """
    found: list[Token] = []
    try:
        _Lexer(template, found).run()
    except TemplateError as error:
        found.append(Token("error", len(template), str(error)))
    return found


class _Lexer:
    def __init__(self, text: str, found: list[Token]) -> None:
        self._text = text
        self._at = 0
        self._found = found

    def _emit(self, kind: str, end: int, value: Any = None) -> None:
        self._found.append(Token(kind, self._at, self._text[self._at : end], value))
        self._at = end

    def run(self) -> None:
        text = self._text
        trim = False
        while self._at < len(text):
            if trim:
                while self._at < len(text) and text[self._at] in _SPACE:
                    self._at += 1
            opening = text.find("{{", self._at)
            end = len(text) if opening < 0 else opening
            trims_left = text.startswith("{{-", opening) and text[opening + 3 : opening + 4] in (
                *_SPACE,
            )
            shown = text[self._at : end]
            if opening >= 0 and trims_left:
                shown = shown.rstrip(_SPACE)
            if shown:
                self._found.append(Token("text", self._at, shown))
            if opening < 0:
                return
            self._at = opening + (3 if trims_left else 2)
            trim = self._comment(trims=trims_left) if self._is_comment() else self._action()

    def _is_comment(self) -> bool:
        rest = self._text[self._at :]
        return rest.startswith("/*") or (
            self._text[self._at - 1] == "-" and rest.lstrip(_SPACE).startswith("/*")
        )

    def _comment(self, *, trims: bool) -> bool:
        """True when the space after it goes too."""
        end = self._text.find("*/", self._at)
        if end < 0:
            raise TemplateError("unclosed comment")
        rest = self._text[end + 2 :]
        length = len(rest) - len(rest.lstrip(_SPACE))
        if length and rest[length:].startswith("-}}"):
            self._at = end + 2 + length + 3
            return True
        if not rest.startswith("}}"):
            raise TemplateError("comment ends before closing delimiter")
        self._at = end + 4
        return False

    def _action(self) -> bool:
        """True when the space after it goes too."""
        self._found.append(Token("open", self._at, "{{"))
        depth = 0
        while True:
            text, at = self._text, self._at
            if text.startswith("}}", at):
                break
            if at >= len(text):
                raise TemplateError("unclosed action")
            if text[at] in _SPACE:
                end = at
                while end < len(text) and text[end] in _SPACE:
                    end += 1
                if text.startswith("-}}", end):
                    self._check_depth(depth)
                    self._at = end + 1
                    self._emit("close", end + 3)
                    return True
                self._emit("space", end)
                continue
            depth += {"(": 1, ")": -1}.get(text[at], 0)
            if depth < 0:
                raise TemplateError("unexpected right paren")
            self._word(text[at])
        self._check_depth(depth)
        self._emit("close", self._at + 2)
        return False

    def _check_depth(self, depth: int) -> None:
        if depth:
            raise TemplateError("unclosed left paren")

    def _word(self, first: str) -> None:
        text, at = self._text, self._at
        following = text[at + 1 : at + 2]
        if first in "(|),=" or text.startswith(":=", at):
            end = at + 1 + (first == ":")
            self._emit(text[at:end], end)
        elif first in "\"`'":
            self._quoted(first)
        elif first.isdecimal() or (first in "+-." and (following.isdecimal() or following == ".")):
            self._number()
        elif first == ".":
            end = self._end_of_name(at + 1)
            self._emit("field" if end > at + 1 else ".", end)
        elif first == "$":
            self._emit("variable", self._end_of_name(at + 1))
        elif first.isalpha() or first == "_":
            end = self._end_of_name(at)
            name = text[at:end]
            if name in ("true", "false"):
                self._emit("bool", end, name == "true")
            elif name == "nil":
                self._emit("nil", end)
            else:
                self._emit("keyword" if name in _KEYWORDS else "identifier", end)
        else:
            raise TemplateError(f"unexpected bad character U+{ord(first):04X} '{first}' in command")

    def _end_of_name(self, at: int) -> int:
        text = self._text
        while at < len(text) and (text[at].isalnum() or text[at] == "_"):
            at += 1
        return at

    def _quoted(self, quote: str) -> None:
        text, start = self._text, self._at
        what = {'"': "quoted string", "`": "raw quoted string", "'": "character constant"}[quote]
        end = start + 1
        while end < len(text) and text[end] != quote:
            if quote != "`":
                if text[end] == "\n":
                    break
                end += text[end] == "\\"
            end += 1
        if end >= len(text) or text[end] != quote:
            raise TemplateError(f"unterminated {what}")
        inner = text[start + 1 : end]
        if quote == "`":
            self._emit("string", end + 1, inner)
            return
        value = _unquoted(inner)
        if quote == '"':
            self._emit("string", end + 1, value)
        elif len(value) == 1:
            self._emit("number", end + 1, ord(value))
        else:
            raise TemplateError(f"malformed character constant: {text[start : end + 1]}")

    def _number(self) -> None:
        text, end = self._text, self._at + 1
        while end < len(text) and (text[end].isalnum() or text[end] in "._+-"):
            if text[end] in "+-" and text[end - 1] not in "eEpP":
                break
            end += 1
        word = text[self._at : end]
        try:
            value: int | float = _integer(word)
        except ValueError:
            try:
                value = float(word)
            except ValueError:
                raise TemplateError(f'bad number syntax: "{word}"') from None
        self._emit("number", end, value)


def _integer(word: str) -> int:
    digits = word.lstrip("+-")
    if digits[:1] == "0" and digits[1:].isdecimal():
        return int(word, 8)
    return int(word, 0)


def _unquoted(text: str) -> str:
    """Go's escapes. Raises TemplateError."""
    if "\\" not in text:
        return text
    data = bytearray()
    index = 0
    while index < len(text):
        letter = text[index]
        index += 1
        if letter != "\\":
            data += letter.encode(errors="surrogateescape")
            continue
        kind = text[index]
        index += 1
        if kind in _ESCAPES:
            data += _ESCAPES[kind].encode()
            continue
        octal = kind in "01234567"
        length = 3 if octal else _DIGITS.get(kind, 0)
        start = index - octal
        digits = text[start : start + length]
        index = start + length
        try:
            code = int(digits, 8 if octal else 16) if len(digits) == length else -1
            data += bytes([code]) if octal or kind == "x" else chr(code).encode()
        except ValueError:
            raise TemplateError(f'invalid syntax: "{text}"') from None
    return data.decode(errors="replace")
