"""Streams made of other streams: closing one closes what it draws from, and waits for that.

A generator that is closed while it is suspended, or before it has begun, only lets go of the one
that it iterates over. That one ends whenever the collector has it, in a task that nobody awaits:
a build, for instance, whose engine has gone by then.
"""

from __future__ import annotations

import functools
from collections.abc import AsyncIterator, Callable
from typing import Any, Concatenate, Generic, ParamSpec, TypeVar

P = ParamSpec("P")
S = TypeVar("S")
T = TypeVar("T")


class Through(Generic[T]):
    """`pieces` are drawn from `source`."""

    def __init__(self, pieces: AsyncIterator[T], source: AsyncIterator[Any]) -> None:
        self._pieces = pieces
        self._source = source

    def __aiter__(self) -> AsyncIterator[T]:
        return self

    async def __anext__(self) -> T:
        return await anext(self._pieces)

    async def aclose(self) -> None:
        """Harmless twice, and after the end."""
        try:
            await close(self._pieces)
        finally:
            await close(self._source)


def through(
    make: Callable[Concatenate[AsyncIterator[S], P], AsyncIterator[T]],
) -> Callable[Concatenate[AsyncIterator[S], P], Through[T]]:
    """For a generator function whose first argument is the stream that it draws from."""

    def made(source: AsyncIterator[S], /, *args: P.args, **kwargs: P.kwargs) -> Through[T]:
        return Through(make(source, *args, **kwargs), source)

    functools.update_wrapper(made, make)
    return made


async def close(stream: AsyncIterator[Any]) -> None:
    """Of what has nothing to be closed nothing is."""
    closer = getattr(stream, "aclose", None)
    if closer is not None:
        await closer()
