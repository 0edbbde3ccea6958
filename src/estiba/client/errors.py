"""What can go wrong on the client's side."""

from __future__ import annotations


class ClientError(Exception):
    """Root of the tree; the message is for the user."""


class ApiError(ClientError):
    """The daemon refused; `status` is the HTTP status."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


class NoDaemon(ClientError):
    """Nothing answers at the address."""
