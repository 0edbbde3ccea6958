"""Go's fmt.Sprintf, for the values that templates meet."""

from __future__ import annotations

from estiba.cli.templatevalue import go_type, show, show_float

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

_INTEGERS = {"d": "d", "x": "x", "X": "X", "o": "o", "b": "b"}
_FLOATS = "eEfFgG"


def sprintf(form: str, *values: Any) -> str:
    """What does not fit stands in the text, as in Go: `%!d(string=a)`, `%!s(MISSING)`."""
    found: list[str] = []
    used = 0
    index = 0
    while index < len(form):
        percent = form.find("%", index)
        if percent < 0:
            found.append(form[index:])
            break
        found.append(form[index:percent])
        spec, index, taken = _read(form, percent + 1, values[used:])
        used += taken
        if not spec.verb:
            found.append("%!(NOVERB)")
        elif spec.verb == "%":
            found.append("%")
        elif used >= len(values):
            found.append(f"%!{spec.verb}(MISSING)")
        else:
            found.append(spec.render(values[used]))
            used += 1
    if used < len(values):
        extra = ", ".join(f"{go_type(value)}={show(value)}" for value in values[used:])
        found.append(f"%!(EXTRA {extra})")
    return "".join(found)


class _Spec:
    """One verb with its flags, width and precision."""

    def __init__(self, flags: str, width: int, precision: int | None, verb: str) -> None:
        self.flags = flags
        self.width = width
        self.precision = precision
        self.verb = verb

    def render(self, value: Any) -> str:
        if isinstance(value, list) and self.verb not in "vT":
            return f"[{' '.join(self.render(item) for item in value)}]"
        text = self._text(value)
        if text is None:
            return f"%!{self.verb}({go_type(value)}={show(value)})"
        numeric = isinstance(value, int | float) and not isinstance(value, bool)
        if "-" in self.flags:
            return text.ljust(self.width)
        if "0" in self.flags and (numeric or self.verb == "s"):
            sign = text[:1] if text[:1] in "+-" and numeric else ""
            return sign + text[len(sign) :].rjust(self.width - len(sign), "0")
        return text.rjust(self.width)

    def _text(self, value: Any) -> str | None:
        """None when the verb is not for such a value."""
        verb = self.verb
        if verb == "T":
            return go_type(value)
        if verb == "v":
            return self._signed(show(value), value)
        if isinstance(value, str):
            return self._string(value)
        if isinstance(value, bool):
            return show(value) if verb == "t" else None
        if isinstance(value, int):
            return self._integer(value)
        if isinstance(value, float) and verb in _FLOATS:
            if self.precision is None and verb in "gG":
                return self._signed(show_float(value), value)
            precision = 6 if self.precision is None else self.precision
            return self._signed(f"%.{precision}{verb}" % value, value)
        return show(value) if isinstance(value, dict) and verb == "s" else None

    def _string(self, value: str) -> str | None:
        if self.verb == "s":
            return value[: self.precision]
        if self.verb == "q":
            return quoted(value[: self.precision])
        if self.verb in "xX":
            text = value.encode(errors="surrogateescape").hex()
            return text.upper() if self.verb == "X" else text
        return None

    def _integer(self, value: int) -> str | None:
        if self.verb in _INTEGERS:
            prefix = {"x": "0x", "X": "0X", "o": "0", "b": "0b"}.get(self.verb, "")
            shown = format(abs(value), _INTEGERS[self.verb]).rjust(self.precision or 0, "0")
            shown = (prefix if "#" in self.flags else "") + shown
            return self._signed(f"-{shown}" if value < 0 else shown, value)
        if self.verb in "cqU":
            letter = chr(value) if 0 <= value < 0x110000 else "\ufffd"
            return {"c": letter, "q": f"'{letter}'", "U": f"U+{value:04X}"}[self.verb]
        return None

    def _signed(self, text: str, value: Any) -> str:
        if isinstance(value, bool) or not isinstance(value, int | float) or text[:1] == "-":
            return text
        return f"+{text}" if "+" in self.flags else f" {text}" if " " in self.flags else text


def _read(form: str, index: int, values: tuple[Any, ...]) -> tuple[_Spec, int, int]:
    """The verb that begins there, where it ends, and how many values `*` took."""
    start = index
    while index < len(form) and form[index] in "+-# 0":
        index += 1
    flags = form[start:index]
    taken = 0

    def number() -> int | None:
        nonlocal index, taken
        if form[index : index + 1] == "*":
            index += 1
            taken += 1
            value = values[taken - 1] if taken <= len(values) else 0
            return value if isinstance(value, int) else 0
        begin = index
        while index < len(form) and form[index].isdecimal():
            index += 1
        return int(form[begin:index]) if index > begin else None

    width = number() or 0
    precision = None
    if form[index : index + 1] == ".":
        index += 1
        precision = number() or 0
    if width < 0:
        flags, width = f"{flags}-", -width
    return _Spec(flags, width, precision, form[index : index + 1]), index + 1, taken


def quoted(text: str) -> str:
    """A string as Go writes one in source."""
    known = {'"': '\\"', "\\": "\\\\", "\a": "\\a", "\b": "\\b", "\f": "\\f", "\n": "\\n",
             "\r": "\\r", "\t": "\\t", "\v": "\\v"}  # fmt: skip

    def one(letter: str) -> str:
        if letter in known or letter.isprintable():
            return known.get(letter, letter)
        code = ord(letter)
        return f"\\x{code:02x}" if code < 0x80 else f"\\u{code:04x}"

    return f'"{"".join(one(letter) for letter in text)}"'
