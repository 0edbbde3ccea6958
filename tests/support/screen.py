"""What a terminal shows after all that was written to it: a small emulator.

Knows what a careful program sends: text, newlines, returns, and the few sequences of the views.
Anything else is an error, so that nothing a program prints gets through unseen.
"""

from __future__ import annotations

import re
import unicodedata

_PIECES = re.compile(r"\x1b\[\??[0-9;]*[A-Za-z]|[\r\n]|[^\x1b\r\n]")


class Screen:
    """`lines` are all that was shown, those that have scrolled away included."""

    def __init__(self, rows: int, columns: int) -> None:
        self.rows = rows
        self.columns = columns
        self.lines: list[list[str]] = [[]]
        self.has_cursor = True
        self._wraps = True
        self._row = self._column = 0

    def feed(self, data: bytes) -> None:
        text = data.decode()
        at = 0
        for piece in _PIECES.finditer(text):
            assert piece.start() == at, f"unknown sequence: {text[at : at + 20]!r}"
            at = piece.end()
            self._put(piece[0])
        assert at == len(text), f"unknown sequence: {text[at : at + 20]!r}"

    def _put(self, piece: str) -> None:
        if piece == "\r":
            self._column = 0
        elif piece == "\n":
            # The line discipline of a terminal sends a return with it.
            self._move_down()
        elif piece[0] == "\x1b":
            self._control(piece[2:-1], piece[-1])
        else:
            self._print(piece)

    def _move_down(self) -> None:
        self._row += 1
        while self._row >= len(self.lines):
            self.lines.append([])

    def _print(self, character: str) -> None:
        assert character.isprintable(), f"a control character: {character!r}"
        if unicodedata.combining(character):
            return
        wide = 2 if unicodedata.east_asian_width(character) in "WF" else 1
        if self._column + wide > self.columns:
            if not self._wraps:
                return
            self._move_down()
            self._column = 0
        line = self.lines[self._row]
        line.extend(" " * (self._column + wide - len(line)))
        line[self._column : self._column + wide] = [character, ""][:wide]
        self._column += wide

    def _control(self, numbers: str, letter: str) -> None:
        if letter == "A":
            top = max(len(self.lines) - self.rows, 0)
            self._row -= int(numbers or 1)
            assert self._row >= top, "above the window"
        elif letter == "K":
            del self.lines[self._row][self._column :]
        elif letter == "J":
            del self.lines[self._row + 1 :]
            del self.lines[self._row][self._column :]
        elif letter in "hl" and numbers in ("?25", "?7"):
            if numbers == "?25":
                self.has_cursor = letter == "h"
            else:
                self._wraps = letter == "h"
        else:
            assert letter == "m", f"unknown sequence: {numbers}{letter}"

    @property
    def text(self) -> str:
        return "\n".join("".join(line).rstrip() for line in self.lines).rstrip("\n")

    @property
    def window(self) -> list[str]:
        """What can be seen now."""
        return ["".join(line).rstrip() for line in self.lines[-self.rows :]]
