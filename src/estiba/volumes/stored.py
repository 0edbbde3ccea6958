"""Volumes with a size limit, with encryption, or both: what `_data` shows of what is stored.

    <volume>/_disk.ext4, _disk     a file system of its own, if there is a size (volumes.disk)
    base/_tree, _cipher, _plain    the files, encrypted or not (volumes.ciphers)
    <volume>/_data                 the directory `_data` in them, mounted while in use

`base` is the volume's directory, or the file system in it. `_data` is mounted last and taken
away first, so whoever finds it mounted finds all the rest.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from estiba.kernel import failpoint
from estiba.kernel.mounts import MountFlag, is_mounted, mount, unmount
from estiba.kernel.trees import tree_size
from estiba.model.errors import InvalidArgument
from estiba.model.sizes import parse_ram_bytes
from estiba.volumes.backing import DATA, BackingKind
from estiba.volumes.ciphers import CIPHER_TREE, CIPHERS, TREE, answers, choose
from estiba.volumes.disk import Disk, check_size, point_of, size_now, taken
from estiba.volumes.keys import KeySource, parse_key

_OPTIONS = frozenset({"size", "encrypted", "key-file", "key"})
_YES = ("", "1", "true", "yes")


@dataclass(frozen=True, slots=True)
class Encryption:
    """`asked` is a cipher's name, or empty for the best one."""

    asked: str
    key: KeySource


@dataclass(frozen=True, slots=True)
class Stored:
    """`volumes.backing.Backing`."""

    disk: Disk | None
    encryption: Encryption | None

    def make(self, directory: Path) -> None:
        """Raises FailedPrecondition for a key or program that is missing, OSError."""
        if self.encryption is not None:
            self.encryption.key.make(directory)
            failpoint.hit("volumes.key-made")
        if self.disk is not None:
            self.disk.make(directory)
        if self.encryption is not None:
            with self._base(directory) as base:
                self._make_cipher(base, directory)
            self.unmount(directory)

    def mount(self, directory: Path) -> None:
        """Raises FailedPrecondition for a wrong key, DataLoss, OSError."""
        data = directory / DATA
        if is_mounted(data) and answers(data):
            return
        self.unmount(directory)
        if self.disk is not None:
            self.disk.make(directory)
        with self._base(directory) as base:
            tree = self._open(base, directory)
            inner = tree / DATA
            if not inner.exists():
                inner.mkdir(mode=0o755)
                inner.chmod(0o755)
            mount(str(inner), data, "", MountFlag.BIND)
        failpoint.hit("volumes.data-mounted")

    def unmount(self, directory: Path) -> None:
        unmount(directory / DATA)
        base = directory if self.disk is None else point_of(directory)
        if self.encryption is not None:
            for cipher in CIPHERS.values():
                cipher.close(base)
        if self.disk is not None:
            self.disk.unmount(directory)

    def inside(self, directory: Path) -> Path:
        base = directory if self.disk is None else point_of(directory)
        if self.encryption is None:
            return base / TREE
        return choose(base, self.encryption.asked).tree(base)

    def usage(self, directory: Path) -> int:
        if self.disk is not None:
            return taken(directory)
        return sum(tree_size(directory / name) for name in (TREE, CIPHER_TREE))

    def status(self, directory: Path) -> Mapping[str, object]:
        """For `volume inspect`: nothing secret."""
        told: dict[str, object] = {}
        if self.disk is not None:
            told |= {
                "Size": self.disk.size,
                "SizeNow": size_now(directory),
                "SizeOnHost": taken(directory),
            }
        if self.encryption is not None:
            base = directory if self.disk is None else point_of(directory)
            told["Key"] = self.encryption.key.place(directory)
            if self.disk is None or is_mounted(base):
                told["Encryption"] = choose(base, self.encryption.asked).name
        return told

    # -- parts -----------------------------------------------------------------------------

    @contextmanager
    def _base(self, directory: Path) -> Iterator[Path]:
        """Nothing stays mounted when what is done there fails."""
        try:
            yield directory if self.disk is None else self.disk.mount(directory)
        except BaseException:
            self.unmount(directory)
            raise

    def _make_cipher(self, base: Path, directory: Path) -> None:
        assert self.encryption is not None
        choose(base, self.encryption.asked).make(base, self.encryption.key.read(directory))

    def _open(self, base: Path, directory: Path) -> Path:
        if self.encryption is None:
            (base / TREE).mkdir(mode=0o701, exist_ok=True)
            return base / TREE
        key = self.encryption.key.read(directory)
        cipher = choose(base, self.encryption.asked)
        # Again, for a volume whose making was cut off.
        cipher.make(base, key)
        return cipher.open(base, key)


def stored_kind(keys: Path) -> BackingKind:
    """The options `size`, `encrypted`, `key-file` and `key`; generated keys lie below `keys`."""

    def make(options: Mapping[str, str]) -> Stored:
        asked = _cipher(options)
        encryption = None
        if asked is not None:
            key = parse_key(options.get("key-file", ""), options.get("key", ""), keys)
            encryption = Encryption(asked, key)
        elif options.keys() & {"key-file", "key"}:
            raise InvalidArgument("a key is for an encrypted volume: add encrypted")
        disk = None
        if "size" in options:
            size = parse_ram_bytes(options["size"])
            check_size(size)
            disk = Disk(size, encrypts=encryption is not None and asked != "gocryptfs")
        return Stored(disk, encryption)

    return BackingKind(_OPTIONS, make)


def _cipher(options: Mapping[str, str]) -> str | None:
    """Which cipher is asked for, "" for any; None without encryption."""
    if "encrypted" not in options:
        return None
    word = options["encrypted"].lower()
    if word in _YES:
        return ""
    if word not in CIPHERS:
        known = ", ".join(sorted(CIPHERS))
        raise InvalidArgument(f"option encrypted: {word[:32]!r}: use one of {known}")
    return word
