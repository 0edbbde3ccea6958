"""What a plugin was asked to make, noted before it is asked: after a crash the next start undoes
what no live container has. One file a thing, gone with a reboot as the things are."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from estiba.kernel.files import write_atomic


class Notes:
    """Bytes by a name that is a hash."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory

    def put(self, name: str, content: bytes) -> None:
        self._directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        write_atomic(self._directory / name, content, durable=False)

    def get(self, name: str) -> bytes:
        return (self._directory / name).read_bytes()

    def has(self, name: str) -> bool:
        return (self._directory / name).exists()

    def drop(self, name: str) -> None:
        (self._directory / name).unlink(missing_ok=True)

    def all(self) -> Iterator[tuple[str, bytes]]:
        if self._directory.is_dir():
            for path in sorted(self._directory.iterdir()):
                if not path.name.startswith("."):
                    yield path.name, path.read_bytes()
