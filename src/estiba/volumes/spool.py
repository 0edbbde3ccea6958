"""An archive on its way to a reader who may be slow: on the disk, in a file without a name.

What it holds may be the plain form of an encrypted volume, so it is written under a key that is
made for it and known to nobody else. It is never read by another process, and a reader changes
nothing in it: there is no need to authenticate it.
"""

from __future__ import annotations

import secrets
import tempfile
from collections.abc import Generator, Iterator
from contextlib import closing
from pathlib import Path

from estiba.kernel import failpoint

_KEY_BYTES, _NONCE_BYTES = 32, 16
_PIECE_BYTES = 1 << 20


class Spool:
    """Written whole, then read once; by one thread at a time."""

    def __init__(self, directory: Path) -> None:
        """Raises OSError."""
        # Slow to import, and needed by few.
        from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes

        key, nonce = secrets.token_bytes(_KEY_BYTES), secrets.token_bytes(_NONCE_BYTES)
        cipher = Cipher(algorithms.AES(key), modes.CTR(nonce))
        self._encryptor, self._decryptor = cipher.encryptor(), cipher.decryptor()
        self._file = tempfile.TemporaryFile(dir=directory)  # noqa: SIM115

    def fill(self, pieces: Generator[bytes, None, None]) -> Iterator[bytes]:
        """Keeps the pieces, and gives them on as they come. Raises OSError for a full disk."""
        with closing(pieces):
            for piece in pieces:
                self._file.write(self._encryptor.update(piece))
                failpoint.hit("volumes.spooling")
                yield piece
        self._file.flush()

    def pieces(self) -> Iterator[bytes]:
        self._file.seek(0)
        while data := self._file.read(_PIECE_BYTES):
            yield self._decryptor.update(data)

    def close(self) -> None:
        self._file.close()
