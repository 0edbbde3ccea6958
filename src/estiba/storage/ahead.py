"""Pieces made in a thread of their own, beside the work on those before."""

from __future__ import annotations

import queue
import threading
from collections.abc import Generator, Iterator

_DEPTH = 4
_LOOK_S = 0.05


def ahead(pieces: Iterator[bytes]) -> Iterator[bytes]:
    """The same pieces, and the same error. The thread ends with this iterator."""
    made: queue.Queue[bytes | BaseException | None] = queue.Queue(_DEPTH)
    is_left = threading.Event()

    def make() -> None:
        try:
            for piece in pieces:
                made.put(piece)
                if is_left.is_set():
                    break
            made.put(None)
        except BaseException as error:
            made.put(error)
        finally:
            if isinstance(pieces, Generator):
                pieces.close()

    thread = threading.Thread(target=make, name="made-ahead", daemon=True)
    thread.start()
    try:
        while (piece := made.get()) is not None:
            if isinstance(piece, BaseException):
                raise piece
            yield piece
    finally:
        is_left.set()
        while thread.is_alive():
            try:
                made.get(timeout=_LOOK_S)
            except queue.Empty:
                continue
