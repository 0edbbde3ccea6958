"""A blob as a stream that reconnects where it broke."""

from __future__ import annotations

from types import TracebackType

from estiba.model.errors import NotImplemented


class BlobStream:
    """Read by one thread; `close` may come from another, and ends a blocked `read`."""

    def read(self, size: int) -> bytes:
        """Up to `size` bytes; empty at the end, where length and digest have been checked.

        Nothing read may be trusted before. Raises DataLoss when they differ, Unavailable when
        the registry went away for good, Cancelled.
        """
        raise NotImplemented("blobs cannot be read yet")

    def close(self) -> None:
        """Twice is harmless."""

    def __enter__(self) -> BlobStream:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        at: TracebackType | None,
    ) -> None:
        self.close()
