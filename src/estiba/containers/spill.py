"""Output that a client has not read, on the disk: in order, in files without a name.

Each file is given back once it is read, so a client that stays a little behind for ever takes
no more room than what it is behind.
"""

from __future__ import annotations

import struct
import tempfile
from collections import deque
from dataclasses import dataclass
from pathlib import Path
from typing import IO

FILE_BYTES = 16 << 20
_FRAME = struct.Struct(">BI")


@dataclass(slots=True)
class _File:
    file: IO[bytes]
    written: int = 0
    read: int = 0


class Spill:
    """Appended to and read by one thread at a time."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._files: deque[_File] = deque()
        self.unread_bytes = 0

    @property
    def is_empty(self) -> bool:
        return not self._files

    def append(self, stream: int, data: bytes) -> None:
        """Raises OSError when the disk is full."""
        if not self._files or self._files[-1].written >= FILE_BYTES:
            # Not buffered: what found no room would come up again when the file is closed.
            file = tempfile.TemporaryFile(dir=self._directory, buffering=0)  # noqa: SIM115
            self._files.append(_File(file))
        last = self._files[-1]
        last.file.seek(last.written)
        left = memoryview(_FRAME.pack(stream, len(data)) + data)
        while left:
            left = left[last.file.write(left) :]
        last.written += _FRAME.size + len(data)
        self.unread_bytes += _FRAME.size + len(data)

    def next(self) -> tuple[int, bytes] | None:
        """The oldest chunk, or None when all was read."""
        while self._files:
            first = self._files[0]
            if first.read < first.written:
                first.file.seek(first.read)
                stream, size = _FRAME.unpack(first.file.read(_FRAME.size))
                data = first.file.read(size)
                first.read += _FRAME.size + size
                self.unread_bytes -= _FRAME.size + size
                return stream, data
            self._files.popleft().file.close()
        return None

    def close(self) -> None:
        while self._files:
            self._files.popleft().file.close()
        self.unread_bytes = 0
