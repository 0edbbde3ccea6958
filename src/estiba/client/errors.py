"""What can go wrong on the client's side.

ClientError            the message is for the user
├── ApiError           the daemon refused; `status` is the HTTP status
│   └── StartError     a container that was made and did not start
└── NoDaemon           nothing answers at the address
"""

from __future__ import annotations


class ClientError(Exception):
    """Root of the tree; the message is for the user."""


class ApiError(ClientError):
    """The daemon refused; `status` is the HTTP status."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


_NOT_FOUND = (
    "executable file not found",
    "no such file or directory",
    "system cannot find the file specified",
)
_NOT_EXECUTABLE = ("permission denied", "is a directory", "exec format error")


class StartError(ApiError):
    """A container that was made and did not start."""

    @property
    def exit_code_of_program(self) -> int:
        """126 for a program that cannot be run, 127 for a missing one, 125 for the engine."""
        # With docker's eyes for capitals: the system's own "No such file" is about other files.
        text = str(self)
        if any(words in text for words in _NOT_FOUND):
            return 127
        if any(words in text for words in _NOT_EXECUTABLE):
            return 126
        return 125


class NoDaemon(ClientError):
    """Nothing answers at the address; `is_absent` unless something is there and refuses us."""

    def __init__(self, message: str, *, is_absent: bool = True) -> None:
        super().__init__(message)
        self.is_absent = is_absent
